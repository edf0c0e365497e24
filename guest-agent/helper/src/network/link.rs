//! Network interfaces, by netlink.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::message::{Request, attribute, attributes, text, u16_at, u32_at};
use super::netlink::Netlink;

/// The length of struct ifinfomsg.
const FIXED: usize = 16;

/// IFLA_INET6_ADDR_GEN_MODE, and its value "none".
const ADDRESS_GENERATION: u16 = 8;
const NO_ADDRESSES: u8 = 1;

/// IFLA_TUN_OWNER of IFLA_INFO_DATA, for links of the kind "tun".
const TUN_OWNER: u16 = 1;

/// Kinds of links that are on top of something: of another link, or of a namespace's own way out. Where that is in another namespace, they say which
/// (IFLA_LINK_NETNSID).
const STACKED: [&str; 11] =
    ["erspan", "geneve", "gretap", "ip6gretap", "ipvlan", "ipvtap", "macsec", "macvlan", "macvtap", "vlan", "vxlan"];

/// What the taps that husk makes are marked with (IFLA_IFALIAS).
pub const MARK: &str = "husk tap";

pub struct Link {
    pub index: u32,
    pub name: String,
    /// "veth", "bridge" and so on; empty for a device.
    pub kind: String,
    /// Empty where the link is not of the Ethernet kind.
    pub mac: String,
    pub mtu: u32,
    pub up: bool,
    pub loopback: bool,
    /// Made by husk.
    pub ours: bool,
    /// The user whom a tap belongs to.
    pub owner: Option<u32>,
    /// Packets find their way on it without hardware addresses: nobody answers who has one (IFF_NOARP).
    pub no_arp: bool,
    /// The bridge, bond or VRF whose part it is.
    pub master: Option<u32>,
    /// It is on top of something of its own namespace.
    pub stacked: bool,
}

impl Link {
    /// Whether it is a tap of that user's; None: one that husk has made, whoever has it.
    pub fn is_of(&self, owner: Option<u32>) -> bool {
        if owner.is_none() { self.ours } else { self.owner == owner }
    }
}

/// All links of the namespace.
pub fn all(netlink: &mut Netlink) -> Result<Vec<Link>> {
    Ok(netlink.dump(libc::RTM_GETLINK, &header(0, 0, 0))?.iter().filter_map(|body| parse(body)).collect())
}

/// The link of that name; `None` where there is none.
pub fn named(netlink: &mut Netlink, name: &str) -> Result<Option<Link>> {
    Ok(all(netlink)?.into_iter().find(|link| link.name == name))
}

/// Marks a tap as husk's.
pub fn mark(netlink: &mut Netlink, index: u32) -> nix::Result<()> {
    let mut request = Request::new(libc::RTM_NEWLINK, 0, &header(index, 0, 0));
    request.text(libc::IFLA_IFALIAS, MARK);
    netlink.ask(request)
}

/// Moves a link to another network namespace, down and without addresses. Where it is in that one already, nothing happens.
pub fn move_to(netlink: &mut Netlink, index: u32, namespace: impl AsFd) -> nix::Result<()> {
    let mut request = Request::new(libc::RTM_NEWLINK, 0, &header(index, 0, 0));
    request.number(libc::IFLA_NET_NS_FD, namespace.as_fd().as_raw_fd() as u32);
    netlink.ask(request)
}

/// Prepares a tap: its size of packets, no IPv6 addresses of its own; then sets it up.
pub fn set_up(netlink: &mut Netlink, index: u32, mtu: u32) -> Result<()> {
    // The host must not be heard on the guest's cable. A kernel without IPv6 has nothing to switch off, and refuses the whole request.
    match netlink.ask(without_addresses(index)) {
        Ok(()) | Err(Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP) => {}
        Err(error) => return Err(error).context("cannot keep IPv6 addresses off the tap"),
    }
    let up = libc::IFF_UP as u32;
    let mut request = Request::new(libc::RTM_NEWLINK, 0, &header(index, up, up));
    request.number(libc::IFLA_MTU, mtu);
    netlink.ask(request).context("cannot set the tap up")
}

fn without_addresses(index: u32) -> Request {
    let mut request = Request::new(libc::RTM_NEWLINK, 0, &header(index, 0, 0));
    let families = request.open(libc::IFLA_AF_SPEC);
    let family = request.open(libc::AF_INET6 as u16);
    request.attribute(ADDRESS_GENERATION, &[NO_ADDRESSES]);
    request.close(family);
    request.close(families);
    request
}

/// Removes a link. One that is gone already is no error.
pub fn remove(netlink: &mut Netlink, index: u32) -> nix::Result<()> {
    match netlink.ask(Request::new(libc::RTM_DELLINK, 0, &header(index, 0, 0))) {
        Err(Errno::ENODEV) => Ok(()),
        other => other,
    }
}

/// struct ifinfomsg
fn header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), change.to_ne_bytes()].concat()
}

fn parse(body: &[u8]) -> Option<Link> {
    let flags = u32_at(body, 8)?;
    let ethernet = u16_at(body, 2)? == libc::ARPHRD_ETHER;
    let mut link = Link {
        index: u32_at(body, 4)?,
        name: String::new(),
        kind: String::new(),
        mac: String::new(),
        mtu: 0,
        up: flags & libc::IFF_UP as u32 != 0,
        loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        ours: false,
        owner: None,
        no_arp: flags & libc::IFF_NOARP as u32 != 0,
        master: None,
        stacked: false,
    };
    let mut elsewhere = false;
    for (kind, value) in attributes(body, FIXED) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_MTU => link.mtu = u32_at(value, 0)?,
            libc::IFLA_ADDRESS if ethernet => link.mac = mac(value),
            libc::IFLA_IFALIAS => link.ours = text(value) == MARK,
            libc::IFLA_MASTER => link.master = u32_at(value, 0),
            libc::IFLA_LINK_NETNSID => elsewhere = true,
            libc::IFLA_LINKINFO => {
                link.kind = attribute(value, 0, libc::IFLA_INFO_KIND).map_or(String::new(), text);
                let data = attribute(value, 0, libc::IFLA_INFO_DATA).filter(|_| link.kind == "tun");
                link.owner = data.and_then(|data| attribute(data, 0, TUN_OWNER)).and_then(|owner| u32_at(owner, 0));
            }
            _ => {}
        }
    }
    link.stacked = !elsewhere && STACKED.contains(&link.kind.as_str());
    Some(link)
}

/// "02:42:ac:11:00:02"
pub fn mac(value: &[u8]) -> String {
    value.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}
