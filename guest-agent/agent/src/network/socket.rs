//! The rtnetlink socket. Its requests are answered at once by the kernel, so it is blocking.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

use super::message::{self, Message};
use crate::error::{Context, Failure, Result};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The text in the kernel's answer to a wrong request.
const NLMSGERR_ATTR_MSG: u16 = 1;
const NETLINK_EXT_ACK: libc::c_int = 11;

/// A connection to the kernel's routing tables.
pub struct Route {
    socket: OwnedFd,
    sequence: u32,
}

impl Route {
    /// A new connection.
    pub fn open() -> Result<Self> {
        let what = || "open an rtnetlink socket";
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )
        .context(what)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).context(what)?;
        let on: libc::c_int = 1;
        // SAFETY: the option's value is an int. Without it the kernel gives a number and no words, which will do.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_NETLINK,
                NETLINK_EXT_ACK,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as u32,
            )
        };
        Ok(Route {
            socket,
            sequence: 0,
        })
    }

    /// Sends a change, and answers whether the kernel made it.
    pub fn change(&mut self, message: Message) -> std::result::Result<(), Refusal> {
        self.request(message, |_| {})
    }

    /// Asks for a table; the bodies of its entries.
    pub fn dump(&mut self, message: Message) -> Result<Vec<Vec<u8>>> {
        let mut entries = Vec::new();
        self.request(message, |body| entries.push(body.to_vec()))
            .map_err(|refusal| Failure::other(refusal.to_string()))?;
        Ok(entries)
    }

    fn request(
        &mut self,
        message: Message,
        mut entry: impl FnMut(&[u8]),
    ) -> std::result::Result<(), Refusal> {
        self.sequence += 1;
        send(
            self.socket.as_raw_fd(),
            &message.finish(self.sequence),
            MsgFlags::empty(),
        )?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for answer in message::answers(&buffer[..count]) {
                if answer.sequence != self.sequence {
                    continue;
                }
                match answer.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return Refusal::read(answer.body),
                    _ => entry(answer.body),
                }
            }
        }
    }
}

/// The kernel's no.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub errno: Errno,
    words: String,
}

impl Refusal {
    /// struct nlmsgerr: the error, the request's header, and attributes.
    fn read(body: &[u8]) -> std::result::Result<(), Refusal> {
        let code = message::number(body, 0).unwrap_or_default() as i32;
        if code == 0 {
            return Ok(());
        }
        let request = message::number(body, 4).unwrap_or_default() as usize;
        // The request comes along whole, unless the answer says otherwise; its attributes come after it.
        let words = [request, message::HEADER].into_iter().find_map(|length| {
            let text = message::find_attribute(body, 4 + length, NLMSGERR_ATTR_MSG)?;
            std::str::from_utf8(text).ok()
        });
        Err(Refusal {
            errno: Errno::from_raw(-code),
            words: words.unwrap_or_default().trim_end_matches('\0').to_owned(),
        })
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Refusal {
            errno,
            words: String::new(),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.errno)?;
        if self.words.is_empty() {
            Ok(())
        } else {
            write!(formatter, " ({})", self.words)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_is_no_refusal() {
        assert_eq!(Refusal::read(&[0; 20]), Ok(()));
        let refusal = Refusal::read(&(-17i32).to_ne_bytes()).expect_err("a refusal");
        assert_eq!(refusal.errno, Errno::EEXIST);
        assert_eq!(refusal.to_string(), "EEXIST: File exists");
    }
}
