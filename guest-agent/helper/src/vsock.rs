//! `husk-helper vsock`: joins the guest, which dials a vsock port of the host, with the one client of a unix socket: Node has no vsock.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, VsockAddr, accept4, bind, getpeername, listen, socket};

use crate::endpoint::Endpoint;
use crate::flags::Flags;
use crate::pump::Pump;

/// Listens on `--port` for the guest whose context id is `--cid`, and joins it with the client of the socket `--fd`. Ends when
/// either side does.
pub fn main(words: &[OsString]) -> Result<ExitCode> {
    let flags = Flags::parse(words, &["--port", "--cid", "--fd"], &[])?;
    let clients: RawFd = flags.number("--fd")?;
    ensure!(clients > 2, "--fd: {clients} is a standard stream");
    // SAFETY: the descriptor is this program's by contract, and nothing else here uses it.
    let clients = unsafe { OwnedFd::from_raw_fd(clients) };
    let guest = accept_guest(flags.number("--port")?, flags.number("--cid")?)?;
    let client = accept(&clients).context("cannot accept the supervisor")?;
    drop(clients);
    join(guest, client)?;
    Ok(ExitCode::SUCCESS)
}

/// Waits for the guest. Whoever else dials, another guest or a program of the host, is refused.
fn accept_guest(port: u32, cid: u32) -> Result<OwnedFd> {
    let listener = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).context("this host has no vsock")?;
    bind(listener.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_ANY, port))
        .with_context(|| format!("cannot take the vsock port {port}"))?;
    listen(&listener, Backlog::new(4).context("cannot listen")?).with_context(|| format!("cannot listen on the vsock port {port}"))?;
    loop {
        let guest = accept(&listener).with_context(|| format!("cannot accept the guest on the vsock port {port}"))?;
        let peer: VsockAddr = getpeername(guest.as_raw_fd()).context("cannot tell who dialled")?;
        if peer.cid() == cid {
            return Ok(guest);
        }
    }
}

fn accept(listener: &OwnedFd) -> Result<OwnedFd> {
    loop {
        match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            // SAFETY: the kernel has just made this descriptor for us.
            Ok(number) => return Ok(unsafe { OwnedFd::from_raw_fd(number) }),
            // The peer may have given up already.
            Err(Errno::EINTR | Errno::ECONNABORTED) => {}
            // A listening socket that is shared with Node is in non-blocking mode.
            Err(Errno::EAGAIN) => {
                poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Moves bytes both ways until either side ends.
fn join(guest: OwnedFd, client: OwnedFd) -> Result<()> {
    let end = |socket: &OwnedFd| -> Result<Endpoint> {
        let socket = socket.try_clone().context("cannot duplicate a connection")?;
        fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("cannot set up a connection")?;
        Ok(Endpoint::own_socket(socket))
    };
    let mut pumps = [Pump::new(end(&guest)?, end(&client)?), Pump::new(end(&client)?, end(&guest)?)];
    loop {
        let mut watched =
            pumps.iter().flat_map(Pump::interests).map(|(descriptor, events)| PollFd::new(descriptor, events)).collect::<Vec<_>>();
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error).context("cannot wait for data"),
        }
        let events = watched.iter().map(|descriptor| descriptor.revents().unwrap_or(PollFlags::all())).collect::<Vec<_>>();
        let mut events = events.as_slice();
        let goes_on = pumps.iter_mut().fold(true, |goes_on, pump| {
            let (own, rest) = events.split_at(pump.interest_count());
            events = rest;
            pump.advance(own) && goes_on
        });
        if !goes_on {
            // What a side said last is passed on as far as the other takes it.
            pumps.iter_mut().for_each(|pump| {
                pump.flush();
            });
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_go_both_ways_until_one_side_ends() {
        let (mut guest, guest_side) = UnixStream::pair().expect("a pair");
        let (mut client, client_side) = UnixStream::pair().expect("a pair");
        let relay = std::thread::spawn(move || join(guest_side.into(), client_side.into()));

        let mut block = [0; 5];
        client.write_all(b"hello").expect("write");
        guest.read_exact(&mut block).expect("read");
        assert_eq!(&block, b"hello");

        // What one side said last still arrives.
        let long = vec![b'x'; 3 << 20];
        let writer = std::thread::spawn({
            let long = long.clone();
            move || {
                guest.write_all(&long).expect("write");
                guest.shutdown(Shutdown::Write).expect("shut down");
                guest
            }
        });
        let mut received = Vec::new();
        client.read_to_end(&mut received).expect("read");
        assert!(received == long);
        relay.join().expect("the relay ends").expect("without an error");
        drop(writer.join().expect("the writer ends"));
    }
}
