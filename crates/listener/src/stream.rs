//! A TCP stream that reports reads and writes to the state of its connection.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::state::ConnectionState;

/// The TCP stream of a connection.
///
/// [`hyper::upgrade::Upgraded`] downcasts to it, as `TokioIo<Stream>`. After an upgrade it only forwards to
/// its TCP stream: the new protocol has deadlines of its own.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    state: Arc<ConnectionState>,
}

/// Keeps a connection counted among those of its listener.
#[derive(Debug)]
pub struct ConnectionGuard {
    _state: Arc<ConnectionState>,
}

impl Stream {
    pub(crate) fn new(tcp: TcpStream, state: Arc<ConnectionState>) -> Self {
        Self { tcp, state }
    }

    /// Takes the TCP stream out of an upgraded connection. The connection counts as open until the guard is
    /// dropped.
    pub fn into_parts(self) -> (TcpStream, ConnectionGuard) {
        (self.tcp, ConnectionGuard { _state: self.state })
    }

    /// The TCP stream itself.
    pub fn get_ref(&self) -> &TcpStream {
        &self.tcp
    }

    fn report_write(&self, written: &Poll<io::Result<usize>>, offered: usize) {
        match written {
            Poll::Pending => self.state.write_blocked(),
            Poll::Ready(Ok(count)) => self.state.wrote(*count, offered),
            Poll::Ready(Err(_)) => {}
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        let result = Pin::new(&mut self.tcp).poll_read(cx, buffer);
        if buffer.filled().len() > filled {
            self.state.received();
        }
        result
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.report_write(&written, bytes.len());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, slices);
        self.report_write(&written, slices.iter().map(|slice| slice.len()).sum());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
