//! Unix sockets at paths of any length.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, sendmsg, socket,
};
use nix::sys::stat::{Mode, umask};

/// The longest path that a socket address holds, with its zero byte.
const ADDRESS_LENGTH: usize = 108;

/// Connects a stream socket to the one that listens at `path`.
pub fn dial(path: &Path) -> Result<OwnedFd> {
    dial_with(SockType::Stream, path)
}

/// Connects a socket of packets to the one that listens at `path`.
pub fn dial_for_packets(path: &Path) -> Result<OwnedFd> {
    dial_with(SockType::SeqPacket, path)
}

fn dial_with(kind: SockType, path: &Path) -> Result<OwnedFd> {
    let socket = open_socket(kind)?;
    with_address(path, |address| connect(socket.as_raw_fd(), address))
        .with_context(|| format!("cannot connect to the socket {}", path.display()))?;
    Ok(socket)
}

/// Sends a descriptor to who listens at `path`, with bytes that say what it is.
pub fn send(path: &Path, what: &[u8], descriptor: BorrowedFd<'_>) -> Result<()> {
    let connection = dial(path)?;
    let rights = [descriptor.as_raw_fd()];
    let extras = [ControlMessage::ScmRights(&rights)];
    sendmsg::<()>(connection.as_raw_fd(), &[IoSlice::new(what)], &extras, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Whether somebody listens at `path`; never waits. Who accepts finds a connection that ends at once.
pub fn is_served(path: &Path) -> Result<bool> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None);
    let socket = socket.context("cannot open a socket")?;
    match with_address(path, |address| connect(socket.as_raw_fd(), address)) {
        Ok(()) => Ok(true),
        Err(error) => match error.downcast_ref::<Errno>() {
            // The listener has many that it has not accepted yet.
            Some(Errno::EAGAIN) => Ok(true),
            Some(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
            _ => Err(error.context(format!("cannot connect to the socket {}", path.display()))),
        },
    }
}

/// Makes a stream socket at `path` that nobody but its owner may connect to, and listens there.
pub fn listen_at(path: &Path) -> Result<OwnedFd> {
    listen_with(SockType::Stream, path)
}

/// As `listen_at`, for packets.
pub fn listen_for_packets_at(path: &Path) -> Result<OwnedFd> {
    listen_with(SockType::SeqPacket, path)
}

fn listen_with(kind: SockType, path: &Path) -> Result<OwnedFd> {
    let socket = open_socket(kind)?;
    // The mode of the file comes from the umask alone: there is no moment at which others could connect.
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = with_address(path, |address| bind(socket.as_raw_fd(), address));
    umask(before);
    bound.with_context(|| format!("cannot make the socket {}", path.display()))?;
    let backlog = Backlog::new(128).context("cannot listen")?;
    listen(&socket, backlog).with_context(|| format!("cannot listen at {}", path.display()))?;
    Ok(socket)
}

fn open_socket(kind: SockType) -> Result<OwnedFd> {
    socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).context("cannot open a socket")
}

/// Calls with the address of `path`; a path too long for one is reached through a descriptor of its folder.
fn with_address(path: &Path, call: impl FnOnce(&UnixAddr) -> nix::Result<()>) -> Result<()> {
    if path.as_os_str().len() < ADDRESS_LENGTH {
        return Ok(call(&UnixAddr::new(path)?)?);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        anyhow::bail!("the path has no folder");
    };
    let folder = open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    ensure!(short.as_os_str().len() < ADDRESS_LENGTH, "the file's name is too long for a socket");
    Ok(call(&UnixAddr::new(&short)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_socket_at_a_long_path_is_reached_and_is_the_owners_alone() {
        let folder = std::env::temp_dir().join(format!("husk-helper-socket-{}", std::process::id())).join("d".repeat(150));
        std::fs::create_dir_all(&folder).expect("make the folder");
        let path = folder.join("control.sock");
        let listener = listen_at(&path);
        let mode = std::fs::metadata(&path).map(|data| data.mode() & 0o777);
        let client = dial(&path);
        std::fs::remove_dir_all(folder.parent().expect("a parent")).expect("clean up");
        listener.expect("listens");
        client.expect("connects");
        assert_eq!(mode.expect("there is a file"), 0o600);
    }

    #[test]
    fn a_socket_that_is_not_there_is_named() {
        let error = dial(Path::new("/nonexistent/husk.sock")).expect_err("nobody is there");
        assert_eq!(format!("{error:#}"), "cannot connect to the socket /nonexistent/husk.sock: ENOENT: No such file or directory");
    }
}
