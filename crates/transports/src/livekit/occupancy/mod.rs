//! The participants of a LiveKit server, from its events and its lists.

mod departures;
mod participant;
mod state;

pub use self::{
    participant::{Participant, snapshot},
    state::{Changes, MAX_PARTICIPANTS, Occupancy},
};

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
