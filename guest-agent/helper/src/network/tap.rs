//! Taps: the host's end of a guest's network card. QEMU opens its own in its own network namespace, which nobody else is in; then it is moved to where the link is
//! that it is joined to. What a program has opened stays open when the tap is moved.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, anyhow, ensure};
use nix::errno::Errno;

use super::link::{self, Link};
use super::netlink::Netlink;
use super::{Namespace, traffic};

/// Makes the tap `name` in the current network namespace, with virtio-net's headers. The user `owner` may open it by its name, and it stays when this process ends.
pub fn make(name: &str, owner: u32) -> Result<()> {
    let what = || format!("cannot make the tap {name}");
    let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun").context("cannot open /dev/net/tun")?;
    // SAFETY: zeroes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    ensure!(!name.is_empty() && name.len() < request.ifr_name.len(), "{name} is no name for a link");
    for (target, source) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *target = source as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL) as libc::c_short;
    // SAFETY: the request lives through the call; so below, where only numbers are passed.
    match Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &request) }) {
        Err(Errno::EBUSY) => return Err(taken(name)),
        made => made.with_context(what)?,
    };
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETOWNER, libc::c_ulong::from(owner)) }).with_context(what)?;
    // From here on it stays; before, it goes when the device is closed.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETPERSIST, 1 as libc::c_ulong) }).with_context(what)?;
    Ok(())
}

fn taken(tap: &str) -> anyhow::Error {
    anyhow!("the network namespace has a link {tap} already: its links are those of another virtual machine, and two cannot share them")
}

/// Moves the tap `tap` from the namespace `from` to `to`, which may be the same, and joins it to `link` there in both directions. On failure, nothing is left in `to`.
pub fn attach(from: &Namespace, to: &Namespace, link: &str, tap: &str) -> Result<()> {
    let mut netlink = to.netlink()?;
    let peer = link::named(&mut netlink, link)?.with_context(|| format!("there is no link {link}"))?;
    ensure!(!peer.mac.is_empty(), "{link} is no Ethernet link, which is all that a guest can have");

    let mut source = from.netlink()?;
    let index = link::named(&mut source, tap)?.with_context(|| format!("there is no tap {tap}"))?.index;
    // First: whoever sees it where it comes to shall know whose it is.
    link::mark(&mut source, index).with_context(|| format!("cannot mark the tap {tap}"))?;
    match link::move_to(&mut source, index, to.file()) {
        Err(Errno::EEXIST) => return Err(taken(tap)),
        moved => moved.with_context(|| format!("cannot move the tap {tap} to {}", to.path().display()))?,
    }
    // It may have another number there.
    let index = link::named(&mut netlink, tap)?.with_context(|| format!("the tap {tap} is gone at once"))?.index;
    join(&mut netlink, &peer, tap, index).or_else(|error| {
        // With the tap goes what was joined to it on its own side.
        link::remove(&mut netlink, index).with_context(|| format!("{error:#}; then {tap} could not be removed"))?;
        Err(error)
    })
}

fn join(netlink: &mut Netlink, peer: &Link, tap: &str, index: u32) -> Result<()> {
    link::set_up(netlink, index, peer.mtu).with_context(|| format!("tap {tap}"))?;
    traffic::redirect(netlink, index, peer.index).with_context(|| format!("tap {tap}"))?;
    traffic::redirect(netlink, peer.index, index).with_context(|| format!("link {}", peer.name))
}

/// Removes the tap `tap` of the user `owner` (None: any of husk's) from the namespace, where it is there.
pub fn remove(namespace: &Namespace, tap: &str, owner: Option<u32>) -> Result<()> {
    let mut netlink = namespace.netlink()?;
    if let Some(tap) = link::named(&mut netlink, tap)?.filter(|tap| tap.is_of(owner)) {
        link::remove(&mut netlink, tap.index).with_context(|| format!("cannot remove the tap {}", tap.name))?;
    }
    Ok(())
}

/// Undoes `attach`. What is gone already is no error, and what is another virtual machine's stays.
pub fn detach(namespace: &Namespace, link: &str, tap: &str, owner: Option<u32>) -> Result<()> {
    remove(namespace, tap, owner)?;
    let mut netlink = namespace.netlink()?;
    let links = link::all(&mut netlink)?;
    if links.iter().any(|link| link.ours && !link.is_of(owner)) {
        return Ok(());
    }
    if let Some(link) = links.iter().find(|found| found.name == link) {
        traffic::stop(&mut netlink, link.index).with_context(|| format!("cannot give the packets of {} back to the host", link.name))?;
    }
    Ok(())
}
