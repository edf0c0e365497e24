//! Questions to the name server that an engine has in a network namespace: Docker's, at 127.0.0.11. The questions are a guest's, and opaque
//! here, as are the answers; they go to that address and no other.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, connect, recv, send, socket};

const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 11), 53);
/// The server's address as /proc/net/udp has it.
const LISTED: &str = "0B00007F:";

/// The longest message of the protocol (RFC 1035, 4.2.2).
pub const LONGEST: usize = 65535;
/// Each costs a socket.
pub const MOST_QUESTIONS: usize = 256;
/// Programs give up earlier.
const PATIENCE: Duration = Duration::from_secs(12);

/// Whether the current network namespace has such a server: a socket of its address, at whatever port, since rules lead there.
pub fn is_there() -> Result<bool> {
    let sockets = fs::read_to_string("/proc/self/net/udp").context("cannot list the network's sockets")?;
    Ok(sockets.lines().any(|line| line.split_whitespace().nth(1).is_some_and(|local| local.starts_with(LISTED))))
}

/// A question that has no answer yet.
pub struct Question {
    pub id: u64,
    pub until: Instant,
    socket: OwnedFd,
    over_tcp: bool,
    unsent: Vec<u8>,
    received: Vec<u8>,
}

impl Question {
    pub fn ask(id: u64, message: &[u8], over_tcp: bool) -> Result<Question> {
        ensure!(message.len() <= LONGEST, "a question of {} bytes", message.len());
        let what = "cannot ask the name server";
        let kind = if over_tcp { SockType::Stream } else { SockType::Datagram };
        let socket =
            socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None).context("cannot open a socket")?;
        match connect(socket.as_raw_fd(), &SockaddrIn::from(SERVER)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => return Err(error).context(what),
        }
        let length = (message.len() as u16).to_be_bytes();
        let unsent = if over_tcp { [&length[..], message].concat() } else { message.to_vec() };
        Ok(Question { id, until: Instant::now() + PATIENCE, socket, over_tcp, unsent, received: Vec::new() })
    }

    /// What to wait for.
    pub fn interest(&self) -> PollFlags {
        if self.unsent.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT }
    }

    /// Does what can be done after poll. Answers the answer, once it is there.
    pub fn advance(&mut self) -> Result<Option<Vec<u8>>> {
        let result = if self.unsent.is_empty() { self.receive() } else { self.send().map(|()| None) };
        match result {
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            other => other.context("the name server does not answer"),
        }
    }

    fn send(&mut self) -> nix::Result<()> {
        let sent = send(self.socket.as_raw_fd(), &self.unsent, MsgFlags::MSG_NOSIGNAL)?;
        self.unsent.drain(..sent);
        Ok(())
    }

    fn receive(&mut self) -> nix::Result<Option<Vec<u8>>> {
        let mut block = vec![0; LONGEST + 2];
        let length = recv(self.socket.as_raw_fd(), &mut block, MsgFlags::empty())?;
        if !self.over_tcp {
            block.truncate(length);
            return Ok(Some(block));
        }
        if length == 0 {
            return Err(Errno::ECONNRESET);
        }
        self.received.extend_from_slice(&block[..length]);
        let Some((&[high, low], rest)) = self.received.split_first_chunk() else { return Ok(None) };
        Ok(rest.get(..usize::from(u16::from_be_bytes([high, low]))).map(<[u8]>::to_vec))
    }
}

impl AsFd for Question {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
