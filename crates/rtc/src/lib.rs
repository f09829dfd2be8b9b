//! WebRTC data channels on the `webrtc` crate.
//!
//! [`livekit`] is a participant of a LiveKit room that exchanges data and neither publishes nor receives media:
//!
//! ```no_run
//! use rtc::livekit::{Event, Options, Participant};
//!
//! # async fn run(token: String) -> Result<(), Box<dyn std::error::Error>> {
//! let mut participant = Participant::join(Options::new("wss://livekit.example", token)).await?;
//! participant.sender().send_reliable("hello".into(), None)?;
//! while let Some(event) = participant.next().await {
//!     match event {
//!         Event::Data(data) => println!("{:?}: {} bytes", data.sender, data.payload.len()),
//!         Event::Left(reason) => println!("left: {reason}"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The `webrtc` crate calls its event handlers on the task that also drives ICE, DTLS and SCTP, so no handler of
//! this crate waits: events go into bounded queues, and one task owns the state of a participant.

mod channel;
mod connection;
pub mod livekit;
pub mod mesh;
