//! Headless clients that walk, publish, and check that they receive each other.

mod bot;
mod convergence;
mod event_recorder;
mod log;
mod move_loss;
mod moves;
mod numbering;
mod pool;
mod position_packet;
mod progress;
mod proximity_check;
mod receipt_times;
pub(crate) mod route;
mod run;
mod summary;
mod walk;

pub(crate) use run::run;
