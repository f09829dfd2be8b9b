//! A run of bots: starts them, watches them, and prints the summary.

use std::{collections::HashSet, future, pin::pin, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    signal::{self, unix::SignalKind},
    task::JoinSet,
    time::{self, Instant},
};

use super::{
    bot::{self, BotPlan},
    convergence::Directors,
    numbering::Numbering,
    pool::BotPool,
    progress::ProgressDisplay,
    proximity_check::ProximityCheck,
    receipt_times::MAX_PAIRWISE_BOTS,
    summary::Summary,
    walk::Walker,
};
use crate::{
    flags::Flags,
    gateways::Gateways,
    realm_metrics::{Load, MetricsClient, Sample},
};

/// Sign-ins started per second, below the default rate limits of a realm.
const SIGN_INS_PER_SECOND: u32 = 200;
/// How often proximity is checked, and the progress line is printed.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
const LINE_INTERVAL: Duration = Duration::from_secs(1);
/// The time after the last sign-in before measurements count.
const SETTLING: Duration = Duration::from_secs(2);

/// Runs bots until the time limit or Ctrl-C, and prints the summary. The run succeeds if no check failed.
pub(crate) async fn run(flags: Flags) -> Result<ExitCode> {
    // Each bot holds two sockets.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let gateways = Gateways::discover(&flags.url, flags.dialect).await.context("no realm")?;
    let server = MetricsClient::new(&flags.url);
    let before = server.sample().await;
    if flags.count > MAX_PAIRWISE_BOTS {
        eprintln!("more than {MAX_PAIRWISE_BOTS} bots: proximity is not checked, and unheard stays 0");
    }
    let mut run = Run::new(flags, server);
    let mut bots = spawn(&run.flags, &gateways, &run.pool)?;
    let first = run.watch().await?;
    let convergence = match &run.directors {
        Some(directors) => Some(directors.compare(&run.pool).await),
        None => None,
    };
    let after = run.server.sample().await;
    let load = Load::between(before.as_ref(), first.as_ref(), after.as_ref(), run.flags.count);
    let elapsed = run.began.elapsed();
    let summary = Summary::new(&run.pool, &run.proximity, convergence, load, elapsed, run.flags.idle);
    run.pool.stop();
    let leaving = async { while bots.join_next().await.is_some() {} };
    // The timeout covers a realm that does not respond any more.
    let _ = time::timeout(Duration::from_secs(5), leaving).await;
    run.display.summary(&summary);
    Ok(if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A run, and the checks that it makes while bots walk.
struct Run {
    flags: Flags,
    began: Instant,
    pool: Arc<BotPool>,
    server: MetricsClient,
    /// `None`: no director was given.
    directors: Option<Directors>,
    proximity: ProximityCheck,
    display: Arc<ProgressDisplay>,
}

impl Run {
    fn new(flags: Flags, server: MetricsClient) -> Self {
        let step = Duration::from_secs_f64(1.0 / flags.hz);
        Self {
            began: Instant::now(),
            pool: Arc::new(BotPool::new(flags.count, Numbering { reliable_every: flags.reliable_every })),
            server,
            directors: (!flags.admin.is_empty()).then(|| Directors::new(&flags.admin)),
            proximity: ProximityCheck::new(flags.limit, step),
            display: Arc::new(ProgressDisplay::new(flags.json)),
            flags,
        }
    }

    /// Watches the bots until the time limit or Ctrl-C. Returns the realm's metrics at the time from which
    /// measurements count; `None` if the run ended before, or the realm did not respond.
    async fn watch(&mut self) -> Result<Option<Sample>> {
        let arrivals = Duration::from_secs(self.flags.count as u64) / SIGN_INS_PER_SECOND;
        let mut measured_from = Some(self.began + arrivals + SETTLING);
        let mut first = None;
        let mut checks = time::interval(CHECK_INTERVAL);
        let mut lines = time::interval(LINE_INTERVAL);
        let mut compare_requested = signal::unix::signal(SignalKind::user_defined1())?;
        let mut stop =
            pin!(sleep_until(self.flags.seconds.map(|seconds| self.began + Duration::from_secs(seconds))));
        loop {
            tokio::select! {
                () = &mut stop => return Ok(first),
                _ = signal::ctrl_c() => return Ok(first),
                _ = checks.tick() => {
                    if measured_from.take_if(|from| Instant::now() >= *from).is_some() {
                        first = self.server.sample().await;
                    }
                    self.check_proximity();
                }
                Some(()) = compare_requested.recv() => self.compare_in_background(),
                _ = lines.tick() => self.display.line(&self.pool, &self.proximity),
            }
        }
    }

    fn check_proximity(&mut self) {
        let Self { flags, pool, proximity, .. } = self;
        if !flags.idle {
            let can_communicate = |one, other| pool.can_communicate(one, other, flags.ruled);
            proximity.update(&pool.positions(), can_communicate, &pool.received_at, pool.now_ms());
        }
    }

    /// Compares with the directors, and prints the result. The bots continue meanwhile.
    fn compare_in_background(&self) {
        if let Some(directors) = self.directors.clone() {
            let (display, pool) = (self.display.clone(), self.pool.clone());
            tokio::spawn(async move { display.convergence(&directors.compare(&pool).await) });
        }
    }
}

/// Waits until this time; without one, forever.
async fn sleep_until(end: Option<Instant>) {
    match end {
        Some(end) => time::sleep_until(end).await,
        None => future::pending().await,
    }
}

/// Starts the bots, each with its own delay before it signs in.
fn spawn(flags: &Flags, gateways: &Gateways, pool: &Arc<BotPool>) -> Result<JoinSet<()>> {
    let mut bots = JoinSet::new();
    let stock = choose_stock(flags);
    for index in 0..flags.count {
        let seed = flags.seed.wrapping_mul(1_000_003).wrapping_add(index as u64);
        let rng = StdRng::seed_from_u64(seed);
        let walker = walker(flags, index, rng);
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
        let plan = BotPlan {
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

/// The walk that the flags choose for one bot.
fn walker(flags: &Flags, index: usize, rng: StdRng) -> Walker {
    match (&flags.route, flags.groups, flags.still) {
        (Some(route), _, _) => Walker::along(route.clone(), index, flags.count, flags.speed),
        (None, Some(groups), _) => Walker::still(index % groups, groups.get(), rng),
        (None, None, true) => Walker::still(0, 1, rng),
        (None, None, false) => Walker::new(index, flags.count, flags.speed, rng),
    }
}

/// The bots that behave like stock clients: a random choice, so that they walk like the others.
fn choose_stock(flags: &Flags) -> HashSet<usize> {
    let amount = (flags.count as f64 * flags.stock).round() as usize;
    let mut rng = StdRng::seed_from_u64(flags.seed);
    rand::seq::index::sample(&mut rng, flags.count, amount).into_iter().collect()
}
