//! The session driver: the sign-in of one socket, in any dialect.
//!
//! It and the session that follows do all input and output. The dialect decodes and encodes, [`Handshake`] and
//! [`SessionState`](crate::session::state::SessionState) decide.

use std::sync::Arc;

use admission::{Network, Permit};
use protocol::Close;
use tokio::time::{Instant, timeout_at};

use crate::{
    client_socket::{SocketEnd, server_close},
    dialect::Dialect,
    session::{
        connection::Connection,
        handshake::{Handshake, SignInRequest, Step},
        live::LiveSession,
        registry::NewSession,
    },
    shared::Shared,
};

/// Signs in the client of one socket, and spawns the task of its session.
pub(crate) async fn serve<D: Dialect + 'static>(
    shared: Arc<Shared>,
    mut connection: Connection<D>,
    permit: Permit,
) {
    let network = permit.network();
    let deadline = Instant::now() + shared.settings.handshake_timeout;
    let signed_in = tokio::select! {
        signed_in = timeout_at(deadline, sign_in(&shared, &mut connection, &permit)) => {
            signed_in.unwrap_or(Err(server_close(Close::HandshakeTimeout)))
        }
        () = shared.handshakes.closed() => Err(server_close(Close::Restarting)),
        () = permit.evicted() => Err(server_close(Close::Full)),
    };
    // Dropped before the close, so that another handshake does not wait until this client has read it.
    drop(permit);
    let request = match signed_in {
        Ok(request) => request,
        Err(ended) => return connection.socket.close_rejected(ended).await,
    };
    let (peer, transports) = (request.address, request.transports.clone());
    match begin_session(&shared, request, network).await {
        Ok(begun) => {
            let session = LiveSession::new(shared, connection, peer, transports.as_deref(), begun);
            tokio::spawn(session.serve());
        }
        Err(close) => {
            let ended = connection.reject(close, close.reason().to_owned()).await;
            connection.socket.close(ended).await;
        }
    }
}

/// Runs the handshake: sends a challenge and verifies its signature.
async fn sign_in<D: Dialect>(
    shared: &Shared,
    connection: &mut Connection<D>,
    permit: &Permit,
) -> Result<SignInRequest, SocketEnd> {
    let mut handshake = Handshake::AwaitRequest;
    loop {
        connection.flush().await?;
        let received = connection.socket.next().await?;
        connection.receive_frame(received).await?;
        while let Some(request) = connection.dialect.poll_request(Instant::now()) {
            handshake = match handshake.receive(request) {
                Ok(Step::Challenge(request)) => challenge(shared, &mut connection.dialect, request)?,
                Ok(Step::Verify { request, challenge, auth_chain_json }) => {
                    permit.set_waiting(false);
                    let (verifier, network) = (&shared.verifier, permit.network());
                    let verified =
                        verifier.verify(auth_chain_json, request.address, challenge, network).await;
                    return match verified {
                        Ok(()) => Ok(request),
                        Err(refusal) => Err(connection.reject(refusal.close(), refusal.to_string()).await),
                    };
                }
                Err((close, reason)) => return Err(connection.reject(close, reason).await),
            };
        }
    }
}

/// Sends a challenge. Returns the state that awaits its signature.
fn challenge(
    shared: &Shared,
    dialect: &mut impl Dialect,
    request: SignInRequest,
) -> Result<Handshake, SocketEnd> {
    let challenge = shared.verifier.challenge().map_err(|_| server_close(Close::Restarting))?;
    let already_connected = shared.sessions.already_connected(request.address);
    dialect.challenge(challenge.as_str(), already_connected);
    Ok(Handshake::AwaitSignature { request, challenge })
}

/// Begins a session, or returns the close code of its rejection: see
/// [`SessionRegistry::begin`](crate::session::registry::SessionRegistry::begin).
async fn begin_session(
    shared: &Shared,
    request: SignInRequest,
    network: Network,
) -> Result<NewSession, Close> {
    let (Ok(random), Ok(secret)) = (admission::random(), admission::random()) else {
        return Err(Close::Restarting);
    };
    shared.resync.wait_for_report(&shared.sessions, &request).await;
    shared.sessions.begin(request, network, [random, secret])
}
