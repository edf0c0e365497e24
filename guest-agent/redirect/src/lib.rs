//! Redirections of what programs send to addresses of the machine itself, by nf_tables: a connection to the address of a rule is one to
//! a local port. The table is owned by the socket that made it: it goes when that is closed, however its process ends, and nobody else
//! can change it. Needs Linux 5.12; of nft's rules, `nft list ruleset` shows these as those of the table's name. See nft(8) and the
//! kernel's include/uapi/linux/netfilter/nf_tables.h.

mod batch;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket};

/// What is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// What is sent to `address`, at `port` or at any, goes to the port `to` of the loopback link's own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub address: IpAddr,
    pub protocol: Protocol,
    pub port: Option<u16>,
    pub to: u16,
}

/// The rules, as long as it lives.
pub struct Redirection(#[expect(dead_code, reason = "the kernel keeps the table as long as this is open")] OwnedFd);

impl Redirection {
    /// Redirects by these rules in the current network namespace, in a table of that name. There must be rules.
    /// Fails where the namespace has such a table.
    pub fn begin(table: &str, rules: &[Rule]) -> io::Result<Redirection> {
        if rules.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let (bytes, last) = batch::encode(table, rules);
        send(socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut packet = vec![0; 64 << 10];
        loop {
            let length = match recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            // A refusal comes before the acknowledgement of what was sent last.
            for (sequence, error) in batch::answers(&packet[..length]) {
                if error != 0 {
                    return Err(io::Error::from_raw_os_error(error));
                }
                if sequence == last {
                    return Ok(Redirection(socket));
                }
            }
        }
    }
}
