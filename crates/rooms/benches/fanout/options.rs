//! The command line.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use crate::load::{ALL_LOADS, Load, Order};

/// Measures the CPU time and latency of deliveries in rooms.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Loads, separated by commas: ROOMSxCLIENTS@HZ, with 20 Hz if no rate is given, or `all`. Without
    /// `--loads` and `--orders`: 1x100 ordered and 100x10 spread.
    #[arg(long, value_delimiter = ',')]
    loads: Vec<String>,
    /// Orders in which the clients send, separated by commas. For a single room `spread` is the same as
    /// `ordered`, and only one of them is measured. Default: ordered,spread.
    #[arg(long, value_delimiter = ',')]
    orders: Vec<Order>,
    /// Servers of this program, separated by commas: `atoll`, `axum` (one send for each message),
    /// `axum-flush` (all queued messages are fed, then flushed once). `atoll:5` is Atoll with a flush
    /// interval of 5 ms.
    #[arg(long, value_delimiter = ',', default_value = "atoll,axum")]
    servers: Vec<String>,
    /// Another server, such as an older build of this program: `PROGRAM ARGS` or `NAME=PROGRAM ARGS`. The
    /// first line of its output must be its address. The option may be given several times.
    #[arg(long, value_name = "COMMAND")]
    server_command: Vec<String>,
    /// The server that others are compared with. If it is not measured, the first server is.
    #[arg(long, default_value = "axum")]
    pub(crate) yardstick: String,
    /// Length of each measurement.
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Length of the warm-up before each measurement.
    #[arg(long, default_value_t = 2.0)]
    warm_up_seconds: f64,
    /// How often each server is measured under each load.
    #[arg(long, default_value_t = 1)]
    pub(crate) rounds: u32,
    /// The core of the servers.
    #[arg(long, default_value_t = 0)]
    pub(crate) server_core: usize,
    /// The core of the loader.
    #[arg(long, default_value_t = 1)]
    pub(crate) loader_core: usize,
    /// Serve instead of measuring. The first line of the output is the address.
    #[arg(long, value_name = "NAME")]
    pub(crate) server: Option<ServerName>,
    /// The flush interval of Atoll.
    #[arg(long, default_value_t = 14)]
    pub(crate) flush_interval_ms: u64,
    /// Passed by `cargo bench`.
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

/// A server of this program.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ServerName {
    Atoll,
    Axum,
    AxumFlush,
}

/// A server to measure.
#[derive(Debug)]
pub(crate) struct ServerCommand {
    pub(crate) name: String,
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
}

impl Options {
    /// The loads to measure, each with the order in which its clients send.
    pub(crate) fn workloads(&self) -> Result<Vec<(Load, Order)>> {
        if self.loads.is_empty() && self.orders.is_empty() {
            return Ok(vec![
                (Load { rooms: 1, clients: 100, hz: 20 }, Order::Ordered),
                (Load { rooms: 100, clients: 10, hz: 20 }, Order::Spread),
            ]);
        }
        let loads = match &*self.loads {
            [] => ALL_LOADS.to_vec(),
            [all] if all == "all" => ALL_LOADS.to_vec(),
            loads => loads.iter().map(|load| load.parse()).collect::<Result<_>>()?,
        };
        let orders = match &*self.orders {
            [] => &[Order::Ordered, Order::Spread],
            orders => orders,
        };
        let is_distinct = |load: &Load, order: Order| {
            load.rooms > 1 || order != Order::Spread || !orders.contains(&Order::Ordered)
        };
        let with_orders = |load| {
            let orders = orders.iter().copied().filter(move |&order| is_distinct(&load, order));
            orders.map(move |order| (load, order))
        };
        Ok(loads.into_iter().flat_map(with_orders).collect())
    }

    /// The servers to measure.
    pub(crate) fn servers(&self) -> Result<Vec<ServerCommand>> {
        let own = self.servers.iter().filter(|name| !name.is_empty()).map(|name| self.own_server(name));
        own.chain(self.server_command.iter().map(|command| other_server(command))).collect()
    }

    pub(crate) fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up_seconds)
    }

    /// A server of this program: `NAME` or `NAME:FLUSH_INTERVAL_MS`.
    fn own_server(&self, name: &str) -> Result<ServerCommand> {
        let default_interval = self.flush_interval_ms.to_string();
        let (server, interval) = name.split_once(':').unwrap_or((name, &default_interval));
        let program = std::env::current_exe()?;
        let program =
            program.into_os_string().into_string().ok().context("the program's path is not UTF-8")?;
        let arguments = ["--server", server, "--flush-interval-ms", interval];
        Ok(ServerCommand { name: name.to_owned(), program, arguments: arguments.map(str::to_owned).to_vec() })
    }
}

/// A server from `PROGRAM ARGS` or `NAME=PROGRAM ARGS`.
fn other_server(command: &str) -> Result<ServerCommand> {
    let is_name = |name: &str| !name.contains(['/', ' ']);
    let named = command.split_once('=').filter(|(name, _)| is_name(name));
    let (name, command) = named.unwrap_or((command, command));
    let mut words = command.split_ascii_whitespace().map(str::to_owned);
    let program = words.next().context("--server-command is empty")?;
    Ok(ServerCommand { name: name.to_owned(), program, arguments: words.collect() })
}
