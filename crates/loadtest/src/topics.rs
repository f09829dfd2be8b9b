//! `--topics`: how many messages under one topic a gateway delivers to its subscribers.
//!
//! The load is open-loop: messages are due at fixed times, and the latency is measured from the due
//! time until each subscriber has the message. The number of received messages is compared with the
//! drops that the gateway reported.

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

use crate::{
    flags::Flags,
    gateways::{DialectFlag, Gateways},
    percentiles::{Percentiles, latency_histogram},
    realm_metrics::{MetricsClient, Sample},
};

/// Messages per second of one publisher: the default limit of a gateway is twenty.
const RATE_PER_PUBLISHER: f64 = 10.0;
/// Each message begins with its due time, in microseconds, and its number.
const HEADER_BYTES: usize = 16;
/// How long the backlogs have to drain after the last message, and how long the end marker may take
/// to arrive after that. A message that is neither delivered nor reported as missed by then is lost.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// The number of the end marker: larger than that of any message of a run.
const END_MARKER: u64 = u64::MAX;
/// How long a sign-in and a subscription may take.
const SETUP_TIMEOUT: Duration = Duration::from_secs(20);
/// Sign-ins at a time, below the default limits of a realm.
const CONCURRENT_SIGN_INS: usize = 16;
/// The distance between peers, in metres, and how many are in a row: too far for any island.
const SPACING_M: f32 = 1_000.0;
const ROW_LENGTH: usize = 150;
const TOPIC: &str = "bots.topics";

pub(crate) async fn run(flags: &Flags, rate: f64, seconds: u64) -> Result<ExitCode> {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let gateways = Gateways::discover(&flags.url, DialectFlag::Rpc).await.context("no realm")?;
    let server = MetricsClient::new(&flags.url);
    let publishers = (rate / RATE_PER_PUBLISHER).ceil() as usize;
    let mut clients = sign_in_all(&gateways, flags.count + publishers).await?;
    let context =
        Arc::new(RunContext { began: Instant::now(), padding: flags.bytes.saturating_sub(HEADER_BYTES) });
    let (over, is_over) = watch::channel(false);
    let mut subscribers = JoinSet::new();
    for explorer in clients.split_off(publishers) {
        let subscribing = explorer.handle();
        let subscribed = time::timeout(SETUP_TIMEOUT, subscribing.subscribe(TOPIC));
        let subscription = subscribed.await.context("no subscription in time")??;
        subscribers.spawn(receive_until_end(context.clone(), explorer, subscription, is_over.clone()));
    }
    let before = server.sample().await;
    let step = Duration::from_secs_f64(publishers as f64 / rate);
    let starts = Instant::now();
    let mut publishing = JoinSet::new();
    for (index, explorer) in clients.into_iter().enumerate() {
        let first = starts + step.mul_f64(index as f64 / publishers as f64);
        publishing.spawn(publish_paced(
            context.clone(),
            explorer,
            first,
            step,
            starts + Duration::from_secs(seconds),
        ));
    }
    let (mut sent, mut took) = (0, Duration::ZERO);
    let mut finished_publishers = Vec::new();
    while let Some(finished) = publishing.join_next().await {
        let (explorer, published, last) = finished??;
        sent += published;
        took = took.max(last - starts);
        finished_publishers.push(explorer);
    }
    let after = server.sample().await;
    // A backlog reports its drops with the next message that it keeps. So one more message is published
    // once all backlogs have had time to drain: no other message competes for their slots.
    time::sleep(DRAIN_GRACE).await;
    if let Some(explorer) = finished_publishers.first() {
        publish(&context, &explorer.handle(), Instant::now(), END_MARKER).await?;
        sent += 1;
    }
    time::sleep(DRAIN_GRACE).await;
    over.send_replace(true);
    for explorer in finished_publishers {
        explorer.handle().leave().await;
    }
    let mut all = Received::default();
    let mut lost = 0;
    while let Some(received) = subscribers.join_next().await {
        let received = received??;
        // Counted for each subscriber: a surplus of another one must not hide a loss.
        lost += sent.saturating_sub(received.messages + received.missed);
        all.add(&received);
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

/// The state that publishers and subscribers share.
struct RunContext {
    began: Instant,
    padding: usize,
}

/// Signs in so many clients, each in an island of its own: the gateway closes a session without a
/// position (`gateway.idle_timeout_s`).
async fn sign_in_all(gateways: &Gateways, count: usize) -> Result<Vec<Explorer>> {
    let permits = Arc::new(Semaphore::new(CONCURRENT_SIGN_INS));
    let mut arriving = JoinSet::new();
    for index in 0..count {
        let (gateway, permits) = (gateways.for_bot(index), permits.clone());
        arriving.spawn(async move {
            let _permit = permits.acquire().await?;
            let explorer = sign_in(gateway).await?;
            let (x, z) = (index % ROW_LENGTH, index / ROW_LENGTH % ROW_LENGTH);
            let apart = |number: usize| (number as f32 - ROW_LENGTH as f32 / 2.0) * SPACING_M;
            explorer.handle().heartbeat(Position::new(apart(x), 0.0, apart(z)), None).await;
            anyhow::Ok(explorer)
        });
    }
    let mut clients = Vec::new();
    while let Some(arrived) = arriving.join_next().await {
        clients.push(arrived??);
    }
    Ok(clients)
}

async fn sign_in(gateway: Gateway) -> Result<Explorer> {
    let mut explorer = Explorer::start(Settings::new(gateway), client::guest()?);
    loop {
        match time::timeout(SETUP_TIMEOUT, explorer.next()).await.context("no sign-in in time")? {
            Some(client::Event::SignedIn) => return Ok(explorer),
            Some(client::Event::Disconnected { reason, retry_in: None }) => return Err(anyhow!("{reason}")),
            Some(_) => {}
            None => return Err(anyhow!("a client ended")),
        }
    }
}

/// Counts received messages until the end marker has arrived, or the run is over.
async fn receive_until_end(
    context: Arc<RunContext>,
    mut explorer: Explorer,
    mut subscription: client::Subscription,
    mut is_over: watch::Receiver<bool>,
) -> Result<Received> {
    let mut received = Received::default();
    loop {
        tokio::select! {
            event = subscription.next() => match event {
                Some(TopicEvent::Message(message)) => {
                    if received.record(&context, &message) == Some(END_MARKER) {
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
    Ok(received)
}

/// Publishes the message of this number, due at this time.
async fn publish(context: &RunContext, handle: &client::Handle, due: Instant, number: u64) -> Result<()> {
    let due_us = (due - context.began).as_micros() as u64;
    let mut payload = [due_us.to_be_bytes(), number.to_be_bytes()].concat();
    payload.resize(HEADER_BYTES + context.padding, 0);
    Ok(handle.publish(TOPIC, Bytes::from(payload)).await?)
}

/// Publishes at each of its times until the end. Returns the peer, still signed in, how many messages
/// it published, and when the last one was published.
async fn publish_paced(
    context: Arc<RunContext>,
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
        publish(&context, &handle, due, number).await?;
        number += 1;
    }
}

/// The messages received by one subscriber, or by all of them.
struct Received {
    microseconds: Histogram<u64>,
    messages: u64,
    /// Drops that the gateway reported.
    missed: u64,
    out_of_order: u64,
    /// The next expected number of each sender, for one subscriber.
    next: HashMap<Address, u64>,
}

/// The offered rate, the messages sent, and the time that they took.
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
    fn record(&mut self, context: &RunContext, message: &TopicMessage) -> Option<u64> {
        let (due, rest) = message.payload.split_first_chunk()?;
        let (number, sender) = (rest.first_chunk()?, message.sender?);
        let (due_us, number) = (u64::from_be_bytes(*due), u64::from_be_bytes(*number));
        let now_us = context.began.elapsed().as_micros() as u64;
        self.microseconds.saturating_record(now_us.saturating_sub(due_us));
        self.messages += 1;
        self.missed += message.missed;
        let next = self.next.entry(sender).or_default();
        self.out_of_order += u64::from(number < *next);
        *next = number.saturating_add(1);
        Some(number)
    }

    fn add(&mut self, other: &Self) {
        // Histograms of equal bounds always add.
        let _ = self.microseconds.add(&other.microseconds);
        self.messages += other.messages;
        self.missed += other.missed;
        self.out_of_order += other.out_of_order;
    }
}

/// The result of a run. Its field names are JSON keys.
#[derive(Debug, Serialize)]
struct Summary {
    /// Until the gateway had accepted the last message; at least the time planned.
    seconds: f64,
    subscribers: usize,
    offered_per_second: f64,
    sent: u64,
    sent_per_second: f64,
    delivered: u64,
    delivered_per_second: f64,
    /// Dropped for slow subscribers, and reported to them.
    missed: u64,
    /// Neither delivered nor reported as missed.
    lost: u64,
    out_of_order: u64,
    /// From the due time until a subscriber had the message.
    latency_ms: Percentiles,
    server_cpu_us_per_delivery: Option<f64>,
    /// The cores that the realm used meanwhile.
    server_cores: Option<f64>,
}

impl Summary {
    fn new(
        subscribers: usize,
        rates: &SendReport,
        received: &Received,
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
            delivered: received.messages,
            delivered_per_second: received.messages as f64 / seconds,
            missed: received.missed,
            lost,
            out_of_order: received.out_of_order,
            latency_ms: Percentiles::of(&received.microseconds),
            server_cpu_us_per_delivery: load.map(|(cpu, _)| 1e6 * cpu / received.messages.max(1) as f64),
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
        println!("  missed          {} reported, {} lost", self.missed, self.lost);
        println!("  out of order    {}", self.out_of_order);
        println!("  latency         {} ms", self.latency_ms.with_max());
        match self.server_cpu_us_per_delivery.zip(self.server_cores) {
            Some((each, cores)) => {
                println!("  server          {each:.1} µs of CPU a delivery, {cores:.2} cores");
            }
            None => println!("  server          its /metrics did not respond"),
        }
    }
}
