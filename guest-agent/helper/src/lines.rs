//! JSON messages, one a line, over a stream socket.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use serde::Serialize;

/// The longest message that is taken: what is longer is an attack or a defect.
pub const LONGEST_MESSAGE: usize = 1 << 20;

/// One end of a conversation.
pub struct Lines {
    socket: OwnedFd,
    /// What was received and not yet taken; complete lines first.
    received: Vec<u8>,
    /// How much of `received` is known to hold no line end.
    searched: usize,
}

impl Lines {
    pub fn new(socket: OwnedFd) -> Self {
        Lines { socket, received: Vec::new(), searched: 0 }
    }

    /// The socket, for a conversation that goes on in another way.
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Sends one message, waiting for the peer to take it. A peer that is gone is an error, never a signal.
    pub fn send<T: Serialize>(&self, message: &T) -> Result<()> {
        let mut line = serde_json::to_vec(message).context("cannot encode a message")?;
        line.push(b'\n');
        send_all(self.socket.as_fd(), &line).context("cannot send a message")
    }

    /// Takes in what has arrived, without waiting. Answers false at the end of the conversation.
    pub fn receive(&mut self) -> Result<bool> {
        let mut block = [0; 16 << 10];
        loop {
            match recv(self.socket.as_raw_fd(), &mut block, MsgFlags::MSG_DONTWAIT) {
                Ok(0) | Err(Errno::ECONNRESET) => return Ok(false),
                Ok(length) => self.received.extend_from_slice(&block[..length]),
                Err(Errno::EAGAIN) => return Ok(true),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("cannot receive a message"),
            }
            if self.received.len() > LONGEST_MESSAGE && !self.received.contains(&b'\n') {
                bail!("a message is longer than {LONGEST_MESSAGE} bytes");
            }
            if self.received.len() > 2 * LONGEST_MESSAGE {
                return Ok(true);
            }
        }
    }

    /// The next complete line that has been received, without its end.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let end = self.searched + self.received[self.searched..].iter().position(|&byte| byte == b'\n')?;
        let mut line = self.received.drain(..=end).collect::<Vec<_>>();
        line.pop();
        self.searched = 0;
        Some(line)
    }
}

impl AsFd for Lines {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends all bytes on a stream socket, whether or not it is in non-blocking mode.
pub fn send_all(socket: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => match poll(&mut [PollFd::new(socket, PollFlags::POLLOUT)], PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn pair() -> (UnixStream, Lines) {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        (ours, Lines::new(theirs.into()))
    }

    /// Waits for the next line; `None` at the end of the conversation.
    fn wait(lines: &mut Lines) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(line) = lines.take() {
                return Ok(Some(line));
            }
            poll(&mut [PollFd::new(lines.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
            if !lines.receive()? {
                return Ok(lines.take());
            }
        }
    }

    #[test]
    fn lines_split_over_packets_arrive_whole_and_in_order() {
        let (mut peer, mut lines) = pair();
        peer.write_all(b"{\"a\":").expect("write");
        assert!(lines.receive().expect("receive"));
        assert_eq!(lines.take(), None);
        peer.write_all(b"1}\n\nlast").expect("write");
        drop(peer);
        assert_eq!(wait(&mut lines).expect("wait"), Some(b"{\"a\":1}".to_vec()));
        assert_eq!(wait(&mut lines).expect("wait"), Some(Vec::new()));
        // What has no line end is no message.
        assert_eq!(wait(&mut lines).expect("wait"), None);
    }

    #[test]
    fn a_message_without_end_is_refused() {
        let (mut peer, mut lines) = pair();
        let writer = std::thread::spawn(move || {
            let block = vec![b'x'; 64 << 10];
            while peer.write_all(&block).is_ok() {}
        });
        let error = wait(&mut lines).expect_err("the message has no end");
        assert_eq!(error.to_string(), "a message is longer than 1048576 bytes");
        drop(lines);
        writer.join().expect("the writer ends when nobody reads");
    }

    #[test]
    fn sending_to_a_peer_that_is_gone_is_an_error() {
        let (peer, lines) = pair();
        drop(peer);
        let error = lines.send(&serde_json::json!({"op": "x"})).expect_err("nobody is there");
        assert_eq!(format!("{error:#}"), "cannot send a message: Broken pipe (os error 32)");
    }
}
