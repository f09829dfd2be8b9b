//! The load generator: one thread that sends on schedule and counts deliveries.
//!
//! It polls its sockets at an interval and sleeps in between. If it waited for readiness, the server's writes
//! would also pay for waking it, which does not happen with clients on other machines. Latencies are therefore
//! too high by up to one [`POLL_INTERVAL`].

use std::{
    io,
    net::SocketAddr,
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};

use crate::{
    client::Client,
    frame::UpdateFrame,
    load::{Load, Order, Send},
};

const POLL_INTERVAL: Duration = Duration::from_micros(250);
/// Larger than a welcome to a room of 1,000 members.
const BUFFER_BYTES: usize = 256 * 1024;
/// While clients enter, the loader polls the earlier ones after this number of entries.
const ENTRIES_PER_POLL: usize = 20;

pub(crate) struct Loader {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    buffer: Vec<u8>,
    update: UpdateFrame,
    schedule: Vec<Send>,
    period: Duration,
    /// The start of the current period, since `epoch`.
    period_start: Duration,
    /// The next send of the period.
    next: usize,
    epoch: Instant,
    counts: Counts,
}

/// Counts within the window of the measurement.
pub(crate) struct Counts {
    /// In microseconds since the epoch.
    window: Range<u64>,
    /// Messages sent.
    pub(crate) sent: u64,
    /// Messages that were due but not sent, because the server had not read the ones before.
    pub(crate) skipped: u64,
    /// Deliveries received.
    pub(crate) received: u64,
    /// Deliveries of messages that were sent within the window. Those received after its end count too.
    pub(crate) arrived: u64,
    /// From sending to receiving, of the deliveries in `received`, in microseconds.
    pub(crate) latency: Histogram<u64>,
    /// How late messages were sent, in microseconds.
    pub(crate) lateness: Histogram<u64>,
}

impl Loader {
    /// Enters all clients of a load into their rooms.
    pub(crate) fn enter(server: SocketAddr, load: Load, order: Order) -> Result<Self> {
        let mut loader = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(load.all_clients()),
            clients: Vec::with_capacity(load.all_clients()),
            buffer: vec![0; BUFFER_BYTES],
            update: UpdateFrame::new(),
            schedule: load.schedule(order),
            period: load.period(),
            period_start: Duration::ZERO,
            next: 0,
            epoch: Instant::now(),
            counts: Counts::new(),
        };
        for number in 0..load.all_clients() {
            let room = number / load.clients;
            let entered = Client::enter(server, room, number);
            let mut client = entered.with_context(|| format!("client {number} cannot enter room {room}"))?;
            loader.poll.registry().register(&mut client.socket, Token(number), Interest::READABLE)?;
            loader.clients.push(client);
            if number % ENTRIES_PER_POLL == 0 {
                loader.read_ready()?;
            }
        }
        loader.epoch = Instant::now();
        Ok(loader)
    }

    /// Sends and receives for `duration`.
    pub(crate) fn run(&mut self, duration: Duration) -> Result<()> {
        let end = self.epoch.elapsed() + duration;
        loop {
            self.send_due();
            self.read_ready()?;
            let now = self.epoch.elapsed();
            if now >= end {
                return Ok(());
            }
            let pause = self.next_due().min(now + POLL_INTERVAL).saturating_sub(now);
            if !pause.is_zero() {
                thread::sleep(pause);
            }
        }
    }

    /// Sends and receives for `duration`, and counts messages.
    pub(crate) fn measure(&mut self, duration: Duration) -> Result<()> {
        let start = self.epoch.elapsed();
        self.counts.window = micros(start)..micros(start + duration);
        self.run(duration)
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The close codes of the connections that ended.
    pub(crate) fn closed(&self) -> impl Iterator<Item = u16> {
        self.clients.iter().filter_map(|client| client.closed)
    }

    /// The time of the next send, since the epoch.
    fn next_due(&self) -> Duration {
        self.period_start + self.schedule[self.next].offset
    }

    fn send_due(&mut self) {
        loop {
            let (due, now) = (self.next_due(), self.epoch.elapsed());
            if due > now {
                return;
            }
            let client = &mut self.clients[self.schedule[self.next].client];
            let is_sent = client.send(self.update.at(micros(now)));
            self.counts.count_send(micros(due), micros(now), is_sent);
            self.next += 1;
            if self.next == self.schedule.len() {
                self.next = 0;
                self.period_start += self.period;
            }
        }
    }

    fn read_ready(&mut self) -> Result<()> {
        match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        for event in &self.events {
            let now = micros(self.epoch.elapsed());
            let counts = &mut self.counts;
            let is_measured = counts.window.contains(&now);
            self.clients[event.token().0]
                .read(&mut self.buffer, |sent_at| counts.count_delivery(sent_at, now, is_measured));
        }
        Ok(())
    }
}

impl Counts {
    fn new() -> Self {
        Self {
            window: 0..0,
            sent: 0,
            skipped: 0,
            received: 0,
            arrived: 0,
            latency: histogram(),
            lateness: histogram(),
        }
    }

    fn count_send(&mut self, due: u64, now: u64, is_sent: bool) {
        if !self.window.contains(&now) {
            return;
        }
        self.lateness.saturating_record(now - due);
        match is_sent {
            true => self.sent += 1,
            false => self.skipped += 1,
        }
    }

    fn count_delivery(&mut self, sent_at: u64, now: u64, is_measured: bool) {
        if is_measured {
            self.received += 1;
            self.latency.saturating_record(now.saturating_sub(sent_at));
        }
        if self.window.contains(&sent_at) {
            self.arrived += 1;
        }
    }
}

fn histogram() -> Histogram<u64> {
    const TEN_SECONDS: u64 = 10_000_000;
    Histogram::new_with_bounds(1, TEN_SECONDS, 3).expect("these bounds are valid")
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}
