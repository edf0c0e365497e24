//! Addresses, routes and neighbours, as the host names them and as the kernel takes them.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use nix::errno::Errno;

use super::message::{Message, family};
use super::socket::Route as Socket;
use crate::api;
use crate::error::{Context, Failure, Result};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
/// An address that the host has already must not be probed for.
const IFA_F_NODAD: u32 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

const ACK: u16 = libc::NLM_F_ACK as u16;
const REPLACE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;

/// An address with the length of its network's prefix: "172.17.0.2/16".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    pub address: IpAddr,
    pub length: u8,
}

impl FromStr for Prefix {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Failure::invalid(format!(
                "expected an address and a prefix length as in 172.17.0.2/16, got {text:?}"
            ))
        };
        let (address, length) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let length = length.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if length > longest {
            Err(wrong())
        } else {
            Ok(Prefix { address, length })
        }
    }
}

/// Gives a link an address, or takes it away.
pub fn set_address(socket: &mut Socket, index: u32, prefix: Prefix, wanted: bool) -> Result<()> {
    let Prefix { address, length } = prefix;
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let mut fixed = vec![family(address), length, 0, 0];
    fixed.extend(index.to_ne_bytes());
    let (kind, flags) = if wanted {
        (RTM_NEWADDR, ACK | REPLACE)
    } else {
        (RTM_DELADDR, ACK)
    };
    let mut message = Message::new(kind, flags, &fixed)
        .address(IFA_LOCAL, address)
        .address(IFA_ADDRESS, address);
    match address {
        IpAddr::V4(address) if length < 31 => {
            let broadcast = u32::from(address) | (u32::MAX >> length);
            message = message.address(IFA_BROADCAST, Ipv4Addr::from(broadcast).into());
        }
        IpAddr::V4(_) => {}
        IpAddr::V6(_) => message = message.number(IFA_FLAGS, IFA_F_NODAD),
    }
    let (verb, absent) = if wanted {
        ("add", None)
    } else {
        ("remove", Some(Errno::EADDRNOTAVAIL))
    };
    settle(socket, message, absent).context(|| format!("{verb} the address {address}/{length}"))
}

/// Adds a route over a link, or removes it.
pub fn set_route(socket: &mut Socket, index: u32, route: &api::Route, wanted: bool) -> Result<()> {
    let destination: Prefix = route.destination.parse().context(|| "destination")?;
    let scope = u8::try_from(route.scope)
        .map_err(|_| Failure::invalid(format!("scope: expected 0 to 255, got {}", route.scope)))?;
    // struct rtmsg: family, destination's and source's prefix length, tos, table, protocol, scope, type, flags.
    let mut fixed = vec![
        family(destination.address),
        destination.length,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_STATIC,
        scope,
        RTN_UNICAST,
    ];
    fixed.extend((if route.onlink { RTNH_F_ONLINK } else { 0 }).to_ne_bytes());
    let (kind, flags) = if wanted {
        (RTM_NEWROUTE, ACK | REPLACE)
    } else {
        (RTM_DELROUTE, ACK)
    };
    let mut message = Message::new(kind, flags, &fixed).number(RTA_OIF, index);
    if destination.length > 0 {
        message = message.address(RTA_DST, destination.address);
    }
    for (kind, text) in [(RTA_GATEWAY, &route.gateway), (RTA_PREFSRC, &route.source)] {
        if !text.is_empty() {
            message = message.address(kind, parse_address(text)?);
        }
    }
    if route.metric != 0 {
        message = message.number(RTA_PRIORITY, route.metric);
    }
    let (verb, absent) = if wanted {
        ("add", None)
    } else {
        ("remove", Some(Errno::ESRCH))
    };
    settle(socket, message, absent).context(|| {
        format!(
            "{verb} the route to {} via {:?}",
            route.destination, route.gateway
        )
    })
}

/// Adds a permanent neighbour of a link, or removes it.
pub fn set_neighbour(
    socket: &mut Socket,
    index: u32,
    neighbour: &api::Neighbour,
    wanted: bool,
) -> Result<()> {
    let address = parse_address(&neighbour.address)?;
    let mac = super::links::parse_mac(&neighbour.mac)?;
    // struct ndmsg: family, padding, index, state, flags, type.
    let mut fixed = vec![family(address), 0, 0, 0];
    fixed.extend(index.to_ne_bytes());
    fixed.extend(NUD_PERMANENT.to_ne_bytes());
    fixed.extend([0, 0]);
    let (kind, flags) = if wanted {
        (RTM_NEWNEIGH, ACK | REPLACE)
    } else {
        (RTM_DELNEIGH, ACK)
    };
    let message = Message::new(kind, flags, &fixed)
        .address(NDA_DST, address)
        .attribute(NDA_LLADDR, &mac);
    let (verb, absent) = if wanted {
        ("add", None)
    } else {
        ("remove", Some(Errno::ENOENT))
    };
    settle(socket, message, absent).context(|| format!("{verb} the neighbour {address}"))
}

fn parse_address(text: &str) -> Result<IpAddr> {
    text.parse()
        .map_err(|_| Failure::invalid(format!("expected an address, got {text:?}")))
}

/// Sends a change. What is to be removed may be gone already: with its link, or with an address that it needed.
fn settle(
    socket: &mut Socket,
    message: Message,
    absent: Option<Errno>,
) -> std::result::Result<(), super::socket::Refusal> {
    match socket.change(message) {
        Err(refusal) if absent == Some(refusal.errno) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        let prefix: Prefix = "fd00::2/64".parse().expect("a prefix");
        assert_eq!((prefix.address.is_ipv6(), prefix.length), (true, 64));
        for text in ["", "1.2.3.4", "1.2.3.4/33", "x/8", "1.2.3.4/-1"] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }
}
