//! The entry of one client into a room.

use std::{sync::Arc, time::Duration};

use admission::{Permit, Throttle};
use protocol::{Close, RoomName};
use tokio::time::{Instant, timeout, timeout_at};
use ws::close_frame;

use crate::{
    connection::Connection,
    handshake::{authenticate, disconnect},
    handshake_socket::HandshakeSocket,
    metrics,
    node::Node,
    pace::Pace,
    room::kicked_frame,
};

/// How long the server waits for the close frame of a rejection to be written and for the client to close the
/// connection. The handshake permit is released at once, so the socket must not stay for long.
const REFUSAL_LINGER: Duration = Duration::from_secs(2);

/// Serves one socket until it is a member of its room, and hands it over to the room's shard.
pub(crate) async fn serve(
    node: &Arc<Node>,
    room: &RoomName,
    token: Option<String>,
    permit: Permit,
    stream: ws::Stream,
) {
    let (settings, now) = (&node.settings, Instant::now());
    let throttle = Throttle::new(settings.messages_per_second, settings.bytes_per_second, now);
    let mut socket = HandshakeSocket::new(stream, Pace::new(throttle, now));
    let deadline = now + settings.handshake_timeout;
    let close_with = |close: Close| Err(disconnect(close));
    let authenticated = tokio::select! {
        authenticated = timeout_at(deadline, authenticate(node, room, token.as_deref(), &permit, &mut socket)) => {
            authenticated.unwrap_or(close_with(Close::HandshakeTimeout))
        }
        () = node.handshakes.closed() => close_with(Close::Restarting),
        () = permit.evicted() => close_with(Close::Full),
    };
    let joined = authenticated.and_then(|request| node.registry.join(room, &request).map_err(Some));
    // The permit is released first: another handshake need not wait until a rejected client has read the
    // reason.
    drop(permit);
    match joined {
        Ok(membership) => {
            let shard = membership.room.shard.clone();
            shard.add(Box::new(Connection::new(node, membership, socket)));
        }
        Err(Some((close, reason))) => reject(close, &reason, &mut socket).await,
        Err(None) => {}
    }
}

/// Sends a close frame with the reason for the rejection, and waits for the client to close the connection.
async fn reject(close: Close, reason: &str, socket: &mut HandshakeSocket) {
    tracing::debug!(code = close.code(), reason, "rejected");
    metrics::closed(close.code()).increment(1);
    let closing = async {
        if close == Close::RoomFull {
            // Clients of RFC-5 know this packet, but not the close code.
            socket.write(&kicked_frame(reason)).await?;
        }
        socket.write(&close_frame(close.code(), reason)).await?;
        socket.shutdown().await
    };
    // On timeout the client does not receive the close frame.
    let _ = timeout(REFUSAL_LINGER, closing).await;
}
