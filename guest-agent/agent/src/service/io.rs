//! A session's bytes: first those that came with the dial line, then the channel's.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::channel::{Connection, DeviceStream};

/// What the HTTP/2 connection reads and writes.
pub struct Session<'a> {
    stream: &'a mut DeviceStream,
    early: &'a mut Vec<u8>,
    /// The host has hung up. A serial port then takes nothing until the next one dials, which is not for us to wait for.
    ended: bool,
}

impl<'a> Session<'a> {
    /// The bytes of a connection that was just accepted.
    pub fn new(connection: &'a mut Connection) -> Self {
        Session {
            stream: &mut connection.stream,
            early: &mut connection.early,
            ended: false,
        }
    }

    /// The stream to write to, while there is somebody who reads.
    fn writer(&mut self) -> io::Result<Pin<&mut DeviceStream>> {
        if self.ended {
            return Err(ErrorKind::BrokenPipe.into());
        }
        Ok(Pin::new(&mut *self.stream))
    }
}

impl AsyncRead for Session<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let count = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early[..count]);
            self.early.drain(..count);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut *self.stream).poll_read(context, buffer));
        self.ended = result.is_err() || buffer.filled().len() == before;
        Poll::Ready(result)
    }
}

impl AsyncWrite for Session<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writer()?.poll_write(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writer()?.poll_write_vectored(context, slices)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer()?.poll_shutdown(context)
    }
}
