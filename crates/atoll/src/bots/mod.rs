//! `atoll bots`: headless clients that walk, publish, and check that they receive each other.

mod assignment_log;
mod bot;
mod bot_pool;
mod convergence;
mod delivery_log;
mod dialect;
mod heartbeats;
mod login_load;
mod move_loss;
mod moves;
mod proximity_check;
mod ranges;
mod report;
mod route;
mod server;
mod sessions;
mod topics;
mod walk;

use std::{collections::HashSet, num::NonZeroUsize, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    signal::{self, unix::SignalKind},
    time::{self, Instant},
};

use bot_pool::BotPool;
use convergence::Directors;
use dialect::{DialectFlag, Gateways};
use proximity_check::ProximityCheck;
use report::{ProgressDisplay, Summary};
use route::Route;
use server::MetricsClient;
use walk::Walker;

/// The flags of `atoll bots`. A flag's doc comment is its help text.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Flags {
    /// The number of bots.
    #[arg(long, default_value_t = 20)]
    count: usize,
    /// The realm. If it has several gateways, list all of them, separated by commas: bots spread over
    /// them, and after a failure of its gateway a bot connects to the next.
    #[arg(long, value_name = "URLS", value_delimiter = ',', default_value = "http://127.0.0.1:5000")]
    url: Vec<String>,
    /// The admin sockets of the realm's directors, separated by commas. At the end, and at SIGUSR1, the
    /// bots compare the leader's assignments with the assignments that they received.
    #[arg(long, value_name = "URLS", value_delimiter = ',',
          conflicts_with_all = ["idle", "login_storm", "topics"])]
    admin: Vec<String>,
    /// Stop after so many seconds and print the summary; without it, at Ctrl-C.
    #[arg(long)]
    seconds: Option<u64>,
    /// Print the summary as one line of JSON.
    #[arg(long)]
    json: bool,
    /// The seed of the random walks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Positions that each bot sends into its room per second.
    #[arg(long, default_value_t = 10.0, value_parser = rate)]
    hz: f64,
    /// Size of each position packet in bytes, padded if it would be smaller.
    #[arg(long, default_value_t = 0)]
    bytes: usize,
    /// The realm's island size limit. Bots of a larger group need not be in one island.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// The share of bots that behave like stock clients: they leave their room as soon as they are
    /// assigned another one.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    stock: f64,
    /// The protocol between bots and gateway; mixed: every other bot uses RPC.
    #[arg(long, value_enum, default_value_t)]
    dialect: DialectFlag,
    /// The transports that bots announce, separated by commas, such as livekit,ws-room. They enter only
    /// WebSocket rooms all the same. Without it, and over RPC, they announce none.
    #[arg(long, value_name = "PROTOCOLS", value_delimiter = ',', value_parser = protocol_name)]
    transports: Vec<String>,
    /// The realm has rules that separate peers that are near each other: only bots of one island must
    /// receive each other.
    #[arg(long)]
    ruled: bool,
    /// All bots walk along these points repeatedly, instead of at random: "x,z x,z ...", in metres.
    #[arg(long, value_name = "POINTS", allow_hyphen_values = true)]
    route: Option<Route>,
    /// The walking speed in metres per second.
    #[arg(long, value_name = "M_PER_S", default_value_t = 6.0, value_parser = speed)]
    speed: f32,
    /// All bots stay near one position.
    #[arg(long, conflicts_with = "route")]
    still: bool,
    /// All bots stay at so many positions, which are too far apart for one island.
    #[arg(long, value_name = "PLACES", conflicts_with_all = ["route", "still"])]
    groups: Option<NonZeroUsize>,
    /// All bots sign in and do nothing more.
    #[arg(long)]
    idle: bool,
    /// Instead of bots, start so many sign-ins per second: each with a connection, a wallet and a
    /// signature of its own, and closed at once. Only for realms on this machine.
    #[arg(long, value_name = "RATE", requires = "seconds", value_parser = login_load::rate,
          conflicts_with_all = ["count", "still", "groups", "idle", "route", "stock", "transports"])]
    login_storm: Option<u32>,
    /// Instead of bots, publish so many messages per second under one topic, to --count subscribers.
    #[arg(long, value_name = "RATE", requires = "seconds", value_parser = rate,
          conflicts_with_all = ["login_storm", "still", "groups", "idle", "route", "stock", "transports", "dialect"])]
    topics: Option<f64>,
    /// Instead of bots, publish so many heartbeats per second on a bus, for --count peers of simulated
    /// gateways. Measures one director, which is at --url and must have no other peers.
    #[arg(long, value_name = "RATE", requires_all = ["seconds", "bus"], value_parser = heartbeats::rate,
          conflicts_with_all = ["login_storm", "topics", "still", "idle", "route", "stock", "transports",
                                "dialect", "admin"])]
    heartbeats: Option<f64>,
    /// The URL of the NATS server.
    #[arg(long, value_name = "URL", requires = "heartbeats")]
    bus: Option<String>,
    /// The process id of the NATS server; the summary then includes its CPU and memory.
    #[arg(long, value_name = "PID", requires = "heartbeats")]
    bus_pid: Option<u32>,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=10_000.0).contains(&rate) { Ok(rate) } else { Err("must be between 0.1 and 10000".to_owned()) }
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("must be between 0 and 1".to_owned()) }
}

fn speed(text: &str) -> Result<f32, String> {
    let speed: f32 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=100.0).contains(&speed) { Ok(speed) } else { Err("must be between 0.1 and 100".to_owned()) }
}

fn protocol_name(text: &str) -> Result<String, String> {
    match protocol::is_protocol_name(text) {
        true => Ok(text.to_owned()),
        false => Err("must be the name of a protocol, such as ws-room".to_owned()),
    }
}

/// Sign-ins started per second, below the default rate limits of a realm.
const SIGN_INS_PER_SECOND: u32 = 200;
/// How often proximity is checked, and the progress line is printed.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
const LINE_INTERVAL: Duration = Duration::from_secs(1);
/// The time after the last sign-in before measurements count.
const SETTLING: Duration = Duration::from_secs(2);

pub(crate) async fn run(flags: Flags) -> Result<ExitCode> {
    if let (Some(rate), Some(seconds)) = (flags.login_storm, flags.seconds) {
        return login_load::run(&flags, rate, seconds).await;
    }
    if let (Some(rate), Some(seconds)) = (flags.topics, flags.seconds) {
        return topics::run(&flags, rate, seconds).await;
    }
    if let (Some(rate), Some(seconds), Some(bus)) = (flags.heartbeats, flags.seconds, &flags.bus) {
        return heartbeats::run(&flags, bus, rate, seconds).await;
    }
    // Each bot holds two sockets.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let gateways = Gateways::discover(&flags.url, flags.dialect).await.context("no realm")?;
    let server = MetricsClient::new(&flags.url);
    let before = server.sample().await;
    let pool = Arc::new(BotPool::new(flags.count));
    let display = Arc::new(ProgressDisplay::new(flags.json));
    if flags.count > bot_pool::MAX_PAIRWISE_BOTS {
        eprintln!(
            "more than {} bots: proximity is not checked, and unheard stays 0",
            bot_pool::MAX_PAIRWISE_BOTS
        );
    }
    let step = Duration::from_secs_f64(1.0 / flags.hz);
    let mut proximity = ProximityCheck::new(flags.limit, step);
    let began = Instant::now();
    let end = flags.seconds.map(|seconds| began + Duration::from_secs(seconds));
    let mut bots = spawn(&flags, &gateways, &pool)?;
    let measured_from = began + Duration::from_secs(flags.count as u64) / SIGN_INS_PER_SECOND + SETTLING;
    let mut first = None;
    let mut looks = time::interval(CHECK_INTERVAL);
    let mut lines = time::interval(LINE_INTERVAL);
    let directors = (!flags.admin.is_empty()).then(|| Directors::new(&flags.admin));
    let mut compare_requested = signal::unix::signal(SignalKind::user_defined1())?;
    let mut stop = std::pin::pin!(async {
        match end {
            Some(end) => time::sleep_until(end).await,
            None => std::future::pending().await,
        }
    });
    loop {
        tokio::select! {
            () = &mut stop => break,
            _ = signal::ctrl_c() => break,
            _ = looks.tick() => {
                if first.is_none() && Instant::now() >= measured_from {
                    first = Some((server.sample().await, Instant::now()));
                }
                if !flags.idle {
                    let can_communicate = |one, other| pool.can_communicate(one, other, flags.ruled);
                    proximity.update(&pool.positions(), can_communicate, &pool.received_at, pool.now_ms());
                }
            }
            Some(()) = compare_requested.recv() => {
                if let Some(directors) = directors.clone() {
                    let (display, pool) = (display.clone(), pool.clone());
                    tokio::spawn(async move { display.convergence(&directors.compare(&pool).await) });
                }
            }
            _ = lines.tick() => display.line(&pool, &proximity),
        }
    }
    let convergence = match &directors {
        Some(directors) => Some(directors.compare(&pool).await),
        None => None,
    };
    let after = server.sample().await;
    let load = server::Load::between(before.as_ref(), first.as_ref(), after.as_ref(), flags.count);
    let summary = Summary::new(&pool, &proximity, convergence, load, began.elapsed(), flags.idle);
    pool.stop();
    let leaving = async { while bots.join_next().await.is_some() {} };
    // The timeout covers a realm that does not respond any more.
    let _ = time::timeout(Duration::from_secs(5), leaving).await;
    display.summary(&summary);
    Ok(if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn spawn(flags: &Flags, gateways: &Gateways, pool: &Arc<BotPool>) -> Result<tokio::task::JoinSet<()>> {
    let mut bots = tokio::task::JoinSet::new();
    let stock = choose_stock(flags);
    for index in 0..flags.count {
        let seed = flags.seed.wrapping_mul(1_000_003).wrapping_add(index as u64);
        let rng = StdRng::seed_from_u64(seed);
        let walker = match &flags.route {
            Some(route) => Walker::along(route.clone(), index, flags.count, flags.speed),
            None => match (flags.groups, flags.still) {
                (Some(groups), _) => Walker::still(index % groups, groups.get(), rng),
                (None, true) => Walker::still(0, 1, rng),
                (None, false) => Walker::new(index, flags.count, flags.speed, rng),
            },
        };
        let gateway = gateways.for_bot(index);
        let mut settings = match stock.contains(&index) {
            true => client::Settings::stock(gateway),
            false => client::Settings::new(gateway),
        };
        pool.log(index).stock = stock.contains(&index);
        settings.transports.clone_from(&flags.transports);
        let identity = client::guest()?;
        pool.register(index, identity.address());
        let arrival = Duration::from_secs(1) * u32::try_from(index)? / SIGN_INS_PER_SECOND;
        let plan = bot::BotPlan {
            index,
            arrival,
            idle: flags.idle,
            step: Duration::from_secs_f64(1.0 / flags.hz),
            bytes: flags.bytes,
        };
        bots.spawn(bot::run(plan, settings, identity, walker, pool.clone()));
    }
    Ok(bots)
}

/// The bots that behave like stock clients: a random choice, so that they walk like the others.
fn choose_stock(flags: &Flags) -> HashSet<usize> {
    let amount = (flags.count as f64 * flags.stock).round() as usize;
    let mut rng = StdRng::seed_from_u64(flags.seed);
    rand::seq::index::sample(&mut rng, flags.count, amount).into_iter().collect()
}
