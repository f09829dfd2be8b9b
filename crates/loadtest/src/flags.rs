//! The flags of `atoll bots`.

use std::{
    fmt::Display,
    num::{NonZeroU32, NonZeroUsize},
    ops::RangeInclusive,
    str::FromStr,
};

use crate::{bots::route::Route, gateways::DialectFlag};

/// The flags of `atoll bots`. A flag's doc comment is its help text.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// The number of bots.
    #[arg(long, default_value_t = 20)]
    pub(crate) count: usize,
    /// The realm. If it has several gateways, list all of them, separated by commas: bots spread over
    /// them, and after a failure of its gateway a bot connects to the next.
    #[arg(long, value_name = "URLS", value_delimiter = ',', default_value = "http://127.0.0.1:5000")]
    pub(crate) url: Vec<String>,
    /// The admin sockets of the realm's directors, separated by commas. At the end, and at SIGUSR1, the
    /// bots compare the leader's assignments with the assignments that they received.
    #[arg(long, value_name = "URLS", value_delimiter = ',',
          conflicts_with_all = ["idle", "login_storm", "topics"])]
    pub(crate) admin: Vec<String>,
    /// Stop after so many seconds and print the summary; without it, at Ctrl-C.
    #[arg(long)]
    pub(crate) seconds: Option<u64>,
    /// Print the summary as one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// The seed of the random walks.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Positions that each bot sends into its room per second.
    #[arg(long, default_value_t = 10.0, value_parser = rate)]
    pub(crate) hz: f64,
    /// One of so many position packets is reliable, the others are lossy.
    #[arg(long, value_name = "PACKETS", default_value = "10")]
    pub(crate) reliable_every: NonZeroU32,
    /// Size of each position packet in bytes, padded if it would be smaller.
    #[arg(long, default_value_t = 0)]
    pub(crate) bytes: usize,
    /// The realm's island size limit. Bots of a larger group need not be in one island.
    #[arg(long, default_value_t = 100)]
    pub(crate) limit: usize,
    /// The share of bots that behave like stock clients: they leave their room as soon as they are
    /// assigned another one.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub(crate) stock: f64,
    /// The protocol between bots and gateway; mixed: every other bot uses RPC.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) dialect: DialectFlag,
    /// The transports that bots announce, separated by commas, such as livekit,ws-room. Without it, and over
    /// RPC, they announce none. They enter rooms of both of these transports, and of no other.
    #[arg(long, value_name = "PROTOCOLS", value_delimiter = ',', value_parser = protocol_name)]
    pub(crate) transports: Vec<String>,
    /// The realm has rules that separate peers that are near each other: only bots of one island must
    /// receive each other.
    #[arg(long)]
    pub(crate) ruled: bool,
    /// All bots walk along these points repeatedly, instead of at random: "x,z x,z ...", in metres.
    #[arg(long, value_name = "POINTS", allow_hyphen_values = true)]
    pub(crate) route: Option<Route>,
    /// The walking speed in metres per second.
    #[arg(long, value_name = "M_PER_S", default_value_t = 6.0, value_parser = speed)]
    pub(crate) speed: f32,
    /// All bots stay near one position.
    #[arg(long, conflicts_with = "route")]
    pub(crate) still: bool,
    /// All bots stay at so many positions, which are too far apart for one island.
    #[arg(long, value_name = "PLACES", conflicts_with_all = ["route", "still"])]
    pub(crate) groups: Option<NonZeroUsize>,
    /// All bots sign in and do nothing more.
    #[arg(long)]
    pub(crate) idle: bool,
    /// Instead of bots, start so many sign-ins per second: each with a connection, a wallet and a
    /// signature of its own, and closed at once. Only for realms on this machine.
    #[arg(long, value_name = "RATE", requires = "seconds", value_parser = sign_in_rate,
          conflicts_with_all = ["count", "still", "groups", "idle", "route", "stock", "transports"])]
    pub(crate) login_storm: Option<u32>,
    /// Instead of bots, publish so many messages per second under one topic, to --count subscribers.
    #[arg(long, value_name = "RATE", requires = "seconds", value_parser = rate,
          conflicts_with_all = ["login_storm", "still", "groups", "idle", "route", "stock", "transports", "dialect"])]
    pub(crate) topics: Option<f64>,
    /// Instead of bots, publish so many heartbeats per second on a bus, for --count peers of simulated
    /// gateways. Measures one director, which is at --url and must have no other peers.
    #[arg(long, value_name = "RATE", requires_all = ["seconds", "bus"], value_parser = heartbeat_rate,
          conflicts_with_all = ["login_storm", "topics", "still", "idle", "route", "stock", "transports",
                                "dialect", "admin"])]
    pub(crate) heartbeats: Option<f64>,
    /// The URL of the NATS server.
    #[arg(long, value_name = "URL", requires = "heartbeats")]
    pub(crate) bus: Option<String>,
    /// The process id of the NATS server; the summary then includes its CPU and memory.
    #[arg(long, value_name = "PID", requires = "heartbeats")]
    pub(crate) bus_pid: Option<u32>,
}

fn rate(text: &str) -> Result<f64, String> {
    number(text, "a number", 0.1..=10_000.0)
}

fn sign_in_rate(text: &str) -> Result<u32, String> {
    number(text, "a whole number", 1..=100_000)
}

fn heartbeat_rate(text: &str) -> Result<f64, String> {
    number(text, "a number", 1.0..=1e6)
}

fn share(text: &str) -> Result<f64, String> {
    number(text, "a number", 0.0..=1.0)
}

fn speed(text: &str) -> Result<f32, String> {
    number(text, "a number", 0.1..=100.0)
}

/// Parses a number of this kind and within these bounds.
fn number<T>(text: &str, kind: &str, bounds: RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    let number = text.parse().map_err(|_| format!("not {kind}"))?;
    match bounds.contains(&number) {
        true => Ok(number),
        false => Err(format!("must be between {} and {}", bounds.start(), bounds.end())),
    }
}

fn protocol_name(text: &str) -> Result<String, String> {
    match protocol::is_protocol_name(text) {
        true => Ok(text.to_owned()),
        false => Err("must be the name of a protocol, such as ws-room".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_numbers_name_their_kind_and_bounds() {
        assert_eq!(rate("0.1"), Ok(0.1));
        assert_eq!(rate("x").unwrap_err(), "not a number");
        assert_eq!(rate("0").unwrap_err(), "must be between 0.1 and 10000");
        assert_eq!(share("NaN").unwrap_err(), "must be between 0 and 1");
        assert_eq!(speed("101").unwrap_err(), "must be between 0.1 and 100");
        assert_eq!(sign_in_rate("1.5").unwrap_err(), "not a whole number");
        assert_eq!(heartbeat_rate("0").unwrap_err(), "must be between 1 and 1000000");
    }
}
