//! A process's output, as the stream of a ReadOutput call.

use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use nix::errno::Errno;
use prost::bytes::{BufMut, BytesMut};
use tokio::io::unix::AsyncFd;
use tonic::Status;

use crate::api::ReadOutputResponse;

/// The most bytes of one message: large enough that bulk output costs few messages, small enough that others get their turn.
/// With the frame's and the message's headers it fills four writes of a virtio-serial port.
const CHUNK: usize = 128 * 1024 - 64;
/// What is left of a buffer is used up to here, before a new one is made.
const SMALLEST_READ: usize = 16 * 1024;

enum Source {
    Pipe(AsyncFd<OwnedFd>),
    Terminal(Arc<AsyncFd<OwnedFd>>),
}

/// The reading end of an output. Dropping it closes it: whoever writes then gets SIGPIPE.
pub struct Output {
    source: Source,
    buffer: BytesMut,
}

impl Output {
    /// The output at the reading end of a pipe.
    pub fn pipe(reader: AsyncFd<OwnedFd>) -> Self {
        Output {
            source: Source::Pipe(reader),
            buffer: BytesMut::new(),
        }
    }

    /// The output at the master of a pty.
    pub fn terminal(master: Arc<AsyncFd<OwnedFd>>) -> Self {
        Output {
            source: Source::Terminal(master),
            buffer: BytesMut::new(),
        }
    }
}

impl Stream for Output {
    type Item = Result<ReadOutputResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Output { source, buffer } = self.get_mut();
        let (fd, is_terminal) = match source {
            Source::Pipe(fd) => (&*fd, false),
            Source::Terminal(fd) => (&**fd, true),
        };
        loop {
            let mut guard = match ready!(fd.poll_read_ready(context)) {
                Ok(guard) => guard,
                Err(error) => {
                    return Poll::Ready(Some(Err(Status::internal(format!(
                        "watch the output: {error}"
                    )))));
                }
            };
            match read(fd.get_ref(), buffer) {
                Ok(0) => return Poll::Ready(None),
                // The last program that had the terminal open is gone, and all that it wrote was read.
                Err(Errno::EIO) if is_terminal => return Poll::Ready(None),
                Ok(_) => {
                    return Poll::Ready(Some(Ok(ReadOutputResponse {
                        data: buffer.split().freeze(),
                        process_ended: false,
                    })));
                }
                Err(Errno::EAGAIN) => guard.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    return Poll::Ready(Some(Err(Status::internal(format!(
                        "read the output: {errno}"
                    )))));
                }
            }
        }
    }
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
