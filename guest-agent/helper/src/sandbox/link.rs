//! The conversation between the outer process and init: one message a packet, with a descriptor where the message needs one,
//! and with the sender's or a child's PID, which the kernel translates from init's PID namespace to the outer's.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixCredentials, recvmsg, sendmsg, setsockopt,
    socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::plan::Process;

/// The longest packet: what the kernel's default send buffer takes for certain.
const LONGEST_PACKET: usize = 128 << 10;

/// What the outer process asks of init.
#[derive(Deserialize, Serialize)]
pub struct Order {
    pub id: u64,
    pub task: Task,
}

#[derive(Deserialize, Serialize)]
pub enum Task {
    /// Attach the tree that comes with the packet.
    Mount {
        target: PathBuf,
        folder: bool,
    },
    Unmount {
        target: PathBuf,
    },
    Spawn(Process),
    /// Make a tap for QEMU.
    Tap {
        name: String,
    },
    Signal {
        name: String,
        signal: i32,
    },
}

/// What init tells the outer process.
#[derive(Deserialize, Serialize)]
pub enum Report {
    /// Init is in its namespaces. Its PID comes with the packet.
    Entered,
    /// A process runs its program. Its PID comes with the packet.
    Started {
        name: String,
    },
    Exited {
        name: String,
        code: Option<i32>,
        signal: Option<i32>,
    },
    /// The plan could not be carried out. Init ends.
    Fatal {
        message: String,
    },
    /// The answer to an order: nothing, or what went wrong.
    Answer {
        id: u64,
        error: Option<String>,
    },
}

/// A message that has arrived, and what came with it.
pub struct Packet<T> {
    pub message: T,
    pub descriptor: Option<OwnedFd>,
    /// The PID that the sender named, else its own.
    pub pid: i32,
}

pub struct Link(OwnedFd);

impl Link {
    /// Both ends: the outer's and init's.
    pub fn pair() -> Result<(Link, Link)> {
        let (one, other) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).context("cannot make a socket pair")?;
        for end in [&one, &other] {
            setsockopt(end, PassCred, &true).context("cannot ask for PIDs on a socket")?;
        }
        Ok((Link(one), Link(other)))
    }

    pub fn send<T: Serialize>(&self, message: &T, descriptor: Option<BorrowedFd<'_>>) -> Result<()> {
        let numbers = descriptor.map(|descriptor| [descriptor.as_raw_fd()]);
        let rights = numbers.as_ref().map(|numbers| ControlMessage::ScmRights(numbers));
        self.transmit(message, rights.as_slice())
    }

    /// Sends a message with the PID of the sender or of one of its children.
    pub fn send_with_pid<T: Serialize>(&self, message: &T, pid: i32) -> Result<()> {
        let credentials = UnixCredentials::from(libc::ucred { pid, uid: 0, gid: 0 });
        self.transmit(message, &[ControlMessage::ScmCredentials(&credentials)])
    }

    fn transmit<T: Serialize>(&self, message: &T, extras: &[ControlMessage<'_>]) -> Result<()> {
        let bytes = serde_json::to_vec(message).context("cannot encode a message")?;
        ensure!(bytes.len() <= LONGEST_PACKET, "the request is longer than {LONGEST_PACKET} bytes");
        loop {
            match sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&bytes)], extras, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("cannot send inside the sandbox's helper"),
            }
        }
    }

    /// Waits for the next message; `None` when the other end is gone.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<Option<Packet<T>>> {
        let mut bytes = vec![0; LONGEST_PACKET];
        let mut extras = nix::cmsg_space!([std::os::fd::RawFd; 1], UnixCredentials);
        let (length, descriptor, pid) = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut extras), MsgFlags::MSG_CMSG_CLOEXEC) {
                Ok(message) => {
                    let mut descriptor = None;
                    let mut pid = 0;
                    for extra in message.cmsgs().context("a packet's extras are cut")? {
                        match extra {
                            // SAFETY: the kernel has just made these descriptors for us.
                            ControlMessageOwned::ScmRights(numbers) => {
                                descriptor = numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }).next_back();
                            }
                            ControlMessageOwned::ScmCredentials(credentials) => pid = credentials.pid(),
                            _ => {}
                        }
                    }
                    break (message.bytes, descriptor, pid);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => return Ok(None),
                Err(error) => return Err(error).context("cannot receive inside the sandbox's helper"),
            }
        };
        if length == 0 {
            return Ok(None);
        }
        let message = serde_json::from_slice(&bytes[..length]).context("a packet cannot be understood")?;
        Ok(Some(Packet { message, descriptor, pid }))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
