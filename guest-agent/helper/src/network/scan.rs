//! What a network namespace holds, as far as a guest gets the same.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, bail};
use serde::Serialize;

use super::choice;
use super::link::{self, Link};
use super::message::{attribute, attributes, u32_at};
use super::netlink::Netlink;

/// The lengths of struct ifaddrmsg, rtmsg and ndmsg.
const ADDRESS: usize = 8;
const ROUTE: usize = 12;
const NEIGHBOUR: usize = 12;

/// RTNH_F_ONLINK: the gateway is reached directly, whatever the addresses say.
const ONLINK: u32 = 4;

#[derive(Serialize)]
pub struct Contents {
    links: Vec<LinkContents>,
    routes: Vec<Route>,
    neighbours: Vec<Neighbour>,
}

#[derive(Serialize)]
struct LinkContents {
    name: String,
    kind: String,
    mac: String,
    mtu: u32,
    index: u32,
    addresses: Vec<String>,
    up: bool,
    no_arp: bool,
}

/// Empty texts stand for what a route does not have.
#[derive(Serialize)]
struct Route {
    destination: String,
    gateway: String,
    interface: String,
    source: String,
    scope: u8,
    metric: u32,
    onlink: bool,
    family: u8,
}

#[derive(Serialize)]
struct Neighbour {
    address: String,
    mac: String,
    interface: String,
}

/// Lists the current network namespace.
pub fn scan() -> Result<Contents> {
    let mut netlink = Netlink::open()?;
    let mut addresses = addresses(&mut netlink)?;
    let links = link::all(&mut netlink)?
        .into_iter()
        .filter(|link| !link.loopback && !link.ours)
        .map(|link| {
            let addresses = addresses.remove(&link.index).unwrap_or_default();
            let addresses = addresses.into_iter().filter(|(address, _)| !is_automatic(*address, &link.mac)).collect();
            (link, addresses)
        })
        // Every namespace has the tunnel drivers' link (sit0 and such), which is nothing but a place to begin from.
        .filter(|(link, addresses): &(Link, Vec<_>)| !link.mac.is_empty() || link.up || !addresses.is_empty())
        .collect::<Vec<_>>();
    let links = choice::choose(links)?;
    let names = links.iter().map(|(link, _)| (link.index, link.name.clone())).collect::<BTreeMap<_, _>>();
    let routes =
        netlink.dump(libc::RTM_GETROUTE, &[0; ROUTE])?.iter().filter_map(|body| route(body, &names).transpose()).collect::<Result<_>>()?;
    let neighbours = netlink.dump(libc::RTM_GETNEIGH, &[0; NEIGHBOUR])?.iter().filter_map(|body| neighbour(body, &names)).collect();
    let links = links
        .into_iter()
        .map(|(link, addresses)| {
            let addresses = addresses.iter().map(|(address, length)| format!("{address}/{length}")).collect();
            let Link { name, kind, mac, mtu, index, up, no_arp, .. } = link;
            LinkContents { name, kind, mac, mtu, index, addresses, up, no_arp }
        })
        .collect();
    Ok(Contents { links, routes, neighbours })
}

/// The addresses of each link, with the lengths of their prefixes.
fn addresses(netlink: &mut Netlink) -> Result<BTreeMap<u32, Vec<(IpAddr, u8)>>> {
    let mut found = BTreeMap::<u32, Vec<_>>::new();
    for body in netlink.dump(libc::RTM_GETADDR, &[0; ADDRESS])? {
        // On a link with one peer, the address is the peer's, and the local one is ours.
        let value = attribute(&body, ADDRESS, libc::IFA_LOCAL).or_else(|| attribute(&body, ADDRESS, libc::IFA_ADDRESS));
        if let (Some(address), Some(length), Some(index)) = (value.and_then(ip), body.get(1), u32_at(&body, 4)) {
            found.entry(index).or_default().push((address, *length));
        }
    }
    Ok(found)
}

/// Whether an address is the one that IPv6 gives to every link by its MAC address: the guest makes it itself (RFC 4291, appendix A).
fn is_automatic(address: IpAddr, mac: &str) -> bool {
    let bytes = mac.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect::<Vec<_>>();
    let (IpAddr::V6(address), &[a, b, c, d, e, f]) = (address, bytes.as_slice()) else { return false };
    address.octets() == [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]
}

/// A route that somebody made: those that follow from addresses, the guest's kernel makes itself. An error where it cannot be
/// had in the guest, since packets must not take another way than they were meant to.
fn route(body: &[u8], names: &BTreeMap<u32, String>) -> Result<Option<Route>> {
    let Some(&[family, prefix, _, _, table, protocol, scope, kind]) = body.get(..8) else { return Ok(None) };
    let flags = u32_at(body, 8).unwrap_or(0);
    let value = |kind: u16| attribute(body, ROUTE, kind);
    let table = value(libc::RTA_TABLE).and_then(|value| u32_at(value, 0)).unwrap_or(u32::from(table));
    let followed = protocol == libc::RTPROT_KERNEL || flags & libc::RTM_F_CLONED != 0;
    let (true, false, Some(unspecified)) = (table == u32::from(libc::RT_TABLE_MAIN), followed, unspecified(family)) else {
        return Ok(None);
    };

    let destination = format!("{}/{prefix}", value(libc::RTA_DST).and_then(ip).unwrap_or(unspecified));
    if kind != libc::RTN_UNICAST {
        bail!("the route to {destination} is not one to a host or a network (its type is {kind}), which a guest cannot have");
    }
    if value(libc::RTA_MULTIPATH).is_some() {
        bail!("the route to {destination} has several ways, which a guest cannot have");
    }
    let Some(interface) = value(libc::RTA_OIF).and_then(|value| u32_at(value, 0)).and_then(|index| names.get(&index)) else {
        return Ok(None);
    };
    let address = |kind: u16| value(kind).and_then(ip).map_or(String::new(), |address| address.to_string());
    // A gateway of the other family follows its family.
    let via = value(libc::RTA_VIA).and_then(|value| ip(value.get(2..)?)).map_or(String::new(), |address| address.to_string());
    Ok(Some(Route {
        destination,
        gateway: if via.is_empty() { address(libc::RTA_GATEWAY) } else { via },
        interface: interface.clone(),
        source: address(libc::RTA_PREFSRC),
        scope,
        metric: value(libc::RTA_PRIORITY).and_then(|value| u32_at(value, 0)).unwrap_or(0),
        onlink: flags & ONLINK != 0,
        family: if unspecified.is_ipv4() { 4 } else { 6 },
    }))
}

/// A neighbour that somebody made; those that were learnt, the guest learns itself.
fn neighbour(body: &[u8], names: &BTreeMap<u32, String>) -> Option<Neighbour> {
    let state = u32_at(body, 8)? as u16;
    if state & libc::NUD_PERMANENT == 0 {
        return None;
    }
    let values = attributes(body, NEIGHBOUR).collect::<BTreeMap<_, _>>();
    let address = ip(values.get(&libc::NDA_DST)?)?;
    let mac = link::mac(values.get(&libc::NDA_LLADDR)?);
    Some(Neighbour { address: address.to_string(), mac, interface: names.get(&u32_at(body, 4)?)?.clone() })
}

fn unspecified(family: u8) -> Option<IpAddr> {
    match i32::from(family) {
        libc::AF_INET => Some(Ipv4Addr::UNSPECIFIED.into()),
        libc::AF_INET6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_that_every_link_has_is_known() {
        let automatic = |address: &str| is_automatic(address.parse().expect("an address"), "02:42:ac:11:00:02");
        assert!(automatic("fe80::42:acff:fe11:2"));
        assert!(!automatic("fe80::1"));
        assert!(!automatic("fd00::42:acff:fe11:2"));
        assert!(!automatic("172.17.0.2"));
        assert!(!is_automatic("fe80::".parse().expect("an address"), ""));
    }
}
