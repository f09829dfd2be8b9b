//! The link to a gateway: signs in, sends heartbeats, and comes back when it breaks.

use std::time::Duration;

use identity::Identity;
use protocol::{
    Close,
    v3::{Heartbeat, IslandChangedMessage, ServerPacket, client_packet, server_packet::Message},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    Ended, Event, Settings,
    connection::Connection,
    pause::Pause,
    socket::{packet, sign_in},
};

/// What the link needs.
pub(crate) struct Link {
    pub(crate) settings: Settings,
    pub(crate) identity: Identity,
    /// What to do; when its other end is gone, the link leaves.
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) changes: mpsc::Sender<IslandChangedMessage>,
    /// The last heartbeat that could not be sent.
    pub(crate) unsent: Option<Heartbeat>,
}

/// What the explorer wants of its link.
pub(crate) enum Request {
    /// Send this.
    Heartbeat(Heartbeat),
    /// Sign in again, so that the gateway names the island again.
    SignInAgain,
}

/// The explorer has gone.
struct Gone;

impl Link {
    /// Holds the link until the explorer goes or must not come back.
    pub(crate) async fn run(mut self) {
        let mut pause = Pause::new(self.settings.longest_pause);
        loop {
            let ended = self.hold(&mut pause).await;
            let retry_in = ended.come_back().then(|| pause.next());
            let left = ended == Ended::Left;
            let told = self.events.send(Event::Disconnected { ended, retry_in }).await;
            let Some(wait) = retry_in.filter(|_| told.is_ok() && !left) else { return };
            if self.wait(wait).await.is_err() {
                return;
            }
        }
    }

    /// Keeps the last heartbeat while nobody can be told.
    async fn wait(&mut self, wait: Duration) -> Result<(), Gone> {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                () = sleep_until(until) => return Ok(()),
                request = self.requests.recv() => {
                    if let Request::Heartbeat(heartbeat) = request.ok_or(Gone)? {
                        self.unsent = Some(heartbeat);
                    }
                }
            }
        }
    }

    /// One connection, from sign-in to its end.
    async fn hold(&mut self, pause: &mut Pause) -> Ended {
        let Settings { socket_url, transports, deadline, .. } = &self.settings;
        let mut connection = match sign_in(socket_url, &self.identity, transports, *deadline).await {
            Ok(connection) => connection,
            Err(ended) => return ended,
        };
        pause.reset();
        if self.events.send(Event::SignedIn).await.is_err() {
            return Ended::Left;
        }
        match self.serve(&mut connection).await {
            Ended::Left => {
                connection.close().await;
                Ended::Left
            }
            ended => ended,
        }
    }

    async fn serve(&mut self, connection: &mut Connection) -> Ended {
        let mut kicked = false;
        if let Some(heartbeat) = self.unsent.take()
            && let Err(ended) = send(connection, heartbeat).await
        {
            return ended;
        }
        loop {
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(Request::Heartbeat(heartbeat)) => {
                        if let Err(ended) = send(connection, heartbeat).await {
                            return ended;
                        }
                    }
                    Some(Request::SignInAgain) => {
                        return Ended::Broken("signing in again for another room token".to_owned());
                    }
                    None => return Ended::Left,
                },
                received = connection.next::<ServerPacket>() => match received.map(|packet| packet.message) {
                    Ok(Some(Message::IslandChanged(change))) => {
                        if self.changes.send(change).await.is_err() {
                            return Ended::Left;
                        }
                    }
                    Ok(Some(Message::Kicked(_))) => kicked = true,
                    Ok(_) => {}
                    // Somebody else uses this wallet: coming back would kick them in turn.
                    Err(Ended::Broken(_)) if kicked => {
                        let close = Close::NewSession;
                        return Ended::Closed { code: close.code(), reason: close.reason().to_owned() };
                    }
                    Err(ended) => return ended,
                },
            }
        }
    }
}

async fn send(connection: &mut Connection, heartbeat: Heartbeat) -> Result<(), Ended> {
    connection.send(&packet(client_packet::Message::Heartbeat(heartbeat))).await
}
