//! One bot: an explorer, its walk, and its log.

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

/// What a bot is told.
pub(crate) struct BotPlan {
    pub(crate) index: usize,
    /// When it signs in.
    pub(crate) arrival: Duration,
    /// Whether it does nothing after that.
    pub(crate) idle: bool,
    /// How often it says where it is in its room.
    pub(crate) step: Duration,
    /// The least size of what it says then.
    pub(crate) bytes: usize,
}

/// How often a bot says where it is to its gateway.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// The heartbeat whose answer is measured: the first of a sign-in, or that of a jump.
type PendingHeartbeat = Arc<Mutex<Option<Instant>>>;

/// Lives until the crowd is told to stop.
pub(crate) async fn run(
    plan: BotPlan,
    settings: Settings,
    identity: Identity,
    walker: Walker,
    crowd: Arc<BotPool>,
) {
    time::sleep(plan.arrival).await;
    let mut explorer = Explorer::start(settings, identity);
    let handle = explorer.handle();
    let index = plan.index;
    let question = PendingHeartbeat::default();
    let walking =
        tokio::spawn(walk_and_publish(plan, walker, handle.clone(), crowd.clone(), question.clone()));
    loop {
        tokio::select! {
            event = explorer.next() => match event {
                Some(event) => handle_event(&crowd, index, &question, event),
                None => break,
            },
            () = crowd.stopped() => break,
        }
    }
    walking.abort();
    handle.leave().await;
    // Until it has said goodbye.
    while explorer.next().await.is_some() {}
}

async fn walk_and_publish(
    plan: BotPlan,
    mut walker: Walker,
    handle: Handle,
    crowd: Arc<BotPool>,
    question: PendingHeartbeat,
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
        crowd.set_position(plan.index, position);
        if jumped || last_heartbeat.is_none_or(|at| at.elapsed() >= HEARTBEAT_INTERVAL) {
            if jumped || last_heartbeat.is_none() {
                start_timing(&question);
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
        crowd.record_send(plan.index, index);
        let at = Instant::now();
        let rooms = handle.send(encode(packet, plan.bytes), true).await;
        crowd.sent.fetch_add(rooms.len() as u64, Relaxed);
        let mut log = crowd.log(plan.index);
        log.sent.push((index, at));
        for room in rooms {
            if let Some(stay) = log.room_logs.get_mut(&room) {
                stay.record_send(index, at);
            }
        }
    }
}

fn start_timing(question: &PendingHeartbeat) {
    *question.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
}

/// A position packet, made larger by a field that nobody knows.
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

fn handle_event(crowd: &BotPool, bot: usize, question: &PendingHeartbeat, event: Event) {
    match event {
        Event::SignedIn => {
            crowd.log(bot).sessions.signed_in(Instant::now());
            crowd.signed_in.fetch_add(1, Relaxed);
        }
        Event::IslandChanged { island, connection, from, .. } => {
            if let Some(asked) = question.lock().unwrap_or_else(PoisonError::into_inner).take() {
                crowd.record_assignment(asked);
            }
            let is_room = connection.room_url().is_some();
            {
                let (mut log, now) = (crowd.log(bot), Instant::now());
                log.sessions.assigned(now, &island);
                log.assignments.assigned(now, island.clone(), &connection, from.as_deref());
            }
            crowd.set_island(bot, island, is_room);
        }
        Event::RoomEntered { room, island, url, alias, members } => {
            let mut stay = RoomLog::new(island, url, alias, Instant::now());
            stay.members = members
                .into_iter()
                .filter_map(|(alias, address)| Some((alias, crowd.index_of(address)?)))
                .collect();
            crowd.log(bot).room_logs.insert(room, stay);
        }
        Event::PeerJoined { room, alias, address } => {
            if let (Some(stay), Some(index)) =
                (crowd.log(bot).room_logs.get_mut(&room), crowd.index_of(address))
            {
                stay.members.insert(alias, index);
            }
        }
        Event::PeerLeft { .. } => {}
        Event::Duplicate { room, alias, body } => {
            crowd.duplicates.fetch_add(1, Relaxed);
            if let Some(position) = decode(body)
                && let Some(stay) = crowd.log(bot).room_logs.get_mut(&room)
            {
                stay.record_receipt(alias, position.index);
            }
        }
        Event::Message { room, alias, body, .. } => {
            let Some(position) = decode(body) else { return };
            let sender = {
                let mut log = crowd.log(bot);
                let Some(stay) = log.room_logs.get_mut(&room) else { return };
                stay.record_receipt(alias, position.index);
                let sender = stay.members.get(&alias).copied();
                if let Some(sender) = sender
                    && !log.received.entry(sender).or_default().insert(position.index)
                {
                    crowd.delivered_twice.fetch_add(1, Relaxed);
                }
                sender
            };
            if let Some(sender) = sender {
                crowd.record_receipt(bot, sender, position.index);
            }
        }
        Event::RoomLeft { room, reason: ended } => {
            tracing::debug!(bot, %ended, "left a room");
            let mut log = crowd.log(bot);
            log.sessions.room_left(&ended);
            if let Some(stay) = log.room_logs.get_mut(&room) {
                stay.left = Some(Instant::now());
            }
        }
        Event::IslandJoined { .. } | Event::IslandLeft { .. } => {}
        Event::Disconnected { reason, .. } => {
            tracing::debug!(bot, %reason, "disconnected");
            {
                let (mut log, now) = (crowd.log(bot), Instant::now());
                log.sessions.session_ended(now, &reason);
                log.assignments.disconnected(now);
            }
            crowd.disconnects.fetch_add(1, Relaxed);
        }
    }
}
