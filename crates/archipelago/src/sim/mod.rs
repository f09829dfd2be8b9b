//! Simulated worlds for the engine: random layouts, workloads, measurements and drawings.
//!
//! Simulations are deterministic: the seed determines all that happens. Only the duration of a flush is
//! not; it is measured with a clock that the caller passes in.

mod fixtures;
pub mod layouts;
mod measure;
mod rng;
mod simulation;
mod svg;
mod workload;

pub use self::{
    fixtures::{address, node},
    rng::Rng,
    simulation::{Measurements, Simulation, SimulationConfig, SimulationError},
    svg::draw,
    workload::{Walkers, Workload, WorkloadError},
};
