/// A service on offer. `P` names its procedures to whoever answers them.
#[derive(Debug)]
pub struct Module<P: 'static> {
    /// What clients ask for.
    pub name: &'static str,
    /// Its procedures.
    pub procedures: &'static [Procedure<P>],
}

/// A procedure of a [`ModuleState`].
#[derive(Debug)]
pub struct Procedure<P> {
    /// What clients find it by.
    pub name: &'static str,
    /// What a call of it says that it is for.
    pub id: P,
}
