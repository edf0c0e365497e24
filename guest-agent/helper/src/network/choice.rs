//! Which links of a namespace become a guest's network cards.

use anyhow::{Result, bail};

use super::link::Link;

/// The links that a guest gets of those that there are, each with its addresses: what is a part of a bridge or a bond is behind that one. An error where the
/// guest cannot have a link as it is, since packets must not take another way than they were meant to.
pub fn choose<A>(links: Vec<(Link, Vec<A>)>) -> Result<Vec<(Link, Vec<A>)>> {
    // First, since its parts are well as they are.
    if let Some((vrf, _)) = links.iter().find(|(link, _)| link.kind == "vrf") {
        bail!("{} is a VRF, which a guest cannot have", vrf.name);
    }
    for (link, addresses) in &links {
        let name = &link.name;
        if link.stacked {
            bail!("{name} is a {} on top of the same network namespace, which a guest cannot have (from outside of it, it can)", link.kind);
        }
        if let Some((master, _)) = links.iter().find(|(other, _)| Some(other.index) == link.master) {
            if !addresses.is_empty() {
                bail!("{name} is a part of {} and has addresses besides, which a guest cannot have", master.name);
            }
        }
    }
    let chosen = links.into_iter().filter(|(link, _)| link.master.is_none()).collect::<Vec<_>>();
    for (at, (link, _)) in chosen.iter().enumerate() {
        // A guest's devices are told apart by their addresses.
        if let Some((other, _)) = chosen[..at].iter().find(|(other, _)| !link.mac.is_empty() && other.mac == link.mac) {
            bail!("{} and {} have the same MAC address, {}, which a guest's network cards cannot have", other.name, link.name, link.mac);
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: &str) -> Link {
        Link {
            index,
            name: name.into(),
            kind: kind.into(),
            mac: format!("02:00:00:00:00:{index:02x}"),
            mtu: 1500,
            up: true,
            loopback: false,
            ours: false,
            owner: None,
            no_arp: false,
            master: None,
            stacked: false,
        }
    }

    fn names(links: Vec<(Link, Vec<u8>)>) -> Result<Vec<String>, String> {
        choose(links).map(|links| links.into_iter().map(|(link, _)| link.name).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_a_part_of_a_bond_is_behind_it() {
        let part = |index, name: &str| Link { master: Some(9), mac: "02:00:00:00:00:09".into(), ..link(index, name, "veth") };
        let links = || {
            vec![
                (part(1, "net1"), vec![]),
                (part(2, "net2"), vec![]),
                (link(9, "bond0", "bond"), vec![1]),
                (link(3, "eth0", "veth"), vec![2]),
            ]
        };
        assert_eq!(names(links()), Ok(vec!["bond0".into(), "eth0".into()]));
        let mut with_addresses = links();
        with_addresses[1].1 = vec![3];
        assert_eq!(names(with_addresses), Err("net2 is a part of bond0 and has addresses besides, which a guest cannot have".into()));
    }

    #[test]
    fn what_a_guest_cannot_have_is_named() {
        let in_vrf = Link { master: Some(2), ..link(1, "eth0", "veth") };
        assert_eq!(names(vec![(in_vrf, vec![1]), (link(2, "red", "vrf"), vec![])]), Err("red is a VRF, which a guest cannot have".into()));
        let stacked = Link { stacked: true, ..link(1, "eth0.5", "vlan") };
        let message = "eth0.5 is a vlan on top of the same network namespace, which a guest cannot have (from outside of it, it can)";
        assert_eq!(names(vec![(stacked, vec![])]), Err(message.into()));
        let twin = Link { mac: "02:00:00:00:00:01".into(), ..link(2, "net1", "ipvlan") };
        let message = "eth0 and net1 have the same MAC address, 02:00:00:00:00:01, which a guest's network cards cannot have";
        assert_eq!(names(vec![(link(1, "eth0", "ipvlan"), vec![]), (twin, vec![])]), Err(message.into()));
    }

    #[test]
    fn links_without_addresses_of_their_own_are_no_twins() {
        let tunnel = |index, name: &str| Link { mac: String::new(), ..link(index, name, "wireguard") };
        assert_eq!(names(vec![(tunnel(1, "wg0"), vec![]), (tunnel(2, "wg1"), vec![])]), Ok(vec!["wg0".into(), "wg1".into()]));
    }
}
