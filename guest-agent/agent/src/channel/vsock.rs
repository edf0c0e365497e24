//! vsock: the agent dials the host.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, VsockAddr, connect, getsockopt, socket, sockopt,
};
use tokio::io::Interest;

use super::DeviceStream;
use crate::console;
use crate::error::{Context, Failure, Result};
use crate::watch::watch;

/// VMADDR_CID_HOST. Only the host can be at the other end: nobody else is ever connected to.
const HOST: u32 = 2;
/// No event says that the host listens (or that a restored machine's host does), so the agent tries again after this.
const PAUSE: Duration = Duration::from_millis(50);

/// Connects to a port of the host, as often as it takes.
pub async fn dial(port: u32) -> DeviceStream {
    let mut last = None;
    loop {
        match attempt(port).await {
            Ok(stream) => return stream,
            Err(failure) => {
                if last.as_ref() != Some(&failure) {
                    console::log(format_args!("vsock: {failure}; trying again"));
                    last = Some(failure);
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn attempt(port: u32) -> Result<DeviceStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Vsock, SockType::Stream, flags, None)
        .context(|| "open a vsock socket")?;
    let fd = match connect(fd.as_raw_fd(), &VsockAddr::new(HOST, port)) {
        Ok(()) => fd,
        Err(Errno::EINPROGRESS) => finish(fd, port).await?,
        Err(errno) => {
            return Err(Failure::other(format!(
                "connect to the host's port {port}: {errno}"
            )));
        }
    };
    DeviceStream::new(fd).context(|| "watch the vsock socket")
}

async fn finish(fd: OwnedFd, port: u32) -> Result<OwnedFd> {
    let fd = watch(fd, Interest::WRITABLE).context(|| "watch the vsock socket")?;
    loop {
        let mut guard = fd.writable().await.context(|| "watch the vsock socket")?;
        let mut poll = [nix::poll::PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
        if nix::poll::poll(&mut poll, nix::poll::PollTimeout::ZERO).is_ok_and(|count| count > 0) {
            break;
        }
        guard.clear_ready();
    }
    match getsockopt(&fd, sockopt::SocketError) {
        Ok(0) => Ok(fd.into_inner()),
        Ok(error) => Err(Failure::other(format!(
            "connect to the host's port {port}: {}",
            Errno::from_raw(error)
        ))),
        Err(errno) => Err(Failure::other(format!(
            "connect to the host's port {port}: {errno}"
        ))),
    }
}
