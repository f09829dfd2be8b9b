//! The task of a mesh peer, which owns its state.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use protocol::{
    Address,
    mesh::{Plan, Signal},
    unix_ms,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    bucket::Bucket,
    counters::LiveCounters,
    early::EarlySignals,
    event::Event,
    ice_servers::IceServers,
    link::LABELS,
    neighbour::Neighbours,
    options::{BURST, Limits, Options},
    outbox::Outbox,
    report::ReportTimer,
    router::Router,
};
use crate::{
    channel::{ChannelReader, Incoming},
    connection::{ConnectionEvent, ConnectionSettings, Label},
};

pub(crate) struct Task {
    pub(crate) own: Address,
    pub(crate) limits: Limits,
    /// For the next connection or ICE restart.
    pub(crate) settings: ConnectionSettings,
    pub(crate) router: Router,
    pub(crate) neighbours: Neighbours,
    pub(crate) early: EarlySignals,
    pub(crate) report: ReportTimer,
    pub(crate) outbox: Outbox,
    /// The own messages that may be sent through the gateway.
    pub(crate) fallbacks: Bucket,
    /// When own reliable messages first waited for paths, since all members had one.
    pub(crate) lacks_paths_since: Option<Instant>,
    pub(crate) counters: Arc<LiveCounters>,
    /// The links so far.
    pub(crate) links: u64,
    inputs: mpsc::Receiver<Input>,
    events: mpsc::Sender<Event>,
    queues: [mpsc::Receiver<Bytes>; 2],
    connection_events: (mpsc::Sender<ConnectionEvent<u64>>, mpsc::Receiver<ConnectionEvent<u64>>),
    messages: (mpsc::Sender<Incoming<u64>>, mpsc::Receiver<Incoming<u64>>),
}

/// An input of the application.
#[derive(Debug)]
pub(crate) enum Input {
    Plan(Plan),
    Signal(Signal),
    IceServers(IceServers),
}

/// Something for the task to apply.
enum Step {
    Stop,
    Delivered,
    Input(Input),
    Connection(ConnectionEvent<u64>),
    Message(Incoming<u64>),
    Own(Label, Bytes),
    Timer,
}

/// Events of connections that wait: some twenty of each negotiation. When it is full, the newest is dropped.
const CONNECTION_EVENTS: usize = 512;
/// Received messages that wait. When it is full, reliable channels are read later, and lossy messages are dropped.
const MESSAGES: usize = 256;
/// The delay before own reliable messages are tried again when a link has no capacity.
const RETRY: Duration = Duration::from_millis(5);
/// The interval at which own reliable messages are tried again while they wait for paths.
const PATHS_CHECK: Duration = Duration::from_millis(50);
/// The longest time without a look at the timers.
const IDLE: Duration = Duration::from_secs(1);

impl Task {
    pub(crate) fn new(
        options: Options,
        inputs: mpsc::Receiver<Input>,
        queues: [mpsc::Receiver<Bytes>; 2],
        events: mpsc::Sender<Event>,
        counters: Arc<LiveCounters>,
    ) -> Self {
        let Options { address: own, island_id, ice_servers, relay_only, mut udp_addresses, limits } = options;
        if udp_addresses.is_empty() {
            udp_addresses.push(SocketAddr::from(([0, 0, 0, 0], 0)));
        }
        let ice_servers = ice_servers.to_configuration();
        Self {
            own,
            limits,
            settings: ConnectionSettings { udp_addresses, ice_servers, relay_only },
            // A member that starts again with the same alias must not repeat numbers.
            router: Router::new(own, island_id, unix_ms(SystemTime::now()).max(1)),
            neighbours: Neighbours::default(),
            early: EarlySignals::default(),
            report: ReportTimer::default(),
            outbox: Outbox::default(),
            fallbacks: Bucket::new(limits.fallbacks_per_second, BURST, Instant::now()),
            lacks_paths_since: None,
            counters,
            links: 0,
            inputs,
            events,
            queues,
            connection_events: mpsc::channel(CONNECTION_EVENTS),
            messages: mpsc::channel(MESSAGES),
        }
    }

    /// Runs until the peer is closed or dropped.
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        loop {
            let now = Instant::now();
            self.run_timers(now).await;
            let step = self.next_step(&mut stop, now).await;
            let now = Instant::now();
            match step {
                Step::Stop => break,
                Step::Delivered | Step::Timer => {}
                Step::Input(Input::Plan(plan)) => self.plan(plan, now).await,
                Step::Input(Input::Signal(signal)) => self.signal(signal, now).await,
                Step::Input(Input::IceServers(servers)) => {
                    self.settings.ice_servers = servers.to_configuration();
                }
                Step::Connection(event) => self.connection_event(event, now).await,
                Step::Message(message) => self.message(message, now),
                Step::Own(label, payload) => self.send_own(label, payload, now),
            }
        }
        let [reliable, lossy] = &mut self.queues;
        let mut own = Vec::new();
        for (label, queue) in [(Label::Reliable, reliable), (Label::Lossy, lossy)] {
            queue.close();
            own.extend(std::iter::from_fn(|| queue.try_recv().ok()).map(|payload| (label, payload)));
        }
        self.finish(own).await;
    }

    async fn next_step(&mut self, stop: &mut oneshot::Receiver<()>, now: Instant) -> Step {
        let reads_own = self.router.newest().is_some();
        let awaits_paths = reads_own && self.awaits_paths(now);
        let reads_reliable = reads_own && !awaits_paths && self.may_send_reliable();
        let retry_in = if awaits_paths { PATHS_CHECK } else { RETRY };
        let retry = (reads_own && !reads_reliable).then(|| now + retry_in);
        let deadline = self.due_time(now).into_iter().chain(retry).chain([now + IDLE]).min();
        let has_events = !self.outbox.is_empty();
        let [reliable, lossy] = &mut self.queues;
        tokio::select! {
            biased;
            _ = &mut *stop => Step::Stop,
            permit = self.events.reserve(), if has_events => match (permit, self.outbox.pop()) {
                (Ok(permit), Some(event)) => {
                    permit.send(event);
                    Step::Delivered
                }
                _ => Step::Stop,
            },
            Some(event) = self.connection_events.1.recv() => Step::Connection(event),
            input = self.inputs.recv() => input.map_or(Step::Stop, Step::Input),
            Some(message) = self.messages.1.recv() => Step::Message(message),
            Some(payload) = lossy.recv(), if reads_own => Step::Own(Label::Lossy, payload),
            Some(payload) = reliable.recv(), if reads_reliable => Step::Own(Label::Reliable, payload),
            () = sleep_until(deadline.unwrap_or(now)) => Step::Timer,
        }
    }

    /// For the channels of a new link.
    pub(crate) fn reader(&self) -> ChannelReader<u64> {
        ChannelReader {
            source: self.links,
            labels: LABELS,
            messages: self.messages.0.clone(),
            events: self.connection_events.0.clone(),
            lossy_dropped: self.counters.undelivered.clone(),
        }
    }
}
