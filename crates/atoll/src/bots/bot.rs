//! One bot: a headless client, its walk, and its log.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use client::{Event, Explorer, Handle, Settings};
use identity::Identity;
use protocol::{
    Message as _,
    rfc4::{self, packet::Message},
};
use tokio::time::{self, Instant, MissedTickBehavior};

use super::{bot_pool::BotPool, delivery_log::RoomLog, walk::Walker};

/// The parameters of one bot.
pub(crate) struct BotPlan {
    pub(crate) index: usize,
    /// The delay before it signs in.
    pub(crate) arrival: Duration,
    /// Whether it only signs in and neither walks nor publishes.
    pub(crate) idle: bool,
    /// The interval of its position packets in the room.
    pub(crate) step: Duration,
    /// The minimum size of such a packet, in bytes.
    pub(crate) bytes: usize,
}

/// The interval of heartbeats to the gateway.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// When the heartbeat was sent for which the assignment is timed: the first of a session, or that of a
/// jump. `None`: no such heartbeat waits for an assignment.
type PendingHeartbeat = Arc<Mutex<Option<Instant>>>;

/// Runs the bot until the pool is stopped.
pub(crate) async fn run(
    plan: BotPlan,
    settings: Settings,
    identity: Identity,
    walker: Walker,
    pool: Arc<BotPool>,
) {
    time::sleep(plan.arrival).await;
    let mut explorer = Explorer::start(settings, identity);
    let handle = explorer.handle();
    let index = plan.index;
    let pending = PendingHeartbeat::default();
    let walking = tokio::spawn(walk_and_publish(plan, walker, handle.clone(), pool.clone(), pending.clone()));
    loop {
        tokio::select! {
            event = explorer.next() => match event {
                Some(event) => handle_event(&pool, index, &pending, event),
                None => break,
            },
            () = pool.stopped() => break,
        }
    }
    walking.abort();
    handle.leave().await;
    // Drains the events until the client has closed its sockets.
    while explorer.next().await.is_some() {}
}

async fn walk_and_publish(
    plan: BotPlan,
    mut walker: Walker,
    handle: Handle,
    pool: Arc<BotPool>,
    pending: PendingHeartbeat,
) {
    if plan.idle {
        return;
    }
    let mut steps = time::interval(plan.step);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_heartbeat: Option<Instant> = None;
    let mut index = 0;
    loop {
        steps.tick().await;
        let jumped = walker.step(plan.step.as_secs_f32());
        let position = walker.position();
        pool.set_position(plan.index, position);
        if jumped || last_heartbeat.is_none_or(|at| at.elapsed() >= HEARTBEAT_INTERVAL) {
            if jumped || last_heartbeat.is_none() {
                start_timing(&pending);
            }
            last_heartbeat = Some(Instant::now());
            handle.heartbeat(position, None).await;
        }
        index += 1;
        let packet = rfc4::Position {
            index,
            position_x: position.x,
            position_y: position.y,
            position_z: position.z,
            rotation_w: 1.0,
            ..rfc4::Position::default()
        };
        pool.record_send(plan.index, index);
        let at = Instant::now();
        let rooms = handle.send(encode(packet, plan.bytes), true).await;
        pool.sent.fetch_add(rooms.len() as u64, Relaxed);
        let mut log = pool.log(plan.index);
        log.sent.push((index, at));
        for room in rooms {
            if let Some(room_log) = log.room_logs.get_mut(&room) {
                room_log.record_send(index, at);
            }
        }
    }
}

fn start_timing(pending: &PendingHeartbeat) {
    *pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
}

/// A position packet, padded with a protobuf field that no client knows. The padding is at most 127
/// bytes.
fn encode(position: rfc4::Position, min_bytes: usize) -> Bytes {
    /// Field 15, length-delimited.
    const PADDING_KEY: u8 = 15 << 3 | 2;
    let packet = rfc4::Packet { message: Some(Message::Position(position)), protocol_version: 100 };
    let mut bytes = BytesMut::from(&packet.encode_to_vec()[..]);
    let missing = min_bytes.saturating_sub(bytes.len() + 2).min(127);
    if missing > 0 {
        bytes.put_slice(&[PADDING_KEY, missing as u8]);
        bytes.put_bytes(0, missing);
    }
    bytes.freeze()
}

fn decode(body: Bytes) -> Option<rfc4::Position> {
    match rfc4::Packet::decode(body).ok()?.message? {
        Message::Position(position) => Some(position),
        _ => None,
    }
}

fn handle_event(pool: &BotPool, bot: usize, pending: &PendingHeartbeat, event: Event) {
    match event {
        Event::SignedIn => {
            pool.log(bot).sessions.signed_in(Instant::now());
            pool.signed_in.fetch_add(1, Relaxed);
        }
        Event::IslandChanged { island, connection, from, .. } => {
            if let Some(sent_at) = pending.lock().unwrap_or_else(PoisonError::into_inner).take() {
                pool.record_assignment(sent_at);
            }
            let is_room = connection.room_url().is_some();
            {
                let (mut log, now) = (pool.log(bot), Instant::now());
                log.sessions.assigned(now, &island);
                log.assignments.assigned(now, island.clone(), &connection, from.as_deref());
            }
            pool.set_island(bot, island, is_room);
        }
        Event::RoomEntered { room, island, url, alias, members } => {
            let mut room_log = RoomLog::new(island, url, alias, Instant::now());
            room_log.members = members
                .into_iter()
                .filter_map(|(alias, address)| Some((alias, pool.index_of(address)?)))
                .collect();
            pool.log(bot).room_logs.insert(room, room_log);
        }
        Event::PeerJoined { room, alias, address } => {
            if let (Some(room_log), Some(index)) =
                (pool.log(bot).room_logs.get_mut(&room), pool.index_of(address))
            {
                room_log.members.insert(alias, index);
            }
        }
        Event::PeerLeft { .. } => {}
        Event::Duplicate { room, alias, body } => {
            pool.duplicates.fetch_add(1, Relaxed);
            if let Some(position) = decode(body)
                && let Some(room_log) = pool.log(bot).room_logs.get_mut(&room)
            {
                room_log.record_receipt(alias, position.index);
            }
        }
        Event::Message { room, alias, body, .. } => {
            let Some(position) = decode(body) else { return };
            let sender = {
                let mut log = pool.log(bot);
                let Some(room_log) = log.room_logs.get_mut(&room) else { return };
                room_log.record_receipt(alias, position.index);
                let sender = room_log.members.get(&alias).copied();
                if let Some(sender) = sender
                    && !log.received.entry(sender).or_default().insert(position.index)
                {
                    pool.delivered_twice.fetch_add(1, Relaxed);
                }
                sender
            };
            if let Some(sender) = sender {
                pool.record_receipt(bot, sender, position.index);
            }
        }
        Event::RoomLeft { room, reason: ended } => {
            tracing::debug!(bot, %ended, "left a room");
            let mut log = pool.log(bot);
            log.sessions.room_left(&ended);
            if let Some(room_log) = log.room_logs.get_mut(&room) {
                room_log.left = Some(Instant::now());
            }
        }
        Event::IslandJoined { .. } | Event::IslandLeft { .. } => {}
        Event::Disconnected { reason, .. } => {
            tracing::debug!(bot, %reason, "disconnected");
            {
                let (mut log, now) = (pool.log(bot), Instant::now());
                log.sessions.session_ended(now, &reason);
                log.assignments.disconnected(now);
            }
            pool.disconnects.fetch_add(1, Relaxed);
        }
    }
}
