//! A character device or socket of the host's as an asynchronous byte stream.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use super::passage::Passage;
use crate::watch::watch;

/// The edges of one direction of a descriptor.
///
/// tokio never forgets that a descriptor hung up, but a virtio-serial port comes back when the host dials again. So the port is
/// in an epoll instance of its own, edge-triggered, and tokio watches that one: it is readable when something changed.
struct Edges {
    epoll: Epoll,
    /// The same epoll instance, watched.
    watched: AsyncFd<OwnedFd>,
}

impl Edges {
    fn of(fd: &OwnedFd, direction: EpollFlags) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(fd, EpollEvent::new(direction | EpollFlags::EPOLLET, 0))?;
        let watched = watch(epoll.0.try_clone()?, Interest::READABLE)?;
        Ok(Edges { epoll, watched })
    }

    /// Takes the edges that have gathered.
    fn take(&self) -> io::Result<()> {
        let mut events = [EpollEvent::empty()];
        match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Runs `operation` now and after each edge, until it does not say EAGAIN.
    fn poll<T>(
        &self,
        context: &mut Context<'_>,
        mut operation: impl FnMut() -> nix::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match operation() {
                Err(Errno::EAGAIN) => {}
                Err(Errno::EINTR) => continue,
                result => return Poll::Ready(result.map_err(io::Error::from)),
            }
            let mut guard = ready!(self.watched.poll_read_ready(context))?;
            self.take()?;
            guard.clear_ready();
        }
    }
}

/// A non-blocking descriptor as a stream. Owns the descriptor.
pub struct DeviceStream {
    readable: Edges,
    writable: Edges,
    fd: OwnedFd,
    /// Where short pieces are put together before they are written.
    gathered: Vec<u8>,
    /// Whether the other end has taken anything; a session's first words are the answer to its dial.
    has_taken: bool,
}

/// A virtio-serial port takes at most this at once, and tells the host of each write: many small ones are slow.
const PORT_WRITE: usize = 32 * 1024;

impl DeviceStream {
    /// Takes a descriptor that is already non-blocking.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let readable = Edges::of(&fd, EpollFlags::EPOLLIN)?;
        let writable = Edges::of(&fd, EpollFlags::EPOLLOUT)?;
        Ok(DeviceStream {
            readable,
            writable,
            fd,
            gathered: Vec::new(),
            has_taken: false,
        })
    }

    /// The same stream with another host at its other end, which has taken nothing yet.
    pub fn renewed(self) -> Self {
        DeviceStream {
            has_taken: false,
            ..self
        }
    }

    /// Answers when the other end appeared, vanished, or sent something since the last read.
    pub async fn wait_for_change(&self) -> crate::error::Result<()> {
        let changed = async {
            let mut guard = self.readable.watched.readable().await?;
            self.readable.take()?;
            guard.clear_ready();
            io::Result::Ok(())
        };
        crate::error::Context::context(changed.await, || "wait for the host")
    }
}

impl AsyncRead for DeviceStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // SAFETY: nothing is taken out of it. It is not filled with zeroes first: it may be large, and a port gives a page at a time.
        let space = unsafe { buffer.unfilled_mut() };
        let count = ready!(self.readable.poll(context, || {
            let (start, length) = (space.as_mut_ptr().cast(), space.len());
            // SAFETY: the kernel writes at most as much as there is space for.
            Errno::result(unsafe { libc::read(self.fd.as_raw_fd(), start, length) })
        }))? as usize;
        // SAFETY: the kernel has filled that many.
        unsafe { buffer.assume_init(count) };
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// write(2), but for a serial port that takes nothing because nobody is at its other end any more: who waits for room there waits for ever. Before the
/// other end has taken anything it may be that the kernel has passed on its first words, and does not know yet that it is there.
fn write_unless_hung_up(fd: &OwnedFd, bytes: &[u8], has_taken: bool) -> nix::Result<usize> {
    unless_hung_up(fd, has_taken, nix::unistd::write(fd, bytes))
}

fn unless_hung_up(
    fd: &OwnedFd,
    has_taken: bool,
    written: nix::Result<usize>,
) -> nix::Result<usize> {
    match written {
        Err(Errno::EAGAIN) if has_taken && is_hung_up(fd) => Err(Errno::EPIPE),
        result => result,
    }
}

fn is_hung_up(fd: &OwnedFd) -> bool {
    let mut watched = [PollFd::new(fd.as_fd(), PollFlags::empty())];
    let found = poll(&mut watched, PollTimeout::ZERO);
    let hung_up = |events: PollFlags| events.contains(PollFlags::POLLHUP);
    found.is_ok() && watched[0].revents().is_some_and(hung_up)
}

impl AsyncWrite for DeviceStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let (fd, has_taken) = (&this.fd, this.has_taken);
        let written = ready!(
            this.writable
                .poll(context, || write_unless_hung_up(fd, bytes, has_taken))
        );
        this.has_taken |= written.is_ok();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let DeviceStream {
            writable,
            fd,
            gathered,
            has_taken,
            ..
        } = self.get_mut();
        let has_taken = *has_taken;
        let mut slices = slices.iter().filter(|slice| !slice.is_empty());
        let first = slices.next().map_or(&[][..], |slice| slice);
        if let Some(passage) = Passage::at(first) {
            return writable.poll(context, || {
                unless_hung_up(fd, has_taken, passage.send(fd, first.len()))
            });
        }
        if first.len() >= PORT_WRITE {
            return writable.poll(context, || write_unless_hung_up(fd, first, has_taken));
        }
        gathered.clear();
        let rest = slices
            .map(|slice| &**slice)
            .take_while(|slice| Passage::at(slice).is_none());
        for piece in std::iter::once(first).chain(rest) {
            let space = PORT_WRITE - gathered.len();
            gathered.extend_from_slice(&piece[..piece.len().min(space)]);
        }
        writable.poll(context, || write_unless_hung_up(fd, gathered, has_taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The stream outlives the session, so there is nothing to shut down.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(flavor = "current_thread")]
    async fn carries_more_than_the_buffers_hold() {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let (left, right) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, flags).expect("a socket pair");
        let mut left = DeviceStream::new(left).expect("a stream");
        let mut right = DeviceStream::new(right).expect("a stream");
        let sent: Vec<u8> = (0..4_000_000u32)
            .map(|number| (number % 251) as u8)
            .collect();
        let mut received = vec![0; sent.len()];
        let (write, read) = tokio::join!(left.write_all(&sent), right.read_exact(&mut received));
        write.expect("to write");
        read.expect("to read");
        assert!(sent == received);
        drop(left);
        assert_eq!(right.read(&mut [0; 1]).await.expect("the end"), 0);
    }
}
