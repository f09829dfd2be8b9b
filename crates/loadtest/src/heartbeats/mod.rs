//! `--heartbeats`: how many heartbeats one director processes over NATS with its flushes on time.
//!
//! Simulates gateways on the bus, and a room node that no client enters. The load is open-loop:
//! heartbeats are due at fixed times, and the latency of an assignment is measured from the due time.
//! The director's counters are compared with the number of heartbeats sent.

mod gateway;
mod peers;
mod reading;
mod run;
mod sender;
mod summary;

pub(crate) use run::run;
