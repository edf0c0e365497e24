//! Links: found by MAC address, named, sized, up.

use super::message::{Message, find_attribute, number};
use super::socket::{Refusal, Route};
use crate::error::{Context, Failure, Result};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFINFO: usize = 16;
const LOOPBACK: u32 = 1;

/// A network device of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mac: Vec<u8>,
    pub mtu: u32,
    pub up: bool,
    pub no_arp: bool,
}

/// struct ifinfomsg: family, padding, type, index, flags, which flags to change.
fn info(index: u32, flags: u32, change: u32) -> [u8; IFINFO] {
    let mut bytes = [0; IFINFO];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

/// All links.
pub fn list(route: &mut Route) -> Result<Vec<Link>> {
    let entries = route.dump(Message::new(
        RTM_GETLINK,
        libc::NLM_F_DUMP as u16,
        &info(0, 0, 0),
    ))?;
    Ok(entries.iter().filter_map(|body| parse(body)).collect())
}

fn parse(body: &[u8]) -> Option<Link> {
    let text = find_attribute(body, IFINFO, IFLA_IFNAME)?;
    let flags = number(body, 8)?;
    Some(Link {
        index: number(body, 4)?,
        name: String::from_utf8_lossy(text)
            .trim_end_matches('\0')
            .to_owned(),
        mac: find_attribute(body, IFINFO, IFLA_ADDRESS)
            .unwrap_or_default()
            .to_vec(),
        mtu: number(find_attribute(body, IFINFO, IFLA_MTU)?, 0)?,
        up: flags & libc::IFF_UP as u32 != 0,
        no_arp: flags & libc::IFF_NOARP as u32 != 0,
    })
}

/// Sets a link up or down.
pub fn set_up(route: &mut Route, index: u32, up: bool) -> Result<()> {
    set_flag(route, index, libc::IFF_UP, up)
        .context(|| if up { "set it up" } else { "set it down" })
}

/// Sets whether packets find their way on a link without hardware addresses.
pub fn set_no_arp(route: &mut Route, index: u32, no_arp: bool) -> Result<()> {
    set_flag(route, index, libc::IFF_NOARP, no_arp)
        .context(|| "set whether it has hardware addresses")
}

fn set_flag(
    route: &mut Route,
    index: u32,
    flag: libc::c_int,
    on: bool,
) -> std::result::Result<(), Refusal> {
    let flag = flag as u32;
    let fixed = info(index, if on { flag } else { 0 }, flag);
    route.change(Message::new(RTM_NEWLINK, libc::NLM_F_ACK as u16, &fixed))
}

/// Sets the loopback link up.
pub fn set_loopback_up(route: &mut Route) -> Result<()> {
    set_up(route, LOOPBACK, true).context(|| "interface lo")
}

/// Renames a link that is down.
pub fn rename(route: &mut Route, index: u32, name: &str) -> Result<()> {
    let mut value = name.as_bytes().to_vec();
    value.push(0);
    let message = Message::new(RTM_NEWLINK, libc::NLM_F_ACK as u16, &info(index, 0, 0))
        .attribute(IFLA_IFNAME, &value);
    route.change(message).context(|| format!("name it {name}"))
}

/// Sets the MAC address of a link that is down.
pub fn set_mac(route: &mut Route, index: u32, mac: &[u8]) -> Result<()> {
    let message = Message::new(RTM_NEWLINK, libc::NLM_F_ACK as u16, &info(index, 0, 0))
        .attribute(IFLA_ADDRESS, mac);
    route.change(message).context(|| "set the MAC address")
}

/// Sets a link's largest packet.
pub fn set_mtu(route: &mut Route, index: u32, mtu: u32) -> Result<()> {
    let message =
        Message::new(RTM_NEWLINK, libc::NLM_F_ACK as u16, &info(index, 0, 0)).number(IFLA_MTU, mtu);
    route
        .change(message)
        .context(|| format!("set the mtu {mtu}"))
}

/// The bytes of "02:42:ac:11:00:02".
pub fn parse_mac(text: &str) -> Result<Vec<u8>> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|part| {
            if part.len() == 2 {
                u8::from_str_radix(part, 16).ok()
            } else {
                None
            }
        })
        .collect();
    bytes.filter(|bytes| bytes.len() == 6).ok_or_else(|| {
        Failure::invalid(format!(
            "mac: expected six bytes as in 02:42:ac:11:00:02, got {text:?}"
        ))
    })
}

/// What the kernel takes as a link's name.
pub fn check_name(name: &str) -> Result<()> {
    let sane = !name.is_empty() && name.len() <= 15 && name != "." && name != "..";
    if sane
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':')
    {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "name: expected up to 15 characters without / and :, got {name:?}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses() {
        assert_eq!(
            parse_mac("02:42:ac:11:00:02"),
            Ok(vec![2, 0x42, 0xac, 0x11, 0, 2])
        );
        for text in ["", "02:42", "02:42:ac:11:00:zz", "2:42:ac:11:0:2"] {
            assert!(parse_mac(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(check_name("eth0.100"), Ok(()));
        for name in ["", "..", "a/b", "a:b", "a b", "sixteen-letters-"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_loopback_link_is_listed() {
        let links = list(&mut Route::open().expect("a socket")).expect("links");
        assert!(
            links
                .iter()
                .any(|link| link.name == "lo" && link.index == LOOPBACK)
        );
    }
}
