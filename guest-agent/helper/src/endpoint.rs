//! One end of a stream: how to read or write it without ever waiting, and without setting O_NONBLOCK on an open file that is shared with
//! others (the caller's shell, say).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{read, write};

/// What a pipe that polls as writable takes without waiting (PIPE_BUF).
const SURE_TO_FIT: usize = 4096;

pub struct Endpoint {
    descriptor: OwnedFd,
    way: Way,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Calls on sockets can be told not to wait.
    Socket,
    /// splice(2) can be told not to wait; reads and writes are on an open file of our own in non-blocking mode, where that could be had.
    Pipe { own: bool },
    /// An open file of our own in non-blocking mode.
    NonBlocking,
    /// Never makes anybody wait: a file, /dev/null.
    File,
    /// Waits where it must; used only after poll said that there is something to do.
    Patient,
}

impl Endpoint {
    /// An end for an inherited stream. Works on a duplicate, or on an open file of its own.
    pub fn of(stream: BorrowedFd<'_>, direction: OFlag) -> io::Result<Endpoint> {
        let kind = SFlag::from_bits_truncate(fstat(stream)?.st_mode) & SFlag::S_IFMT;
        // SAFETY: any descriptor will do.
        let terminal = unsafe { libc::isatty(stream.as_raw_fd()) } == 1;
        if kind == SFlag::S_IFSOCK {
            return Ok(Endpoint { descriptor: stream.try_clone_to_owned()?, way: Way::Socket });
        }
        if kind == SFlag::S_IFIFO || terminal {
            // Through /proc, the same pipe or terminal is opened anew: another open file, whose mode is ours alone.
            let path = format!("/proc/self/fd/{}", stream.as_raw_fd());
            let flags = direction | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
            return Ok(match open(path.as_str(), flags, Mode::empty()) {
                Ok(own) => Endpoint { descriptor: own, way: if terminal { Way::NonBlocking } else { Way::Pipe { own: true } } },
                // No /proc, or the terminal is another user's.
                Err(_) => Endpoint {
                    descriptor: stream.try_clone_to_owned()?,
                    way: if terminal { Way::Patient } else { Way::Pipe { own: false } },
                },
            });
        }
        let way = if kind == SFlag::S_IFREG || kind == SFlag::S_IFBLK || kind == SFlag::S_IFDIR { Way::File } else { Way::Patient };
        Ok(Endpoint { descriptor: stream.try_clone_to_owned()?, way })
    }

    /// An end for a connection of our own, which must be in non-blocking mode for the sake of splice.
    pub fn own_socket(socket: OwnedFd) -> Endpoint {
        Endpoint { descriptor: socket, way: Way::Socket }
    }

    pub fn is_pipe(&self) -> bool {
        matches!(self.way, Way::Pipe { .. })
    }

    /// Whether one call is all that may be made before poll is asked again.
    pub fn must_poll(&self) -> bool {
        matches!(self.way, Way::Patient | Way::Pipe { own: false })
    }

    /// Reads; EAGAIN where there is nothing yet.
    pub fn read(&self, block: &mut [u8]) -> nix::Result<usize> {
        match self.way {
            Way::Socket => recv(self.descriptor.as_raw_fd(), block, MsgFlags::MSG_DONTWAIT),
            _ => read(&self.descriptor, block),
        }
    }

    /// Writes; EAGAIN where nothing can be taken yet.
    pub fn write(&self, bytes: &[u8]) -> nix::Result<usize> {
        match self.way {
            Way::Socket => send(self.descriptor.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL),
            _ if self.must_poll() => write(&self.descriptor, &bytes[..bytes.len().min(SURE_TO_FIT)]),
            _ => write(&self.descriptor, bytes),
        }
    }
}

impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Whether an error only says that nothing could be done just now.
pub fn is_for_now(error: Errno) -> bool {
    matches!(error, Errno::EAGAIN | Errno::EINTR)
}
