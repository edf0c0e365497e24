//! Hears of changes to a network namespace: to its links, addresses, routes and permanent neighbours.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};

const GROUPS: i32 = libc::RTMGRP_LINK
    | libc::RTMGRP_NEIGH
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_ROUTE;

pub struct Watch(OwnedFd);

impl Watch {
    /// Watches the current network namespace from now on.
    pub fn open() -> Result<Watch> {
        let what = "cannot watch the network";
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute).context(what)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS as u32)).context(what)?;
        Ok(Watch(socket))
    }

    /// Whether anything has changed since it was asked last; never waits.
    pub fn take(&self) -> Result<bool> {
        let mut changed = false;
        // What changed is not looked at: whoever is told looks at everything.
        let mut packet = [0; 4096];
        loop {
            match recv(self.0.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC) {
                // More has changed than the socket holds.
                Ok(_) | Err(Errno::ENOBUFS) => changed = true,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(changed),
                Err(error) => return Err(error).context("cannot watch the network"),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
