//! A session's bytes: first those that came with the dial line, then the channel's.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::channel::{Connection, DeviceStream};

/// What the HTTP/2 connection reads and writes.
pub struct Session<'a> {
    stream: &'a mut DeviceStream,
    early: &'a mut Vec<u8>,
    /// The host has hung up. A serial port then takes nothing until the next one dials, which is not for us to wait for.
    ended: Lost,
}

/// Whether a session's host has hung up, for those whose calls end by that.
#[derive(Clone, Default)]
pub struct Lost(Arc<AtomicBool>);

impl Lost {
    /// Whether it has.
    pub fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<'a> Session<'a> {
    /// The bytes of a connection that was just accepted.
    pub fn new(connection: &'a mut Connection, ended: Lost) -> Self {
        Session {
            stream: &mut connection.stream,
            early: &mut connection.early,
            ended,
        }
    }

    fn note_loss<T>(&self, result: &Poll<io::Result<T>>) {
        if matches!(result, Poll::Ready(Err(_))) {
            self.ended.0.store(true, Ordering::Relaxed);
        }
    }

    /// The stream to write to, while there is somebody who reads.
    fn writer(&mut self) -> io::Result<Pin<&mut DeviceStream>> {
        if self.ended.is_so() {
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
        if result.is_err() || buffer.filled().len() == before {
            self.ended.0.store(true, Ordering::Relaxed);
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Session<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = self.writer()?.poll_write(context, bytes);
        self.note_loss(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = self.writer()?.poll_write_vectored(context, slices);
        self.note_loss(&result);
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer()?.poll_shutdown(context)
    }
}
