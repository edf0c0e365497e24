//! Connections to the loopback addresses of a network namespace, carried to the guest: whoever dials localhost there (an engine that
//! forwards a port of a pod's) means the pod's programs, which are in the guest. A rule of nf_tables leads them all to a listener of ours.

use std::ffi::c_int;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use husk_redirect::{Protocol, Redirection, Rule};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::sockopt::{IpFreebind, Linger, TcpNoDelay};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, Shutdown, SockFlag, SockType, SockaddrIn6, SockaddrStorage, accept4, bind, getsockname, listen, recv,
    setsockopt, shutdown, socket,
};
use serde_json::json;

use crate::endpoint::Endpoint;
use crate::lines::send_all;
use crate::pump::Pump;
use crate::unix_socket;

/// The table's name in the namespace.
const TABLE: &str = "husk-forward";
/// SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST: where a redirected connection was going (linux/netfilter_ipv4.h).
const ORIGINAL_DESTINATION: c_int = 80;
/// Each costs descriptors and buffers.
const MOST_CONNECTIONS: usize = 256;
/// What the supervisor says once the guest's program has accepted.
const ACCEPTED: u8 = b'+';

pub struct Forward {
    listeners: Vec<OwnedFd>,
    connections: Vec<Connection>,
    /// Where the supervisor takes connections.
    socket: PathBuf,
    _redirection: Redirection,
}

/// A connection's two sides, and how far it has come.
struct Connection {
    caller: OwnedFd,
    guest: OwnedFd,
    state: State,
}

enum State {
    /// Until the guest's program has accepted.
    Dialling,
    /// One for each direction that has not ended: from the caller, from the guest.
    Joined([Option<Pump>; 2]),
    Over,
}

impl Forward {
    /// Takes all connections to the loopback addresses of the current network namespace from now on.
    pub fn begin(socket: &Path) -> Result<Forward> {
        let mut listeners = Vec::new();
        let mut rules = Vec::new();
        for address in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            let Some((listener, to)) = listen_at(address).with_context(|| format!("cannot listen at {address}"))? else { continue };
            listeners.push(listener);
            rules.push(Rule { address, protocol: Protocol::Tcp, port: None, to });
        }
        let redirection =
            Redirection::begin(TABLE, &rules).context("cannot redirect connections to localhost (does the kernel have nft_redir?)")?;
        Ok(Forward { listeners, connections: Vec::new(), socket: socket.to_owned(), _redirection: redirection })
    }

    /// What to wait for.
    pub fn interests(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let listeners = self.listeners.iter().map(|listener| (listener.as_fd(), PollFlags::POLLIN));
        listeners.chain(self.connections.iter().flat_map(Connection::interests))
    }

    /// Does what can be done after poll; `events` are in the order of `interests`.
    pub fn advance(&mut self, events: &[PollFlags]) {
        let (listeners, mut events) = events.split_at(self.listeners.len());
        for connection in &mut self.connections {
            let (own, rest) = events.split_at(connection.interests().len());
            events = rest;
            connection.advance(own);
        }
        self.connections.retain(|connection| !matches!(connection.state, State::Over));
        for (index, _) in listeners.iter().enumerate().filter(|(_, events)| !events.is_empty()) {
            if let Some(connection) = self.accept(index) {
                self.connections.push(connection);
            }
        }
    }

    /// A caller that cannot be served sees its connection reset; that is all that can be done for it.
    fn accept(&self, listener: usize) -> Option<Connection> {
        let number = accept4(self.listeners[listener].as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK).ok()?;
        // SAFETY: the kernel has just made this descriptor for us.
        let caller = unsafe { OwnedFd::from_raw_fd(number) };
        let dialled = if self.connections.len() < MOST_CONNECTIONS { self.dial(&caller) } else { None };
        let Some(guest) = dialled else {
            reset(&caller);
            return None;
        };
        Some(Connection { caller, guest, state: State::Dialling })
    }

    fn dial(&self, caller: &OwnedFd) -> Option<OwnedFd> {
        let destination = original_destination(caller).ok()?;
        setsockopt(caller, TcpNoDelay, &true).ok()?;
        let guest = unix_socket::dial(&self.socket).ok()?;
        let family = if destination.is_ipv4() { 4 } else { 6 };
        let line = format!("{}\n", json!({"port": destination.port(), "family": family}));
        send_all(guest.as_fd(), line.as_bytes()).ok()?;
        Some(guest)
    }
}

impl Connection {
    fn interests(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        match &self.state {
            // Nothing is wanted of the caller yet, but its end shows.
            State::Dialling => vec![(self.guest.as_fd(), PollFlags::POLLIN), (self.caller.as_fd(), PollFlags::empty())],
            State::Joined(pumps) => pumps.iter().flatten().flat_map(Pump::interests).collect(),
            State::Over => Vec::new(),
        }
    }

    fn advance(&mut self, mut events: &[PollFlags]) {
        match &mut self.state {
            State::Dialling if events.iter().all(PollFlags::is_empty) => {}
            State::Dialling => self.state = self.joined().unwrap_or(State::Over),
            State::Joined(pumps) => {
                for (pump, to) in pumps.iter_mut().zip([&self.guest, &self.caller]) {
                    let Some(running) = pump else { continue };
                    let (own, rest) = events.split_at(running.interest_count());
                    events = rest;
                    if !running.advance(own) {
                        // Where the other side is gone already, there is nothing to tell it.
                        let _ = shutdown(to.as_raw_fd(), Shutdown::Write);
                        *pump = None;
                    }
                }
                if pumps.iter().all(Option::is_none) {
                    self.state = State::Over;
                }
            }
            State::Over => {}
        }
    }

    /// What becomes of it by the supervisor's word; `None` where nobody in the guest listens, or the caller is gone.
    fn joined(&self) -> Option<State> {
        let mut word = [0];
        match recv(self.guest.as_raw_fd(), &mut word, MsgFlags::MSG_DONTWAIT) {
            Ok(1) if word == [ACCEPTED] => {}
            Err(Errno::EAGAIN) | Ok(_) | Err(_) => {
                reset(&self.caller);
                return None;
            }
        }
        let end = |socket: &OwnedFd| Some(Endpoint::own_socket(socket.try_clone().ok()?));
        Some(State::Joined([
            Some(Pump::new(end(&self.caller)?, end(&self.guest)?)),
            Some(Pump::new(end(&self.guest)?, end(&self.caller)?)),
        ]))
    }
}

/// Has the connection's end be a reset, as a refusal is as near as it can be.
fn reset(caller: &OwnedFd) {
    // A connection that is gone needs no end.
    let _ = setsockopt(caller, Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
}

/// A listener at a port of the kernel's choice; `None` where the namespace has no such address.
fn listen_at(address: IpAddr) -> Result<Option<(OwnedFd, u16)>> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = match socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None) {
        Err(Errno::EAFNOSUPPORT) => return Ok(None),
        other => other?,
    };
    // The loopback link may come up later.
    setsockopt(&socket, IpFreebind, &true)?;
    match bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, 0))) {
        Err(Errno::EADDRNOTAVAIL) => return Ok(None),
        other => other?,
    }
    listen(&socket, Backlog::new(128)?)?;
    let bound: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let port = bound.as_sockaddr_in().map(|bound| bound.port()).or(bound.as_sockaddr_in6().map(SockaddrIn6::port));
    Ok(Some((socket, port.context("the listener has no port")?)))
}

/// Where the caller wanted to go.
fn original_destination(caller: &OwnedFd) -> nix::Result<SocketAddr> {
    // SAFETY: zeroes are a valid sockaddr_in6, which has room for a sockaddr_in.
    let mut address: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    let bound: SockaddrStorage = getsockname(caller.as_raw_fd())?;
    let level = if bound.as_sockaddr_in().is_some() { libc::SOL_IP } else { libc::SOL_IPV6 };
    let mut length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address has room for `length` bytes and outlives the call.
    let result = unsafe { libc::getsockopt(caller.as_raw_fd(), level, ORIGINAL_DESTINATION, (&raw mut address).cast(), &raw mut length) };
    Errno::result(result)?;
    // The port is at the same place in both.
    let port = u16::from_be(address.sin6_port);
    let ip = if level == libc::SOL_IP { IpAddr::from(Ipv4Addr::LOCALHOST) } else { IpAddr::from(Ipv6Addr::LOCALHOST) };
    Ok(SocketAddr::new(ip, port))
}
