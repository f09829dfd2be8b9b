//! A WebSocket that carries packets, for both sockets of an explorer.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        http::{HeaderValue, header},
        protocol::WebSocketConfig,
    },
};

use crate::Ended;

pub(crate) struct Connection(WebSocketStream<MaybeTlsStream<TcpStream>>);

const READ_BUFFER_BYTES: usize = 4096;
const FAREWELL: Duration = Duration::from_secs(1);

impl Connection {
    pub(crate) async fn open(
        url: &str,
        subprotocols: &'static str,
        deadline: Duration,
    ) -> Result<Self, Ended> {
        let broken = |error: &dyn std::fmt::Display| Ended::Broken(error.to_string());
        let mut request = url.into_client_request().map_err(|error| broken(&error))?;
        let offer = HeaderValue::from_static(subprotocols);
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, offer);
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES).write_buffer_size(0);
        let connecting = connect_async_with_config(request, Some(config), true);
        match timeout(deadline, connecting).await {
            Ok(Ok((stream, _))) => Ok(Self(stream)),
            Ok(Err(error)) => Err(broken(&error)),
            Err(_) => Err(broken(&"no connection in time")),
        }
    }

    /// The next packet. Cancel-safe.
    pub(crate) async fn next<P: protocol::Message + Default>(&mut self) -> Result<P, Ended> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Binary(bytes))) => {
                    return P::decode(bytes).map_err(|error| Ended::Broken(error.to_string()));
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    let (code, reason) = (frame.code.into(), frame.reason.as_str().to_owned());
                    // The answer to the close goes out with the next read.
                    let _ = timeout(FAREWELL, self.0.next()).await;
                    return Err(Ended::Closed { code, reason });
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Ended::Broken(error.to_string())),
                None => return Err(Ended::Broken("the server is gone".to_owned())),
            }
        }
    }

    pub(crate) async fn send(&mut self, packet: &impl protocol::Message) -> Result<(), Ended> {
        let bytes = Bytes::from(packet.encode_to_vec());
        self.0.send(Message::Binary(bytes)).await.map_err(|error| Ended::Broken(error.to_string()))
    }

    /// Says goodbye, and waits a moment for the answer.
    pub(crate) async fn close(mut self) {
        let goodbye = async {
            if self.0.close(None).await.is_ok() {
                while let Some(Ok(_)) = self.0.next().await {}
            }
        };
        let _ = timeout(FAREWELL, goodbye).await;
    }
}
