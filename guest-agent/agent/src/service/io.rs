//! A session's bytes: first those that came with the dial line, then the channel's.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::channel::{Connection, DeviceStream};
use crate::checkpoint::Standstill;

/// What the HTTP/2 connection reads and writes.
pub struct Session<'a> {
    stream: &'a mut DeviceStream,
    early: &'a mut Vec<u8>,
    /// The host has hung up. A serial port then takes nothing until the next one dials, which is not for us to wait for.
    ended: Lost,
    /// Another host has dialled: `early` is what it sent.
    yielded: bool,
    standstill: &'a Standstill,
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
    pub fn new(connection: &'a mut Connection, ended: Lost, standstill: &'a Standstill) -> Self {
        Session {
            stream: &mut connection.stream,
            early: &mut connection.early,
            ended,
            yielded: false,
            standstill,
        }
    }

    /// Reads while the machine stands still for a checkpoint. Where it has been restored from that, the host that did so may have dialled: that ends
    /// the session, and is for the next one.
    fn poll_read_alert(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // As much as QEMU hands on at once, so that a dial line is whole, however little is asked for.
        let mut space = [0; 4096];
        let mut received = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut *self.stream).poll_read(context, &mut received))?;
        let received = received.filled();
        if let Some(start) = self.standstill.find_dial(received) {
            self.early.extend_from_slice(&received[start..]);
            self.yielded = true;
            return Poll::Ready(Ok(()));
        }
        let (now, later) = received.split_at(received.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.early.extend_from_slice(later);
        Poll::Ready(Ok(()))
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
        if self.yielded {
            return Poll::Ready(Ok(()));
        }
        if !self.early.is_empty() {
            let count = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early[..count]);
            self.early.drain(..count);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let result = ready!(if self.standstill.is_on() {
            self.poll_read_alert(context, buffer)
        } else {
            Pin::new(&mut *self.stream).poll_read(context, buffer)
        });
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(flavor = "current_thread")]
    async fn the_host_of_a_restored_machine_breaks_into_the_session() {
        let line = b"husk-dial 1 00112233445566778899aabbccddeeff\n";
        let (mut host, guest) = UnixStream::pair().expect("a socket pair");
        guest.set_nonblocking(true).expect("a flag");
        let stream = DeviceStream::new(OwnedFd::from(guest)).expect("a stream");
        let mut connection = Connection {
            stream,
            early: Vec::new(),
        };
        let (lost, standstill) = (Lost::default(), Standstill::default());
        let mut session = Session::new(&mut connection, lost.clone(), &standstill);
        // Before the standstill it is nothing but bytes; afterwards it is what was told, however little of it is asked for.
        let mut little = [0; 5];
        let mut whole = [0; 45];
        host.write_all(line).expect("to write");
        assert_eq!(session.read(&mut whole).await.expect("bytes"), line.len());
        assert_eq!(standstill.begin(line.to_vec()), Ok(()));
        host.write_all(b"old frame").expect("to write");
        for expected in [&b"old f"[..], b"rame"] {
            let count = session.read(&mut little).await.expect("bytes");
            assert_eq!(&little[..count], expected);
        }
        assert!(!lost.is_so());
        host.write_all(&[&line[..], b"PRI"].concat())
            .expect("to write");
        for _ in 0..2 {
            assert_eq!(session.read(&mut little).await.expect("the end"), 0);
        }
        assert!(lost.is_so());
        let refused = session.write(b"old answer").await;
        assert_eq!(
            refused.map_err(|error| error.kind()),
            Err(ErrorKind::BrokenPipe)
        );
        assert_eq!(connection.early, [&line[..], b"PRI"].concat());
    }
}
