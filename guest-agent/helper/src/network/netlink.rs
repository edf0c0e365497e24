//! A conversation with the kernel about the network namespace that the process was in when it began.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket};

use super::message::{Request, messages, u32_at};

/// Holds the largest packet that the kernel makes for a dump.
const PACKET: usize = 64 << 10;

/// How often a dump is repeated that was disturbed by a change.
const ATTEMPTS: usize = 10;

pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub fn open() -> Result<Netlink> {
        let what = "cannot ask the kernel about the network";
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute).context(what)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).context(what)?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Has the kernel do something. Its refusal is the error.
    pub fn ask(&mut self, mut request: Request) -> nix::Result<()> {
        request.flags |= libc::NLM_F_ACK as u16;
        self.exchange(&request, |_, _| {}).map(drop)
    }

    /// Everything that the kernel has of a kind: the bodies of the messages.
    pub fn dump(&mut self, kind: u16, fixed: &[u8]) -> Result<Vec<Vec<u8>>> {
        let request = Request::new(kind, libc::NLM_F_DUMP, fixed);
        for _ in 0..ATTEMPTS {
            let mut found = Vec::new();
            let consistent =
                self.exchange(&request, |_, body| found.push(body.to_vec())).context("the kernel does not list the network")?;
            if consistent {
                return Ok(found);
            }
        }
        anyhow::bail!("the network changes too fast to be listed")
    }

    /// Sends a request and takes the answer to its end. Answers whether it is consistent.
    fn exchange(&mut self, request: &Request, mut take: impl FnMut(u16, &[u8])) -> nix::Result<bool> {
        self.sequence += 1;
        send(self.socket.as_raw_fd(), &request.encode(self.sequence), MsgFlags::empty())?;
        let mut packet = vec![0; PACKET];
        let mut consistent = true;
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            for message in messages(&packet[..length]).filter(|message| message.sequence == self.sequence) {
                consistent &= i32::from(message.flags) & libc::NLM_F_DUMP_INTR == 0;
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(consistent),
                    libc::NLMSG_ERROR => {
                        // Zero is the acknowledgement.
                        let error = u32_at(message.body, 0).ok_or(Errno::EBADMSG)? as i32;
                        return if error == 0 { Ok(consistent) } else { Err(Errno::from_raw(-error)) };
                    }
                    _ => take(message.kind, message.body),
                }
            }
        }
    }
}
