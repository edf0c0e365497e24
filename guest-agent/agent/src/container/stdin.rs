//! A process's standard input, as a WriteStdin call fills it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::write;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Context, Failure, Result};

/// The writing end. Dropping a pipe is its end of file; a terminal has none (the user types it).
pub enum Sink {
    Pipe(AsyncFd<OwnedFd>),
    Terminal(Arc<AsyncFd<OwnedFd>>),
}

/// Whether there is still somebody who reads.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    All,
    /// Nobody reads any more.
    Closed,
}

impl Sink {
    fn fd(&self) -> &AsyncFd<OwnedFd> {
        match self {
            Sink::Pipe(fd) => fd,
            Sink::Terminal(fd) => fd,
        }
    }

    /// Whether it is a pty's master.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Sink::Terminal(_))
    }

    /// Writes all the bytes, as fast as they are read.
    pub async fn write_all(&self, mut bytes: &[u8]) -> Result<Written> {
        while !bytes.is_empty() {
            let mut guard = self
                .fd()
                .writable()
                .await
                .context(|| "wait for standard input")?;
            match write(self.fd().get_ref(), bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::EAGAIN) => guard.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE | Errno::EIO) => return Ok(Written::Closed),
                Err(errno) => {
                    return Err(Failure::other(format!("write to standard input: {errno}")));
                }
            }
        }
        Ok(Written::All)
    }

    /// Answers when nobody reads any more. A terminal always has a reader, until its process ends.
    pub async fn closed(&self) -> Result<()> {
        match self {
            Sink::Pipe(fd) => fd
                .ready(Interest::ERROR)
                .await
                .context(|| "watch standard input")
                .map(drop),
            Sink::Terminal(_) => std::future::pending().await,
        }
    }
}
