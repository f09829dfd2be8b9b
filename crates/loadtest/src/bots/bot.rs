//! One bot: a headless client, its walk, and its log.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use client::{Explorer, Handle, Settings};
use identity::Identity;
use protocol::rfc4;
use tokio::time::{self, Instant, MissedTickBehavior};

use super::{
    event_recorder::{EventRecorder, PendingHeartbeat},
    numbering::Delivery,
    pool::BotPool,
    position_packet,
    walk::Walker,
};

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
    let pending = PendingHeartbeat::default();
    let recorder = EventRecorder::new(pool.clone(), plan.index, pending.clone());
    let walking = tokio::spawn(walk_and_publish(plan, walker, handle.clone(), pool.clone(), pending));
    loop {
        tokio::select! {
            event = explorer.next() => match event {
                Some(event) => recorder.record(event),
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
                pending.start();
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
        let (delivery, number) = pool.numbering.of(index);
        let unreliable = delivery == Delivery::Lossy;
        let rooms = handle.send(position_packet::encode(packet, plan.bytes), unreliable).await;
        pool.sent.fetch_add(rooms.len() as u64, Relaxed);
        let mut log = pool.log(plan.index);
        log.sent[delivery].push((number, at));
        for room in rooms {
            if let Some(room_log) = log.room_logs.get_mut(&room) {
                room_log.record_send((delivery, number), at);
            }
        }
    }
}
