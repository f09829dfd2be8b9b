//! `--topics`: how many messages under a topic a gateway carries to its subscribers.
//!
//! Open-loop: messages are due at their times, and each is timed from then until each subscriber has
//! it. What is not heard is held against what the gateway says that it dropped.

use std::{collections::HashMap, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use client::{Address, Bytes, Explorer, Gateway, Position, Settings, TopicEvent, TopicMessage};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{self, Instant, MissedTickBehavior},
};

use super::{
    Flags,
    bot_pool::latency_histogram,
    dialect::{DialectFlag, Gateways},
    report::Percentiles,
    server::{MetricsClient, Sample},
};

/// What one speaker says in a second: a gateway reads at most twenty.
const RATE_PER_PUBLISHER: f64 = 10.0;
/// When the message was due, in microseconds, and its number: what every message begins with.
const HEADER_BYTES: usize = 16;
/// How long the backlogs have to drain after the last message, and how long the end marker may take
/// to arrive after that. A message that is neither delivered nor reported as missed by then is lost.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// The number of the end marker: larger than that of any message of a run.
const END_MARKER: u64 = u64::MAX;
/// How long a sign-in and a subscription may take.
const SETUP_TIMEOUT: Duration = Duration::from_secs(20);
/// Sign-ins at a time, so that no limit of a realm is in their way.
const CONCURRENT_SIGN_INS: usize = 16;
/// How far apart people stand, and how many in a row: too far for any island.
const SPACING_M: f32 = 1_000.0;
const ROW_LENGTH: usize = 150;
const TOPIC: &str = "bots.topics";

pub(crate) async fn run(flags: &Flags, rate: f64, seconds: u64) -> Result<ExitCode> {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let gateways = Gateways::discover(&flags.url, DialectFlag::Rpc).await.context("no realm")?;
    let server = MetricsClient::new(&flags.url);
    let speakers = (rate / RATE_PER_PUBLISHER).ceil() as usize;
    let mut people = sign_in_all(&gateways, flags.count + speakers).await?;
    let stage =
        Arc::new(RunContext { began: Instant::now(), padding: flags.bytes.saturating_sub(HEADER_BYTES) });
    let (over, is_over) = watch::channel(false);
    let mut subscribers = JoinSet::new();
    for explorer in people.split_off(speakers) {
        let subscribing = explorer.handle();
        let listening = time::timeout(SETUP_TIMEOUT, subscribing.subscribe(TOPIC));
        let subscription = listening.await.context("no subscription in time")??;
        subscribers.spawn(receive_until_end(stage.clone(), explorer, subscription, is_over.clone()));
    }
    let before = server.sample().await;
    let step = Duration::from_secs_f64(speakers as f64 / rate);
    let starts = Instant::now();
    let mut speaking = JoinSet::new();
    for (index, explorer) in people.into_iter().enumerate() {
        let first = starts + step.mul_f64(index as f64 / speakers as f64);
        speaking.spawn(publish_paced(
            stage.clone(),
            explorer,
            first,
            step,
            starts + Duration::from_secs(seconds),
        ));
    }
    let (mut sent, mut took) = (0, Duration::ZERO);
    let mut silent = Vec::new();
    while let Some(spoken) = speaking.join_next().await {
        let (explorer, said, last) = spoken??;
        sent += said;
        took = took.max(last - starts);
        silent.push(explorer);
    }
    let after = server.sample().await;
    // A backlog reports what it dropped with the next message that it keeps. So one more message is
    // published once all backlogs have had time to drain: no other message competes for their slots.
    time::sleep(DRAIN_GRACE).await;
    if let Some(explorer) = silent.first() {
        publish(&stage, &explorer.handle(), Instant::now(), END_MARKER).await?;
        sent += 1;
    }
    time::sleep(DRAIN_GRACE).await;
    over.send_replace(true);
    for explorer in silent {
        explorer.handle().leave().await;
    }
    let mut all = Received::default();
    let mut lost = 0;
    while let Some(heard) = subscribers.join_next().await {
        let heard = heard??;
        // Of one subscriber: what another was told too much of hides nothing.
        lost += sent.saturating_sub(heard.messages + heard.missed);
        all.add(&heard);
    }
    let rates = SendReport { offered: rate, sent, took };
    let summary = Summary::new(flags.count, &rates, &all, lost, before.zip(after));
    match flags.json {
        true => println!("{}", serde_json::to_string(&summary)?),
        false => summary.print(),
    }
    let is_good = summary.lost == 0 && summary.out_of_order == 0;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What speakers and subscribers share.
struct RunContext {
    began: Instant,
    padding: usize,
}

/// So many people, signed in, each alone: who is nowhere would be sent away.
async fn sign_in_all(gateways: &Gateways, count: usize) -> Result<Vec<Explorer>> {
    let door = Arc::new(Semaphore::new(CONCURRENT_SIGN_INS));
    let mut arriving = JoinSet::new();
    for index in 0..count {
        let (gateway, door) = (gateways.for_bot(index), door.clone());
        arriving.spawn(async move {
            let _place = door.acquire().await?;
            let explorer = sign_in(gateway).await?;
            let (x, z) = (index % ROW_LENGTH, index / ROW_LENGTH % ROW_LENGTH);
            let apart = |number: usize| (number as f32 - ROW_LENGTH as f32 / 2.0) * SPACING_M;
            explorer.handle().heartbeat(Position::new(apart(x), 0.0, apart(z)), None).await;
            anyhow::Ok(explorer)
        });
    }
    let mut people = Vec::new();
    while let Some(arrived) = arriving.join_next().await {
        people.push(arrived??);
    }
    Ok(people)
}

async fn sign_in(gateway: Gateway) -> Result<Explorer> {
    let mut explorer = Explorer::start(Settings::new(gateway), client::guest()?);
    loop {
        match time::timeout(SETUP_TIMEOUT, explorer.next()).await.context("no sign-in in time")? {
            Some(client::Event::SignedIn) => return Ok(explorer),
            Some(client::Event::Disconnected { reason, retry_in: None }) => return Err(anyhow!("{reason}")),
            Some(_) => {}
            None => return Err(anyhow!("an explorer is gone")),
        }
    }
}

/// Counts received messages until the end marker has arrived, or the run is over.
async fn receive_until_end(
    stage: Arc<RunContext>,
    mut explorer: Explorer,
    mut subscription: client::Subscription,
    mut is_over: watch::Receiver<bool>,
) -> Result<Received> {
    let mut heard = Received::default();
    loop {
        tokio::select! {
            event = subscription.next() => match event {
                Some(TopicEvent::Message(message)) => {
                    if heard.record(&stage, &message) == Some(END_MARKER) {
                        break;
                    }
                }
                other => return Err(anyhow!("a subscriber was cut off: {other:?}")),
            },
            Some(_) = explorer.next() => {}
            _ = is_over.wait_for(|&over| over) => break,
        }
    }
    explorer.handle().leave().await;
    Ok(heard)
}

/// Publishes the message of this number, due at this time.
async fn publish(stage: &RunContext, handle: &client::Handle, due: Instant, number: u64) -> Result<()> {
    let due_us = (due - stage.began).as_micros() as u64;
    let mut payload = [due_us.to_be_bytes(), number.to_be_bytes()].concat();
    payload.resize(HEADER_BYTES + stage.padding, 0);
    Ok(handle.publish(TOPIC, Bytes::from(payload)).await?)
}

/// Publishes at each of its times until the end. Returns the peer, still signed in, how many messages
/// it published, and when the last one was published.
async fn publish_paced(
    stage: Arc<RunContext>,
    explorer: Explorer,
    first: Instant,
    step: Duration,
    end: Instant,
) -> Result<(Explorer, u64, Instant)> {
    let handle = explorer.handle();
    let mut times = time::interval_at(first, step);
    times.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut number: u64 = 0;
    loop {
        let due = times.tick().await;
        if due >= end {
            return Ok((explorer, number, Instant::now()));
        }
        publish(&stage, &handle, due, number).await?;
        number += 1;
    }
}

/// What subscribers heard.
struct Received {
    microseconds: Histogram<u64>,
    messages: u64,
    /// What the gateway says that it dropped.
    missed: u64,
    out_of_order: u64,
    /// The number that is expected next of each sender, of one subscriber.
    next: HashMap<Address, u64>,
}

/// How much was to be said in a second, how much was, and how long that took.
struct SendReport {
    offered: f64,
    sent: u64,
    took: Duration,
}

impl Default for Received {
    fn default() -> Self {
        let (messages, missed, out_of_order, next) = Default::default();
        Self { microseconds: latency_histogram(), messages, missed, out_of_order, next }
    }
}

impl Received {
    /// Counts a message, and returns its number.
    fn record(&mut self, stage: &RunContext, message: &TopicMessage) -> Option<u64> {
        let (due, rest) = message.payload.split_first_chunk()?;
        let (number, sender) = (rest.first_chunk()?, message.sender?);
        let (due_us, number) = (u64::from_be_bytes(*due), u64::from_be_bytes(*number));
        let now_us = stage.began.elapsed().as_micros() as u64;
        self.microseconds.saturating_record(now_us.saturating_sub(due_us));
        self.messages += 1;
        self.missed += message.missed;
        let next = self.next.entry(sender).or_default();
        self.out_of_order += u64::from(number < *next);
        *next = number.saturating_add(1);
        Some(number)
    }

    fn add(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.microseconds.add(&other.microseconds);
        self.messages += other.messages;
        self.missed += other.missed;
        self.out_of_order += other.out_of_order;
    }
}

/// How it went.
#[derive(Debug, Serialize)]
struct Summary {
    /// Until the last message was taken, if that was later than it was to be.
    seconds: f64,
    subscribers: usize,
    offered_per_second: f64,
    sent: u64,
    sent_per_second: f64,
    delivered: u64,
    delivered_per_second: f64,
    /// Dropped for subscribers that were too slow, who were told so.
    missed: u64,
    /// Neither delivered nor told to be missed.
    lost: u64,
    out_of_order: u64,
    /// From the moment at which it was to be said until a subscriber had it.
    latency_ms: Percentiles,
    server_cpu_us_per_delivery: Option<f64>,
    /// Cores that it used meanwhile.
    server_cores: Option<f64>,
}

impl Summary {
    fn new(
        subscribers: usize,
        rates: &SendReport,
        heard: &Received,
        lost: u64,
        samples: Option<(Sample, Sample)>,
    ) -> Self {
        let load = samples.map(|(before, after)| after.since(&before));
        let seconds = rates.took.as_secs_f64();
        Self {
            seconds,
            subscribers,
            offered_per_second: rates.offered,
            sent: rates.sent,
            sent_per_second: rates.sent as f64 / seconds,
            delivered: heard.messages,
            delivered_per_second: heard.messages as f64 / seconds,
            missed: heard.missed,
            lost,
            out_of_order: heard.out_of_order,
            latency_ms: Percentiles::of(&heard.microseconds),
            server_cpu_us_per_delivery: load.map(|(cpu, _)| 1e6 * cpu / heard.messages.max(1) as f64),
            server_cores: load.map(|(cpu, _)| cpu / seconds),
        }
    }

    fn print(&self) {
        println!(
            "  sent            {} ({:.0}/s of {:.0}/s, for {:.1} s)",
            self.sent, self.sent_per_second, self.offered_per_second, self.seconds
        );
        println!(
            "  delivered       {} ({:.0}/s) to {} subscribers",
            self.delivered, self.delivered_per_second, self.subscribers
        );
        println!("  missed          {} and said so, {} lost", self.missed, self.lost);
        println!("  out of order    {}", self.out_of_order);
        println!("  latency         {} ms", self.latency_ms.with_max());
        match self.server_cpu_us_per_delivery.zip(self.server_cores) {
            Some((each, cores)) => {
                println!("  server          {each:.1} µs of CPU a delivery, {cores:.2} cores");
            }
            None => println!("  server          its /metrics did not answer"),
        }
    }
}
