//! A client that walks in a circle, and prints its island and the positions that it receives.
//!
//! `cargo run --example explorer -- http://127.0.0.1:5000`

use std::time::Duration;

use anyhow::{Result, ensure};
use client::{
    Event, Explorer, Handle, Position, Protobuf, Settings,
    rfc4::{self, Packet, packet::Message},
};

const STEP: Duration = Duration::from_millis(500);
const RADIUS_M: f32 = 20.0;

#[tokio::main]
async fn main() -> Result<()> {
    // One gateway of the realm, or several: if the connection to one fails, the client uses the next.
    let gateways: Vec<String> = std::env::args().skip(1).collect();
    ensure!(!gateways.is_empty(), "usage: explorer URL...");
    let gateway = client::discover_all(&gateways, None).await?;
    let identity = client::guest()?;
    println!("I am {}", identity.address());
    let mut explorer = Explorer::start(Settings::new(gateway), identity);
    tokio::spawn(walk(explorer.handle()));

    while let Some(event) = explorer.next().await {
        match event {
            Event::IslandChanged { island, connection, peers, .. } => {
                let text = connection.to_string();
                let transport = text.split(':').next().unwrap_or_default();
                println!("island {island} of {} peers, over {transport}", peers.len());
            }
            Event::RoomEntered { members, .. } => println!("in the room, with {} others", members.len()),
            Event::PeerJoined { address, .. } => println!("{address} entered the room"),
            Event::Message { sender: Some(sender), body, .. } => {
                // Members may send any bytes; messages other than positions are ignored.
                if let Ok(Packet { message: Some(Message::Position(at)), .. }) = Packet::decode(body) {
                    println!("{sender} is at {:.1} {:.1}", at.position_x, at.position_z);
                }
            }
            Event::Disconnected { reason, retry_in: Some(pause) } => {
                println!("{reason}; reconnecting in {pause:.1?}")
            }
            Event::Disconnected { reason, retry_in: None } => println!("{reason}"),
            _ => {}
        }
    }
    Ok(())
}

async fn walk(handle: Handle) {
    let mut steps = tokio::time::interval(STEP);
    for index in 0_u32.. {
        steps.tick().await;
        let (sin, cos) = (index as f32 / 10.0).sin_cos();
        let (x, z) = (RADIUS_M * cos, RADIUS_M * sin);
        handle.heartbeat(Position::new(x, 0.0, z), None).await;
        let at = rfc4::Position { index, position_x: x, position_z: z, ..Default::default() };
        let packet = Packet { message: Some(Message::Position(at)), protocol_version: 100 };
        handle.send(packet.encode_to_vec().into(), true).await;
    }
}
