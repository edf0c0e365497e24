//! The kernel's device events, so that waiting for a device is waiting for an event.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
    socket, sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Context, Failure, Result};
use crate::watch::watch;

/// A subscription to the kernel's device events.
pub struct Uevents {
    socket: AsyncFd<OwnedFd>,
}

impl Uevents {
    /// Subscribes. Look for the device after this and not before, so that no event falls in between.
    pub fn subscribe() -> Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )
        .context(|| "open the kernel's event socket")?;
        const KERNEL_EVENTS: u32 = 1;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_EVENTS))
            .context(|| "bind the kernel's event socket")?;
        // The buffer may be smaller than the burst of a hot-plug only where this fails; an overrun is handled as an event.
        let _ = setsockopt(&socket, sockopt::RcvBuf, &(256 * 1024));
        let socket =
            watch(socket, Interest::READABLE).context(|| "watch the kernel's event socket")?;
        Ok(Uevents { socket })
    }

    /// Answers when at least one device event arrived (or was lost: then too it is time to look again).
    pub async fn next(&mut self) -> Result<()> {
        loop {
            let mut guard = self
                .socket
                .readable()
                .await
                .context(|| "wait for a device event")?;
            let mut arrived = false;
            let mut event = [0; 4096];
            loop {
                match recv(self.socket.as_raw_fd(), &mut event, MsgFlags::empty()) {
                    Ok(_) | Err(Errno::ENOBUFS) => arrived = true,
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => break,
                    Err(errno) => {
                        return Err(Failure::other(format!("read a device event: {errno}")));
                    }
                }
            }
            guard.clear_ready();
            if arrived {
                return Ok(());
            }
        }
    }
}

/// Looks until `find` finds something: now, and after every device event, at most for the time given.
pub async fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut find: impl FnMut() -> Option<T>,
) -> Result<T> {
    let mut events = Uevents::subscribe()?;
    let search = async {
        loop {
            if let Some(found) = find() {
                return Ok(found);
            }
            events.next().await?;
        }
    };
    tokio::time::timeout(limit, search)
        .await
        .unwrap_or_else(|_| {
            Err(Failure::other(format!(
                "{what}: not there after {} s",
                limit.as_secs()
            )))
        })
}
