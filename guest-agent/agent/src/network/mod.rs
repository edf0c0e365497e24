//! The guest's network, made to be what the host says.
//!
//! What the last request named and the new one does not is taken away; what a container made itself (a bridge of docker's, its routes) is
//! not touched.

mod addresses;
mod links;
mod message;
mod socket;

use std::collections::HashMap;
use std::time::Duration;

use addresses::{Prefix, set_address, set_neighbour, set_route};
use links::Link;
use socket::Route as Socket;

use crate::api::{ConfigureNetworkRequest, Interface};
use crate::error::{Context, Failure, Result};
use crate::uevent;

/// A network device that was plugged in is there within this.
const LINK_LIMIT: Duration = Duration::from_secs(10);

/// The network as it was last asked for.
pub type Applied = tokio::sync::Mutex<ConfigureNetworkRequest>;

/// Sets the guest's loopback link up, which is there without anybody's asking.
pub fn set_loopback_up() -> Result<()> {
    links::set_loopback_up(&mut Socket::open()?)
}

/// Makes the guest's links, addresses, routes and neighbours those of the request; what is already so stays. When it fails it may be
/// called again.
pub async fn configure(applied: &Applied, request: ConfigureNetworkRequest) -> Result<()> {
    // One at a time, each seeing what the one before it did.
    let mut previous = applied.lock().await;
    let mut socket = Socket::open()?;
    let found = find_all(&request.interfaces).await?;
    set_names(&mut socket, &request.interfaces, &found)?;

    let indices: HashMap<&str, u32> = request
        .interfaces
        .iter()
        .zip(&found)
        .map(|(interface, link)| (interface.name.as_str(), link.index))
        .collect();
    remove_old(&mut socket, &previous, &request)?;
    for (interface, link) in request.interfaces.iter().zip(&found) {
        set_up_interface(&mut socket, interface, link)
            .context(|| format!("interface {}", interface.name))?;
    }
    let index = |name: &str| {
        indices.get(name).copied().ok_or_else(|| {
            Failure::invalid(format!("interface {name:?}: not in the list of interfaces"))
        })
    };
    // Routes by which gateways are reached come before those through the gateways.
    let (direct, through): (Vec<_>, Vec<_>) = request
        .routes
        .iter()
        .partition(|route| route.gateway.is_empty());
    for route in direct.into_iter().chain(through) {
        set_route(&mut socket, index(&route.interface)?, route, true)?;
    }
    for neighbour in &request.neighbours {
        set_neighbour(&mut socket, index(&neighbour.interface)?, neighbour, true)?;
    }
    *previous = as_it_is_now(request);
    Ok(())
}

/// The request, with the devices known by the addresses that they have now.
fn as_it_is_now(mut request: ConfigureNetworkRequest) -> ConfigureNetworkRequest {
    for interface in &mut request.interfaces {
        if !interface.new_mac.is_empty() {
            interface.mac = std::mem::take(&mut interface.new_mac);
        }
    }
    request
}

/// The guest's device of each interface, by its MAC address, once all are there.
async fn find_all(interfaces: &[Interface]) -> Result<Vec<Link>> {
    let mut macs = Vec::new();
    for interface in interfaces {
        links::check_name(&interface.name)?;
        macs.push(links::parse_mac(&interface.mac)?);
    }
    let what = format!(
        "the network devices {}",
        interfaces
            .iter()
            .map(|one| one.mac.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    );
    let mut socket = Socket::open()?;
    uevent::wait_for(&what, LINK_LIMIT, || {
        let links = links::list(&mut socket).ok()?;
        macs.iter()
            .map(|mac| links.iter().find(|link| link.mac == *mac).cloned())
            .collect()
    })
    .await
}

/// Gives the links their names. Those that change theirs step aside first, since one may want another's.
fn set_names(socket: &mut Socket, interfaces: &[Interface], found: &[Link]) -> Result<()> {
    let wrong: Vec<(&Interface, &Link)> = interfaces
        .iter()
        .zip(found)
        .filter(|(interface, link)| interface.name != link.name)
        .collect();
    for link in links::list(socket)? {
        let moves = wrong.iter().any(|(_, wrong)| wrong.index == link.index);
        let in_the_way = wrong
            .iter()
            .any(|(interface, _)| interface.name == link.name);
        if moves || in_the_way {
            links::set_up(socket, link.index, false)
                .and_then(|()| links::rename(socket, link.index, &format!("husk{}", link.index)))
                .context(|| format!("interface {}", link.name))?;
        }
    }
    for (interface, link) in wrong {
        links::rename(socket, link.index, &interface.name)
            .context(|| format!("interface {}", interface.name))?;
    }
    Ok(())
}

fn set_up_interface(socket: &mut Socket, interface: &Interface, link: &Link) -> Result<()> {
    if interface.mtu != 0 && interface.mtu != link.mtu {
        links::set_mtu(socket, link.index, interface.mtu)?;
    }
    if interface.no_arp != link.no_arp {
        links::set_no_arp(socket, link.index, interface.no_arp)?;
    }
    if !interface.new_mac.is_empty() {
        // Down meanwhile: what it has of the old address, such as its link-local one, goes with that.
        let mac = links::parse_mac(&interface.new_mac)?;
        links::set_up(socket, link.index, false)?;
        links::set_mac(socket, link.index, &mac)?;
    }
    links::set_up(socket, link.index, true)?;
    for address in &interface.addresses {
        set_address(socket, link.index, address.parse()?, true)?;
    }
    Ok(())
}

/// Takes away what was asked for before and is no longer. Links that are gone took everything with them.
fn remove_old(
    socket: &mut Socket,
    previous: &ConfigureNetworkRequest,
    request: &ConfigureNetworkRequest,
) -> Result<()> {
    let links = links::list(socket)?;
    let by_mac = |mac: &str| {
        links::parse_mac(mac)
            .ok()
            .and_then(|mac| links.iter().find(|link| link.mac == mac))
    };
    let by_old_name = |name: &str| {
        previous
            .interfaces
            .iter()
            .find(|old| old.name == name)
            .and_then(|old| by_mac(&old.mac))
    };
    for neighbour in previous
        .neighbours
        .iter()
        .filter(|old| !request.neighbours.contains(old))
    {
        if let Some(link) = by_old_name(&neighbour.interface) {
            set_neighbour(socket, link.index, neighbour, false)?;
        }
    }
    for route in previous
        .routes
        .iter()
        .filter(|old| !request.routes.contains(old))
    {
        if let Some(link) = by_old_name(&route.interface) {
            set_route(socket, link.index, route, false)?;
        }
    }
    for old in &previous.interfaces {
        let Some(link) = by_mac(&old.mac) else {
            continue;
        };
        let new = request.interfaces.iter().find(|new| new.mac == old.mac);
        let kept = new.map(|new| new.addresses.as_slice()).unwrap_or_default();
        for address in old
            .addresses
            .iter()
            .filter(|address| !kept.contains(address))
        {
            let prefix: Prefix = address.parse()?;
            set_address(socket, link.index, prefix, false)
                .context(|| format!("interface {}", old.name))?;
        }
        if new.is_none() {
            links::set_up(socket, link.index, false)
                .context(|| format!("interface {}", old.name))?;
        }
    }
    Ok(())
}
