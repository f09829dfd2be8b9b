//! The byte stream of a member, which its shard polls.

use std::{
    io::{self, IoSlice, Read, Write},
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use listener::ConnectionGuard;
use mio::{Interest, Registry, Token, event::Event, net::TcpStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The byte stream of a member.
#[derive(Debug)]
pub(crate) enum MemberStream {
    /// A TCP socket that is registered with the shard. While the shard is active, a packet that arrives wakes no
    /// task.
    Polled(PolledTcp),
    /// A TCP socket that the runtime polls: before it is registered with the shard, and while it is closed.
    Tcp(tokio::net::TcpStream, ConnectionGuard),
    /// A stream of another listener, such as those of tests. The runtime polls it, and wakes the shard.
    Other(ws::Stream),
    /// After an error of the operating system.
    Closed,
}

/// A TCP socket that its shard polls.
#[derive(Debug)]
pub(crate) struct PolledTcp {
    tcp: TcpStream,
    guard: ConnectionGuard,
    is_readable: bool,
    is_writable: bool,
    /// The client will send nothing more: reads return the rest and then the end.
    is_read_closed: bool,
}

impl MemberStream {
    /// The stream under an upgraded connection, and the bytes that were read ahead.
    pub(crate) fn new(stream: ws::Stream) -> (Self, Bytes) {
        match ws::downcast::<listener::Stream>(stream) {
            Ok((stream, read_ahead)) => {
                let (tcp, guard) = stream.into_parts();
                (Self::Tcp(tcp, guard), read_ahead)
            }
            Err(stream) => (Self::Other(stream), Bytes::new()),
        }
    }

    /// Registers a TCP socket with a shard.
    ///
    /// # Errors
    ///
    /// The error of the operating system; the socket is closed.
    pub(crate) fn register(&mut self, registry: &Registry, alias: u32) -> io::Result<()> {
        match mem::replace(self, Self::Closed) {
            Self::Tcp(tcp, guard) => *self = Self::Polled(PolledTcp::new(tcp, guard, registry, alias)?),
            other => *self = other,
        }
        Ok(())
    }

    /// Reverses [`Self::register`], so that the socket can be polled by another task.
    ///
    /// # Errors
    ///
    /// The error of the operating system; the socket is closed.
    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match mem::replace(self, Self::Closed) {
            Self::Polled(PolledTcp { mut tcp, guard, .. }) => {
                registry.deregister(&mut tcp)?;
                *self = Self::Tcp(tokio::net::TcpStream::from_std(tcp.into())?, guard);
            }
            other => *self = other,
        }
        Ok(())
    }

    /// Records an event of the shard's poll.
    pub(crate) fn set_ready(&mut self, event: &Event) {
        if let Self::Polled(polled) = self {
            polled.is_readable |= event.is_readable() || event.is_read_closed() || event.is_error();
            polled.is_writable |= event.is_writable() || event.is_write_closed() || event.is_error();
            polled.is_read_closed |= event.is_read_closed() || event.is_error();
        }
    }
}

impl PolledTcp {
    fn new(
        tcp: tokio::net::TcpStream,
        guard: ConnectionGuard,
        registry: &Registry,
        alias: u32,
    ) -> io::Result<Self> {
        let mut tcp = TcpStream::from_std(tcp.into_std()?);
        registry.register(&mut tcp, Token(alias as usize), Interest::READABLE | Interest::WRITABLE)?;
        // Whether the socket is readable or writable is found out by trying.
        Ok(Self { tcp, guard, is_readable: true, is_writable: true, is_read_closed: false })
    }

    fn read(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.is_readable {
            let free = buffer.initialize_unfilled();
            let size = free.len();
            match self.tcp.read(free) {
                Ok(count) => {
                    // The poll reports each change once: after a read that did not fill the buffer, nothing is
                    // left and the next change will be reported. The end of the stream has been reported.
                    self.is_readable = count == size || self.is_read_closed;
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Pending
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        while self.is_writable {
            let written = match slices {
                // A plain write takes a shorter way through the kernel.
                [slice] => self.tcp.write(slice),
                slices => self.tcp.write_vectored(slices),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
        Poll::Pending
    }
}

impl AsyncRead for MemberStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Polled(polled) => polled.read(buffer),
            Self::Tcp(tcp, _) => Pin::new(tcp).poll_read(context, buffer),
            Self::Other(stream) => Pin::new(stream).poll_read(context, buffer),
            // The end of the stream.
            Self::Closed => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for MemberStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Polled(polled) => polled.write(slices),
            Self::Tcp(tcp, _) => Pin::new(tcp).poll_write_vectored(context, slices),
            Self::Other(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Closed => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Polled(_) | Self::Closed => Poll::Ready(Ok(())),
            Self::Tcp(tcp, _) => Pin::new(tcp).poll_flush(context),
            Self::Other(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Polled(polled) => Poll::Ready(polled.tcp.shutdown(std::net::Shutdown::Write)),
            Self::Tcp(tcp, _) => Pin::new(tcp).poll_shutdown(context),
            Self::Other(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Closed => Poll::Ready(Ok(())),
        }
    }
}
