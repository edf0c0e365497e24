//! A process's output, on its way into the answer to a ReadOutput call.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use prost::bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::unix::AsyncFd;
use tonic::Status;

use crate::channel::{PASSAGE, Passage, Passing};
use crate::patience::Patience;

/// The most that is read at once: with the frame's and the message's headers it fills a write of a virtio-serial port. A pipe that has as much in it
/// has it passed on unread.
const CHUNK: usize = 32 * 1024 - 64;
/// The pipe of bulk output has at most one page in so many of what its container may have: what is in it counts as the container's memory.
const SHARE_OF_MEMORY: usize = 64;
/// As much a pipe has by itself (pipe(7)).
const USUAL_ROOM: usize = 64 * 1024;
/// What is left of a buffer is used up to here, before a new one is made.
const SMALLEST_READ: usize = 4 * 1024;

enum Source {
    Pipe(AsyncFd<OwnedFd>),
    Terminal(Arc<AsyncFd<OwnedFd>>),
}

/// The reading end of an output. Dropping it closes it: whoever writes then gets SIGPIPE.
pub struct Output {
    source: Source,
    /// How much its pipe may hold.
    room: usize,
    buffer: BytesMut,
    /// Made for the first bulk.
    passage: Option<Arc<Passage>>,
    /// While there is bulk.
    patience: Option<Patience>,
}

/// What an output gave.
pub enum Piece {
    Read(Bytes),
    Passing(Passing),
}

impl Output {
    /// The output at the reading end of a pipe, which is made so large once there is bulk in it.
    pub fn pipe(reader: AsyncFd<OwnedFd>, room: usize) -> Self {
        Output::of(Source::Pipe(reader), room)
    }

    /// The output at the master of a pty.
    pub fn terminal(master: Arc<AsyncFd<OwnedFd>>) -> Self {
        Output::of(Source::Terminal(master), 0)
    }

    fn of(source: Source, room: usize) -> Self {
        Output {
            source,
            room,
            buffer: BytesMut::new(),
            passage: None,
            patience: None,
        }
    }

    /// Forgets what was on its way when the session was lost, which is nobody's any more.
    pub fn forget_passing(&mut self) {
        self.passage = None;
    }
}

impl Stream for Output {
    type Item = Result<Piece, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Output {
            source,
            room,
            buffer,
            passage,
            patience,
        } = self.get_mut();
        let (fd, is_terminal) = match source {
            Source::Pipe(fd) => (&*fd, false),
            Source::Terminal(fd) => (&**fd, true),
        };
        loop {
            let mut guard = match ready!(fd.poll_read_ready(context)) {
                Ok(guard) => guard,
                Err(error) => return failed("watch", error),
            };
            let outcome = if !is_terminal && available(fd.get_ref()) >= CHUNK {
                let passage = match passage {
                    Some(passage) => passage,
                    None => match Passage::new() {
                        Ok(new) => {
                            // One of the usual size works as well.
                            let _ = fcntl(fd.get_ref(), FcntlArg::F_SETPIPE_SZ(*room as i32));
                            passage.insert(new)
                        }
                        Err(error) => return failed("make a pipe for", error),
                    },
                };
                let passing = ready!(passage.poll_fill(context, fd.get_ref()));
                patience.get_or_insert_with(Patience::begin);
                passing.map(Piece::Passing)
            } else {
                match read(fd.get_ref(), buffer) {
                    Ok(0) => return Poll::Ready(None),
                    // The last program that had the terminal open is gone, and all that it wrote was read.
                    Err(Errno::EIO) if is_terminal => return Poll::Ready(None),
                    result => result.map(|_| {
                        *patience = None;
                        Piece::Read(buffer.split().freeze())
                    }),
                }
            };
            match outcome {
                Ok(piece) => return Poll::Ready(Some(Ok(piece))),
                Err(Errno::EAGAIN) => guard.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(errno) => return failed("read", errno),
            }
        }
    }
}

/// How much an output's pipe may hold where its container may have `limit` bytes of memory.
pub fn room_within(limit: Option<i64>) -> usize {
    let limit = limit.and_then(|bytes| usize::try_from(bytes).ok());
    limit.filter(|&bytes| bytes > 0).map_or(PASSAGE, |bytes| {
        (bytes / SHARE_OF_MEMORY).clamp(USUAL_ROOM, PASSAGE)
    })
}

fn failed<T>(what: &str, error: impl std::fmt::Display) -> Poll<Option<Result<T, Status>>> {
    let message = format!("{what} the output: {error}");
    Poll::Ready(Some(Err(Status::internal(message))))
}

/// How many bytes a pipe has in it; one that does not say is read.
fn available(fd: &OwnedFd) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: the kernel writes an int.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &mut count) };
    if result == 0 { count as usize } else { 0 }
}

/// Appends what can be read to the empty buffer.
fn read(fd: &OwnedFd, buffer: &mut BytesMut) -> nix::Result<usize> {
    if buffer.capacity() < SMALLEST_READ {
        *buffer = BytesMut::with_capacity(CHUNK);
    }
    let space = buffer.chunk_mut();
    let (start, length) = (space.as_mut_ptr(), space.len().min(CHUNK));
    // SAFETY: the kernel writes at most `length` bytes into the buffer's own unused space.
    let count =
        Errno::result(unsafe { libc::read(fd.as_raw_fd(), start.cast(), length) })? as usize;
    // SAFETY: the kernel has filled that many.
    unsafe { buffer.advance_mut(count) };
    Ok(count)
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        match self {
            Piece::Read(bytes) => bytes.remaining(),
            Piece::Passing(passing) => passing.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Piece::Read(bytes) => bytes.chunk(),
            Piece::Passing(passing) => passing.chunk(),
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        match self {
            Piece::Read(bytes) => bytes.chunks_vectored(slices),
            Piece::Passing(passing) => passing.chunks_vectored(slices),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Piece::Read(bytes) => bytes.advance(count),
            Piece::Passing(passing) => passing.advance(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_a_small_part_of_its_memory_in_its_outputs_pipes() {
        const MIB: i64 = 1 << 20;
        let rooms = [
            None,
            Some(-1),
            Some(0),
            Some(i64::MAX),
            Some(64 * MIB),
            Some(6 * MIB),
            Some(MIB),
        ]
        .map(room_within);
        assert_eq!(
            rooms,
            [
                PASSAGE,
                PASSAGE,
                PASSAGE,
                PASSAGE,
                1 << 20,
                6 << 14,
                64 << 10
            ]
        );
    }
}
