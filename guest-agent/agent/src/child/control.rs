//! The child's end of the socket to the agent: blocking, since nothing else happens here.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::sys::stat::Mode;
use serde::de::DeserializeOwned;

use super::wire::{self, Plan, ToAgent, ToChild};
use crate::error::{Context, Failure, Result};

/// The socket to the agent.
pub struct Control {
    socket: UnixStream,
}

impl Control {
    /// Takes the socket away from standard input, which becomes /dev/null.
    pub fn from_stdin() -> Result<Self> {
        let fd = fcntl(std::io::stdin(), FcntlArg::F_DUPFD_CLOEXEC(3))
            .context(|| "take the control socket")?;
        // SAFETY: F_DUPFD_CLOEXEC has just made it.
        let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
            .context(|| "open /dev/null")?;
        nix::unistd::dup2_stdin(null).context(|| "replace standard input")?;
        Ok(Control { socket })
    }

    /// The plan, and the descriptors that came along: the standard streams, or none where there is a terminal.
    pub fn receive_plan(&mut self) -> Result<(Plan, Vec<OwnedFd>)> {
        let mut header = [0; 4];
        let mut space = nix::cmsg_space!([i32; 3]);
        let (count, descriptors) = {
            let mut slices = [IoSliceMut::new(&mut header)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_WAITALL;
            let message = recvmsg::<()>(
                self.socket.as_raw_fd(),
                &mut slices,
                Some(&mut space),
                flags,
            )
            .context(|| "receive the plan")?;
            (
                message.bytes,
                descriptors_of(message.cmsgs().context(|| "receive descriptors")?),
            )
        };
        if count != header.len() {
            return Err(Failure::other(
                "the agent went away before it sent the plan",
            ));
        }
        let mut plan: Plan = self.receive_body(header)?;
        plan.spec = self.receive_text()?;
        plan.process = self.receive_text()?;
        Ok((plan, descriptors))
    }

    fn receive_body<T: DeserializeOwned>(&mut self, header: [u8; 4]) -> Result<T> {
        wire::decode(&self.receive_bytes(header)?)
    }

    fn receive_text(&mut self) -> Result<String> {
        let header = self.receive_header()?;
        String::from_utf8(self.receive_bytes(header)?).context(|| "decode a message")
    }

    fn receive_header(&mut self) -> Result<[u8; 4]> {
        let mut header = [0; 4];
        self.socket
            .read_exact(&mut header)
            .context(|| "receive from the agent")?;
        Ok(header)
    }

    fn receive_bytes(&mut self, header: [u8; 4]) -> Result<Vec<u8>> {
        let mut bytes = vec![0; wire::decode_length(header)?];
        self.socket
            .read_exact(&mut bytes)
            .context(|| "receive from the agent")?;
        Ok(bytes)
    }

    /// Waits for the agent's next word, and takes no other than the expected one.
    pub fn expect(&mut self, expected: ToChild) -> Result<()> {
        let header = self.receive_header()?;
        let message: ToChild = self.receive_body(header)?;
        if message != expected {
            return Err(Failure::other(format!(
                "the agent said {message:?}, expected {expected:?}"
            )));
        }
        Ok(())
    }

    /// Sends the message.
    pub fn send(&mut self, message: &ToAgent) -> Result<()> {
        self.socket
            .write_all(&wire::encode(message)?)
            .context(|| "send to the agent")
    }

    /// Sends the message and a descriptor with it.
    pub fn send_with(&mut self, message: &ToAgent, descriptor: &OwnedFd) -> Result<()> {
        let bytes = wire::encode(message)?;
        let descriptors = [descriptor.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let count = loop {
            match sendmsg::<()>(
                self.socket.as_raw_fd(),
                &[IoSlice::new(&bytes)],
                &rights,
                MsgFlags::empty(),
                None,
            ) {
                Err(Errno::EINTR) => {}
                result => break result.context(|| "send to the agent")?,
            }
        };
        self.socket
            .write_all(&bytes[count..])
            .context(|| "send to the agent")
    }
}

fn descriptors_of<'a>(messages: impl Iterator<Item = ControlMessageOwned> + 'a) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    for message in messages {
        if let ControlMessageOwned::ScmRights(received) = message {
            // SAFETY: the kernel has just made them for us.
            descriptors.extend(
                received
                    .into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    descriptors
}
