//! Loads, and the times at which their clients send.

use std::{fmt, str::FromStr, time::Duration};

use anyhow::{Context, Error};

/// Rooms of one size, and the rate at which each client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) rooms: usize,
    /// Clients in each room.
    pub(crate) clients: usize,
    /// Messages a second of each client.
    pub(crate) hz: u32,
}

/// The loads of the table in `docs/benchmarks.md`.
pub(crate) const ALL_LOADS: [Load; 7] = [
    Load { rooms: 1, clients: 20, hz: 20 },
    Load { rooms: 1, clients: 50, hz: 20 },
    Load { rooms: 1, clients: 100, hz: 20 },
    Load { rooms: 10, clients: 100, hz: 20 },
    Load { rooms: 100, clients: 10, hz: 20 },
    Load { rooms: 1, clients: 500, hz: 20 },
    Load { rooms: 1, clients: 1_000, hz: 5 },
];

/// The order in which clients send within one period of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Order {
    /// Room by room, one member after the other, at even distances over the period.
    Ordered,
    /// The same distances, but consecutive senders are in different rooms: the members of each room are
    /// spread over the whole period.
    Spread,
    /// All members of a room at once; the rooms are spread over the period.
    Burst,
}

/// One send in each period.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Send {
    /// The client's index: those of one room are consecutive.
    pub(crate) client: usize,
    /// Time since the start of the period.
    pub(crate) offset: Duration,
}

impl Load {
    pub(crate) fn all_clients(self) -> usize {
        self.rooms * self.clients
    }

    pub(crate) fn period(self) -> Duration {
        Duration::from_secs(1) / self.hz
    }

    /// The deliveries that one message causes.
    pub(crate) fn recipients(self) -> usize {
        self.clients - 1
    }

    /// Deliveries a second, if none is lost.
    pub(crate) fn offered(self) -> f64 {
        self.all_clients() as f64 * f64::from(self.hz) * self.recipients() as f64
    }

    /// The sends of one period, in the order of time.
    pub(crate) fn schedule(self, order: Order) -> Vec<Send> {
        let count = self.all_clients();
        let send = |number: usize| {
            let client = match order {
                Order::Ordered | Order::Burst => number,
                Order::Spread => (number % self.rooms) * self.clients + number / self.rooms,
            };
            let share = match order {
                Order::Ordered | Order::Spread => number as f64 / count as f64,
                Order::Burst => (number / self.clients) as f64 / self.rooms as f64,
            };
            Send { client, offset: self.period().mul_f64(share) }
        };
        (0..count).map(send).collect()
    }
}

impl FromStr for Load {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let (size, hz) = text.split_once('@').unwrap_or((text, "20"));
            let (rooms, clients) = size.split_once('x')?;
            let load =
                Self { rooms: rooms.parse().ok()?, clients: clients.parse().ok()?, hz: hz.parse().ok()? };
            (load.rooms > 0 && load.clients > 1 && load.hz > 0).then_some(load)
        };
        parse().with_context(|| format!("{text:?} is not a load such as 10x100@20"))
    }
}

impl fmt::Display for Load {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&format!("{}x{}@{}", self.rooms, self.clients, self.hz))
    }
}

impl fmt::Display for Order {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Ordered => "ordered",
            Self::Spread => "spread",
            Self::Burst => "burst",
        })
    }
}
