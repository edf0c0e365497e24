//! Taps: the host's end of a guest's network card.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;

use super::netlink::Netlink;
use super::{link, traffic};

/// Makes the tap `tap`, which the user `owner` may open by its name, and joins it to `link` in both directions. On failure,
/// nothing is left.
pub fn attach(link: &str, tap: &str, owner: u32, vnet_header: bool) -> Result<()> {
    let mut netlink = Netlink::open()?;
    let peer = link::named(&mut netlink, link)?.with_context(|| format!("there is no link {link}"))?;
    ensure!(!peer.mac.is_empty(), "{link} is no Ethernet link, which is all that a guest can have");
    ensure!(
        link::named(&mut netlink, tap)?.is_none(),
        "the network namespace has a link {tap} already: its links are those of another virtual machine, and two cannot share them"
    );

    make(tap, owner, vnet_header)?;
    let index = link::named(&mut netlink, tap)?.with_context(|| format!("the tap {tap} is gone at once"))?.index;
    join(&mut netlink, &peer, tap, index).or_else(|error| {
        // With the tap goes what was joined to it on its own side.
        link::remove(&mut netlink, index).with_context(|| format!("{error:#}; then {tap} could not be removed"))?;
        Err(error)
    })
}

fn join(netlink: &mut Netlink, peer: &link::Link, tap: &str, index: u32) -> Result<()> {
    link::set_up(netlink, index, peer.mtu).with_context(|| format!("tap {tap}"))?;
    traffic::redirect(netlink, index, peer.index).with_context(|| format!("tap {tap}"))?;
    traffic::redirect(netlink, peer.index, index).with_context(|| format!("link {}", peer.name))
}

/// Undoes `attach`. What is gone already is no error.
pub fn detach(link: &str, tap: &str) -> Result<()> {
    let mut netlink = Netlink::open()?;
    if let Some(tap) = link::named(&mut netlink, tap)?.filter(|tap| tap.ours) {
        link::remove(&mut netlink, tap.index).with_context(|| format!("cannot remove the tap {}", tap.name))?;
    }
    if let Some(link) = link::named(&mut netlink, link)? {
        traffic::stop(&mut netlink, link.index).with_context(|| format!("cannot give the packets of {} back to the host", link.name))?;
    }
    Ok(())
}

/// Makes a tap that stays when this process ends.
fn make(name: &str, owner: u32, vnet_header: bool) -> Result<()> {
    let what = || format!("cannot make the tap {name}");
    let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun").context("cannot open /dev/net/tun")?;
    // SAFETY: zeroes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    ensure!(!name.is_empty() && name.len() < request.ifr_name.len(), "{name} is no name for a link");
    for (target, source) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *target = source as libc::c_char;
    }
    let header = if vnet_header { libc::IFF_VNET_HDR } else { 0 };
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | header) as libc::c_short;
    // SAFETY: the request lives through the call; so below, where only numbers are passed.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &request) }).with_context(what)?;
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETOWNER, libc::c_ulong::from(owner)) }).with_context(what)?;
    // From here on it stays; before, it goes when the device is closed.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETPERSIST, 1 as libc::c_ulong) }).with_context(what)?;
    Ok(())
}
