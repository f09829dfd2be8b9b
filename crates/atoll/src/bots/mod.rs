//! `atoll bots`: headless explorers that walk, talk, and check that they hear each other.

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

/// How many bots there are and what they do.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Flags {
    /// How many.
    #[arg(long, default_value_t = 20)]
    count: usize,
    /// The realm; where it has several gateways, all of them, separated by commas: bots spread over
    /// them, and who loses one goes to the next.
    #[arg(long, value_name = "URLS", value_delimiter = ',', default_value = "http://127.0.0.1:5000")]
    url: Vec<String>,
    /// The admin sockets of the realm's directors, separated by commas: in the end, and at SIGUSR1, it is
    /// compared where the one that leads has everybody, and where everybody was told that they are.
    #[arg(long, value_name = "URLS", value_delimiter = ',',
          conflicts_with_all = ["idle", "login_storm", "topics"])]
    admin: Vec<String>,
    /// Stop after so many seconds and sum up; without it, at Ctrl-C.
    #[arg(long)]
    seconds: Option<u64>,
    /// Print the summary as one line of JSON.
    #[arg(long)]
    json: bool,
    /// Decides how everybody walks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Positions that each sends into its room in a second.
    #[arg(long, default_value_t = 10.0, value_parser = rate)]
    hz: f64,
    /// Size of each position packet in bytes, padded if it would be smaller.
    #[arg(long, default_value_t = 0)]
    bytes: usize,
    /// The realm's island size, above which a group need not be together.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// The share of bots that behave like stock clients: they leave their room as soon as they are
    /// told of another.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    stock: f64,
    /// What bots speak with the gateway; mixed: every other bot speaks RPC.
    #[arg(long, value_enum, default_value_t)]
    dialect: DialectFlag,
    /// What bots say that they can join, separated by commas, such as livekit,ws-room; they enter
    /// only WebSocket rooms, whatever they say. Without it, and over RPC, they say nothing.
    #[arg(long, value_name = "PROTOCOLS", value_delimiter = ',', value_parser = protocol_name)]
    transports: Vec<String>,
    /// The realm has rules that part people who are near each other: only those who were told of one
    /// island must hear each other.
    #[arg(long)]
    ruled: bool,
    /// Everybody walks along these points again and again, instead of at random: "x,z x,z ...", in
    /// metres.
    #[arg(long, value_name = "POINTS", allow_hyphen_values = true)]
    route: Option<Route>,
    /// How fast everybody walks, in metres a second.
    #[arg(long, value_name = "M_PER_S", default_value_t = 6.0, value_parser = speed)]
    speed: f32,
    /// Everybody stands in one place.
    #[arg(long, conflicts_with = "route")]
    still: bool,
    /// Everybody stands, in so many places that are too far apart for one island.
    #[arg(long, value_name = "PLACES", conflicts_with_all = ["route", "still"])]
    groups: Option<NonZeroUsize>,
    /// Everybody signs in and does nothing more.
    #[arg(long)]
    idle: bool,
    /// Instead of bots, so many sign-ins in a second: each a connection, a wallet and a signature of
    /// its own, and closed at once. Only for realms on this machine.
    #[arg(long, value_name = "RATE", requires = "seconds", value_parser = login_load::rate,
          conflicts_with_all = ["count", "still", "groups", "idle", "route", "stock", "transports"])]
    login_storm: Option<u32>,
    /// Instead of bots, so many messages in a second under one topic, to --count subscribers.
    #[arg(long, value_name = "RATE", requires = "seconds", value_parser = rate,
          conflicts_with_all = ["login_storm", "still", "groups", "idle", "route", "stock", "transports", "dialect"])]
    topics: Option<f64>,
    /// Instead of bots, so many heartbeats in a second on a bus, of --count people whom no gateway has:
    /// what one director takes, which is at --url and for which there is nobody else.
    #[arg(long, value_name = "RATE", requires_all = ["seconds", "bus"], value_parser = heartbeats::rate,
          conflicts_with_all = ["login_storm", "topics", "still", "idle", "route", "stock", "transports",
                                "dialect", "admin"])]
    heartbeats: Option<f64>,
    /// The NATS server of that bus.
    #[arg(long, value_name = "URL", requires = "heartbeats")]
    bus: Option<String>,
    /// The process of that server: what it used is said, too.
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

/// Sign-ins that are begun in a second, so that no limit of a realm is in their way.
const SIGN_INS_PER_SECOND: u32 = 200;
/// How often the referee looks and the line is renewed.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
const LINE_INTERVAL: Duration = Duration::from_secs(1);
/// After the last arrival, until what is measured counts.
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
    let crowd = Arc::new(BotPool::new(flags.count));
    let display = Arc::new(ProgressDisplay::new(flags.json));
    if flags.count > bot_pool::MAX_PAIRWISE_BOTS {
        eprintln!(
            "more than {} bots: who is near whom is not watched, and unheard stays 0",
            bot_pool::MAX_PAIRWISE_BOTS
        );
    }
    let step = Duration::from_secs_f64(1.0 / flags.hz);
    let mut referee = ProximityCheck::new(flags.limit, step);
    let began = Instant::now();
    let end = flags.seconds.map(|seconds| began + Duration::from_secs(seconds));
    let mut bots = spawn(&flags, &gateways, &crowd)?;
    let measured_from = began + Duration::from_secs(flags.count as u64) / SIGN_INS_PER_SECOND + SETTLING;
    let mut first = None;
    let mut looks = time::interval(CHECK_INTERVAL);
    let mut lines = time::interval(LINE_INTERVAL);
    let directors = (!flags.admin.is_empty()).then(|| Directors::new(&flags.admin));
    let mut asked = signal::unix::signal(SignalKind::user_defined1())?;
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
                    let may_hear = |one, other| crowd.can_communicate(one, other, flags.ruled);
                    referee.update(&crowd.positions(), may_hear, &crowd.received_at, crowd.now_ms());
                }
            }
            Some(()) = asked.recv() => {
                if let Some(directors) = directors.clone() {
                    let (display, crowd) = (display.clone(), crowd.clone());
                    tokio::spawn(async move { display.convergence(&directors.compare(&crowd).await) });
                }
            }
            _ = lines.tick() => display.line(&crowd, &referee),
        }
    }
    let convergence = match &directors {
        Some(directors) => Some(directors.compare(&crowd).await),
        None => None,
    };
    let after = server.sample().await;
    let load = server::Load::between(before.as_ref(), first.as_ref(), after.as_ref(), flags.count);
    let summary = Summary::new(&crowd, &referee, convergence, load, began.elapsed(), flags.idle);
    crowd.stop();
    let leaving = async { while bots.join_next().await.is_some() {} };
    // A realm that is gone is not waited for.
    let _ = time::timeout(Duration::from_secs(5), leaving).await;
    display.summary(&summary);
    Ok(if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn spawn(flags: &Flags, gateways: &Gateways, crowd: &Arc<BotPool>) -> Result<tokio::task::JoinSet<()>> {
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
        crowd.log(index).stock = stock.contains(&index);
        settings.transports.clone_from(&flags.transports);
        let identity = client::guest()?;
        crowd.register(index, identity.address());
        let arrival = Duration::from_secs(1) * u32::try_from(index)? / SIGN_INS_PER_SECOND;
        let plan = bot::BotPlan {
            index,
            arrival,
            idle: flags.idle,
            step: Duration::from_secs_f64(1.0 / flags.hz),
            bytes: flags.bytes,
        };
        bots.spawn(bot::run(plan, settings, identity, walker, crowd.clone()));
    }
    Ok(bots)
}

/// Which bots behave like stock clients: any, so that they do not walk differently.
fn choose_stock(flags: &Flags) -> HashSet<usize> {
    let amount = (flags.count as f64 * flags.stock).round() as usize;
    let mut rng = StdRng::seed_from_u64(flags.seed);
    rand::seq::index::sample(&mut rng, flags.count, amount).into_iter().collect()
}
