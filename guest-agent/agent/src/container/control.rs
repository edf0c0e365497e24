//! The agent's end of the socket to a process that is being set up.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::child::wire::{self, Plan, ToAgent};
use crate::error::{Context, Failure, Result};

/// The longest message of a child: a failure.
const MAX_ANSWER: usize = 64 * 1024;

/// The socket to a child.
pub struct Control {
    socket: UnixStream,
    /// The last descriptor that came along with a message.
    descriptor: Option<OwnedFd>,
}

impl Control {
    /// Takes one end of a socket pair.
    pub fn new(socket: StdUnixStream) -> Result<Self> {
        socket
            .set_nonblocking(true)
            .context(|| "make the control socket non-blocking")?;
        let socket = UnixStream::from_std(socket).context(|| "watch the control socket")?;
        Ok(Control {
            socket,
            descriptor: None,
        })
    }

    /// Sends a message.
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<()> {
        self.send_bytes(&wire::encode(message)?, &[]).await
    }

    /// Sends a plan, the descriptors with its first bytes.
    pub async fn send_plan(&mut self, plan: &Plan, descriptors: &[OwnedFd]) -> Result<()> {
        self.send_bytes(&wire::encode_plan(plan)?, descriptors)
            .await
    }

    async fn send_bytes(&mut self, bytes: &[u8], descriptors: &[OwnedFd]) -> Result<()> {
        let numbers: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let (header, body) = bytes.split_at(4);
        let send = || {
            let rights = [ControlMessage::ScmRights(&numbers)];
            let rights = if numbers.is_empty() {
                &rights[..0]
            } else {
                &rights[..]
            };
            let fd = self.socket.as_raw_fd();
            sendmsg::<()>(
                fd,
                &[IoSlice::new(header)],
                rights,
                MsgFlags::MSG_NOSIGNAL,
                None,
            )
            .map_err(io::Error::from)
        };
        let sent = self
            .socket
            .async_io(Interest::WRITABLE, send)
            .await
            .context(|| "send to the set-up process")?;
        if sent != header.len() {
            return Err(Failure::other(
                "send to the set-up process: the socket takes not even four bytes",
            ));
        }
        self.socket
            .write_all(body)
            .await
            .context(|| "send to the set-up process")
    }

    /// The child's next message; None: all its holders closed the socket.
    pub async fn receive(&mut self) -> Result<Option<ToAgent>> {
        let mut header = [0; 4];
        if !self.fill(&mut header).await? {
            return Ok(None);
        }
        let length = wire::decode_length(header)?;
        if length > MAX_ANSWER {
            return Err(Failure::other(format!(
                "the set-up process sent {length} bytes"
            )));
        }
        let mut json = vec![0; length];
        if !self.fill(&mut json).await? {
            return Ok(None);
        }
        wire::decode(&json).map(Some)
    }

    /// The descriptor that came along, if one did.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    /// Fills the buffer; false: the stream ended first.
    async fn fill(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let mut filled = 0;
        while filled < buffer.len() {
            let rest = &mut buffer[filled..];
            let receive = || receive_some(self.socket.as_raw_fd(), rest);
            let (count, descriptor) = match self.socket.async_io(Interest::READABLE, receive).await
            {
                // The child ended with our words unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
                result => result.context(|| "receive from the set-up process")?,
            };
            if count == 0 {
                return Ok(false);
            }
            self.descriptor = descriptor.or(self.descriptor.take());
            filled += count;
        }
        Ok(true)
    }
}

fn receive_some(fd: i32, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(
        fd,
        &mut slices,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut descriptor = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            for number in received {
                // SAFETY: the kernel has just made it for us.
                descriptor = Some(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    Ok((message.bytes, descriptor))
}
