//! `--login-storm`: how many sign-ins per second a gateway sustains.
//!
//! The load is open-loop: sign-ins start at fixed times, whether or not earlier ones have ended, and
//! the latency is measured from the time at which the sign-in was due.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use client::{Disconnect, Identity, Session, Settings};
use hdrhistogram::Histogram;
use reqwest::Url;
use serde::Serialize;
use tokio::{
    net::lookup_host,
    sync::{Semaphore, mpsc},
    task,
    time::{self, Instant},
};

use crate::{
    flags::Flags,
    gateways::Gateways,
    percentiles::{Percentiles, latency_histogram},
    realm_metrics::{MetricsClient, Sample},
};

/// Wallets that are created before the load. They are then used in turn; no more sign-ins are in flight
/// than there are wallets.
const MAX_WALLETS: usize = 20_000;
/// File descriptors of this process that are not sockets of the load.
const RESERVED_FILES: u64 = 64;
/// Sign-ins in flight at a time. At the bound the next one is not started, and counted.
const MAX_IN_FLIGHT: u64 = 20_000;
/// How often sign-ins that are due are started.
const START_INTERVAL: Duration = Duration::from_millis(1);
/// How long a sign-in may take.
const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn run(flags: &Flags, rate: u32, seconds: u64) -> Result<ExitCode> {
    let files = rlimit::increase_nofile_limit(u64::MAX).context("no limit of open files")?;
    let max_in_flight = files.saturating_sub(RESERVED_FILES).clamp(1, MAX_IN_FLIGHT);
    let gateways = Gateways::discover(&flags.url, flags.dialect).await.context("no realm")?;
    for url in gateways.urls() {
        check_loopback(url).await?;
    }
    let offered = usize::try_from(u64::from(rate) * seconds)?;
    let wallets = offered.min(MAX_WALLETS);
    eprintln!("making {wallets} wallets");
    let identities = task::spawn_blocking(move || (0..wallets).map(|_| client::guest()).collect());
    let identities: Result<Vec<Identity>, _> = identities.await?;
    let load =
        Arc::new(LoginLoad { identities: identities?, gateways, max_in_flight: max_in_flight as usize });
    let server = MetricsClient::new(&flags.url);
    eprintln!("{rate} sign-ins a second for {seconds} s");
    let before = server.sample().await;
    let outcomes = load.run(rate, seconds, offered).await;
    let after = server.sample().await;
    let summary = Summary::new(rate, seconds, outcomes, (before, after));
    match flags.json {
        true => println!("{}", serde_json::to_string(&summary).unwrap_or_default()),
        false => summary.print(),
    }
    Ok(if summary.refused + summary.not_begun == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The load uses thousands of source addresses, which only the loopback has; from one address the
/// realm's limit for one address would hide all others.
async fn check_loopback(gateway: &str) -> Result<()> {
    let url = Url::parse(gateway).with_context(|| gateway.to_owned())?;
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(80));
    let addresses =
        lookup_host((host.trim_matches(['[', ']']), port)).await.with_context(|| gateway.to_owned())?;
    let (four, six): (Vec<_>, Vec<_>) = addresses.partition(|address| address.is_ipv4());
    ensure!(
        !four.is_empty() && four.iter().chain(&six).all(|address| address.ip().is_loopback()),
        "--login-storm is for realms on this machine, and {gateway} is not on 127.0.0.0/8"
    );
    Ok(())
}

struct LoginLoad {
    identities: Vec<Identity>,
    gateways: Gateways,
    /// The maximum of sign-ins in flight.
    max_in_flight: usize,
}

/// The result of a sign-in: its latency and whether it ended before the load did, or the failure.
type Outcome = Result<(Duration, bool), SignInFailure>;

enum SignInFailure {
    /// The maximum of sign-ins in flight was reached.
    NotStarted,
    Ended(Disconnect),
}

impl LoginLoad {
    /// Runs the load. Returns the results of all sign-ins that were due.
    async fn run(self: Arc<Self>, rate: u32, seconds: u64, offered: usize) -> Outcomes {
        // The channel has one slot for each sign-in, so that sending a result never fails.
        let (outcome, mut outcomes) = mpsc::channel(offered.max(1));
        let permits = Arc::new(Semaphore::new(self.max_in_flight));
        let counting = tokio::spawn(async move {
            let mut counted = Outcomes::default();
            while let Some(outcome) = outcomes.recv().await {
                counted.count(outcome);
            }
            counted
        });
        let began = Instant::now();
        let end = began + Duration::from_secs(seconds);
        let due_at = |index: usize| began + Duration::from_secs(1).mul_f64(index as f64 / f64::from(rate));
        let mut ticks = time::interval(START_INTERVAL);
        let mut index = 0;
        while index < offered {
            ticks.tick().await;
            while index < offered && due_at(index) <= Instant::now() {
                let (load, outcome, due) = (self.clone(), outcome.clone(), due_at(index));
                match permits.clone().try_acquire_owned() {
                    Ok(permit) => drop(tokio::spawn(async move {
                        load.sign_in(index, due, end, outcome).await;
                        drop(permit);
                    })),
                    Err(_) => drop(outcome.try_send(Err(SignInFailure::NotStarted))),
                }
                index += 1;
            }
        }
        drop(outcome);
        // Each sign-in ends by its timeout, and the counting task does not panic.
        counting.await.unwrap_or_default()
    }

    async fn sign_in(&self, index: usize, due: Instant, end: Instant, outcome: mpsc::Sender<Outcome>) {
        let mut settings = Settings::new(self.gateways.for_bot(index));
        settings.response_timeout = SIGN_IN_TIMEOUT;
        settings.local_address = Some(source_address(index));
        let signed_in = Session::sign_in(&settings, &self.identities[index % self.identities.len()]).await;
        let now = Instant::now();
        let (result, session) = match signed_in {
            Ok(session) => (Ok((now - due, now <= end)), Some(session)),
            Err(ended) => (Err(SignInFailure::Ended(ended)), None),
        };
        let _ = outcome.try_send(result);
        drop(outcome);
        if let Some(session) = session {
            session.close().await;
        }
    }
}

/// A source address on the loopback network, one of about 16 million, so that neither the ports of an
/// address run out nor one address has many handshakes.
fn source_address(index: usize) -> IpAddr {
    let [_, a, b, c] = (index as u32).to_be_bytes();
    // 127.0.0.0/16 is left to other uses, and no address ends with 0 or 255.
    Ipv4Addr::new(127, 1 + a % 254, b, 1 + c % 254).into()
}

/// The results of all sign-ins.
struct Outcomes {
    microseconds: Histogram<u64>,
    /// Sign-ins that succeeded before the load ended.
    in_time: u64,
    not_begun: u64,
    refused: BTreeMap<String, u64>,
}

impl Default for Outcomes {
    fn default() -> Self {
        Self { microseconds: latency_histogram(), in_time: 0, not_begun: 0, refused: BTreeMap::new() }
    }
}

impl Outcomes {
    fn count(&mut self, outcome: Outcome) {
        let reason = match outcome {
            Ok((took, in_time)) => {
                self.in_time += u64::from(in_time);
                return self.microseconds.saturating_record(took.as_micros() as u64);
            }
            Err(SignInFailure::NotStarted) => return self.not_begun += 1,
            Err(SignInFailure::Ended(Disconnect::Refused { status, .. })) => format!("HTTP status {status}"),
            Err(SignInFailure::Ended(Disconnect::Closed { code, reason })) => format!("{reason} ({code})"),
            Err(SignInFailure::Ended(ended)) => ended.to_string(),
        };
        *self.refused.entry(reason).or_default() += 1;
    }
}

/// The result of a run. Its field names are JSON keys.
#[derive(Debug, Serialize)]
struct Summary {
    seconds: u64,
    offered: u64,
    offered_per_second: u32,
    signed_in: u64,
    /// During the load.
    signed_in_per_second: f64,
    /// Not started because too many were in flight.
    not_begun: u64,
    refused: u64,
    refused_by_reason: BTreeMap<String, u64>,
    /// From the due time to the welcome.
    latency_ms: Percentiles,
    /// The CPU time of the realm for each sign-in or refusal.
    server_cpu_us_each: Option<f64>,
    /// The cores that the realm used meanwhile.
    server_cores: Option<f64>,
}

impl Summary {
    fn new(
        rate: u32,
        seconds: u64,
        outcomes: Outcomes,
        (before, after): (Option<Sample>, Option<Sample>),
    ) -> Self {
        let signed_in = outcomes.microseconds.len();
        let refused: u64 = outcomes.refused.values().sum();
        let load = after.zip(before).map(|(after, before)| after.since(&before));
        Self {
            seconds,
            offered: signed_in + refused + outcomes.not_begun,
            offered_per_second: rate,
            signed_in,
            signed_in_per_second: outcomes.in_time as f64 / seconds as f64,
            not_begun: outcomes.not_begun,
            refused,
            refused_by_reason: outcomes.refused,
            latency_ms: Percentiles::of(&outcomes.microseconds),
            server_cpu_us_each: load.map(|(cpu, _)| 1e6 * cpu / (signed_in + refused).max(1) as f64),
            server_cores: load.map(|(cpu, seconds)| cpu / seconds),
        }
    }

    fn print(&self) {
        println!("  offered         {} ({}/s for {} s)", self.offered, self.offered_per_second, self.seconds);
        println!("  signed in       {} ({:.0}/s)", self.signed_in, self.signed_in_per_second);
        println!(
            "  refused         {}, {} not started because too many were in flight",
            self.refused, self.not_begun
        );
        for (reason, count) in &self.refused_by_reason {
            println!("    {count:>8}  {reason}");
        }
        println!("  latency         {} ms", self.latency_ms.with_max());
        match self.server_cpu_us_each.zip(self.server_cores) {
            Some((each, cores)) => println!("  server          {each:.0} µs of CPU each, {cores:.2} cores"),
            None => println!("  server          its /metrics did not respond"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn login_load_is_limited_to_loopback() {
        let check = async |host: &str| check_loopback(&format!("ws://{host}/archipelago/ws")).await;
        assert!(check("127.0.0.1:5000").await.is_ok() && check("127.9.9.9:80").await.is_ok());
        for other in ["192.0.2.1:5000", "[::1]:5000", "0.0.0.0:5000"] {
            let error = check(other).await.unwrap_err().to_string();
            assert!(error.contains(&format!("{other}/archipelago/ws is not on 127.0.0.0/8")), "{error}");
        }
    }

    #[test]
    fn source_addresses_are_loopback_and_mostly_distinct() {
        let sources: std::collections::HashSet<IpAddr> = (0..100_000).map(source_address).collect();
        assert!(sources.iter().all(IpAddr::is_loopback));
        assert!(sources.len() > 99_000, "{}", sources.len());
        assert!(!sources.contains(&IpAddr::from([127, 0, 0, 1])));
    }
}
