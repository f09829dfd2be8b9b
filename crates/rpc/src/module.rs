//! The modules and procedures that a server offers.

/// A service that a server offers. `P` identifies its procedures in the code that answers the calls.
#[derive(Debug)]
pub struct Module<P: 'static> {
    /// The name by which clients request the module.
    pub name: &'static str,
    /// The procedures, in the order of their ids on the wire.
    pub procedures: &'static [Procedure<P>],
}

/// A procedure of a [`Module`].
#[derive(Debug)]
pub struct Procedure<P> {
    /// The name of the procedure on the wire.
    pub name: &'static str,
    /// The id that [`crate::Event::Called`] carries for a call of this procedure.
    pub id: P,
}
