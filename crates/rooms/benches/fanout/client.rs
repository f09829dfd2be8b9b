//! One client: the entry into its room, and then reads and writes that never block.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use protocol::{Address, ConnectionString, Ulid};
use transports::ws_room;

use crate::frame::{ServerFrame, identification_frame, read_frame};

/// The secret that signs the access tokens.
pub(crate) const SECRET: &[u8] = b"a secret for a benchmark";
const ENTRY_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Client {
    pub(crate) socket: mio::net::TcpStream,
    /// The beginning of a frame that has not arrived completely.
    incomplete: Vec<u8>,
    /// The rest of a frame that the socket did not take.
    unsent: Vec<u8>,
    /// The code of the server's close frame, or 0 after the end of the connection.
    pub(crate) closed: Option<u16>,
}

impl Client {
    /// Connects, upgrades and enters room `room`; returns after the server's welcome. Blocks meanwhile.
    pub(crate) fn enter(server: SocketAddr, room: usize, number: usize) -> Result<Self> {
        let mut wallet = [0; 20];
        wallet[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let wallet = Address::new(wallet);
        let mut socket = TcpStream::connect(server)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ENTRY_TIMEOUT))?;
        socket.write_all(upgrade_request(room, wallet, number)?.as_bytes())?;
        let mut received = Vec::new();
        let head = loop {
            read_more(&mut socket, &mut received).context("no response to the upgrade")?;
            if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
        };
        if !received.starts_with(b"HTTP/1.1 101 ") {
            bail!("no upgrade: {}", String::from_utf8_lossy(&received));
        }
        received.drain(..head);
        socket.write_all(&identification_frame(wallet.to_string()))?;
        loop {
            match read_frame(&received) {
                Some((ServerFrame::Welcome, length)) => {
                    received.drain(..length);
                    break;
                }
                Some((ServerFrame::Close(code), _)) => bail!("the server closed the connection: {code}"),
                Some((_, length)) => {
                    received.drain(..length);
                }
                None => read_more(&mut socket, &mut received).context("no welcome")?,
            }
        }
        socket.set_nonblocking(true)?;
        let socket = mio::net::TcpStream::from_std(socket);
        Ok(Self { socket, incomplete: received, unsent: Vec::new(), closed: None })
    }

    /// Sends a frame. Returns whether it was sent: not if the socket still has not taken the frame before.
    pub(crate) fn send(&mut self, frame: &[u8]) -> bool {
        if !self.unsent.is_empty() {
            let written = self.write(&self.unsent);
            self.unsent.drain(..written);
        }
        if self.closed.is_some() || !self.unsent.is_empty() {
            return false;
        }
        let written = self.write(frame);
        if 0 < written && written < frame.len() {
            self.unsent.extend_from_slice(&frame[written..]);
        }
        written > 0
    }

    /// Writes without blocking; returns the number of bytes that the socket took. Errors are left to the next
    /// read.
    fn write(&self, bytes: &[u8]) -> usize {
        (&self.socket).write(bytes).unwrap_or(0)
    }

    /// Reads everything that has arrived, through `buffer`. Calls `on_update` with the time of sending of each
    /// update.
    pub(crate) fn read(&mut self, buffer: &mut [u8], mut on_update: impl FnMut(u64)) {
        loop {
            let kept = self.incomplete.len();
            buffer[..kept].copy_from_slice(&self.incomplete);
            let filled = match self.socket.read(&mut buffer[kept..]) {
                Ok(0) => {
                    self.closed.get_or_insert(0);
                    return;
                }
                Ok(count) => kept + count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => {
                    self.closed.get_or_insert(0);
                    return;
                }
            };
            let mut rest = &buffer[..filled];
            while let Some((frame, length)) = read_frame(rest) {
                match frame {
                    ServerFrame::Update(sent_at) => on_update(sent_at),
                    ServerFrame::Close(code) => self.closed = Some(code),
                    ServerFrame::Welcome | ServerFrame::Other => {}
                }
                rest = &rest[length..];
            }
            self.incomplete.clear();
            self.incomplete.extend_from_slice(rest);
            // A read that does not fill the buffer has emptied the socket; a second call would find nothing.
            if filled < buffer.len() {
                return;
            }
        }
    }
}

fn upgrade_request(room: usize, wallet: Address, number: usize) -> Result<String> {
    let minter = ws_room::Minter::new(SECRET, Duration::from_secs(300));
    let room = format!("I{}", room + 1).parse()?;
    let minted = Ulid(number as u128 + 1);
    let connection = minter.connection("", &room, wallet, minted, SystemTime::now())?;
    let ConnectionString::WsRoom { url, access_token: Some(token) } = connection else {
        bail!("a connection string without a token");
    };
    Ok(format!(
        "GET {url}?access_token={token} HTTP/1.1\r\nHost: bench\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ))
}

fn read_more(socket: &mut TcpStream, received: &mut Vec<u8>) -> Result<()> {
    let mut bytes = [0; 16 * 1024];
    let count = socket.read(&mut bytes)?;
    if count == 0 {
        bail!("the server ended the connection");
    }
    received.extend_from_slice(&bytes[..count]);
    Ok(())
}
