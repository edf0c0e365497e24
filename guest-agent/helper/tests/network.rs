//! Network namespaces, listed and joined with taps.

mod common;

use std::fs;
use std::process::Command;

use common::session::outcome;
use common::{HELPER, Process, eventually, pipe, wait_readable};
use serde_json::{Value, json};

/// Three network namespaces: the container's, in which eth0 is one end of a cable, one with the other end, and that of the virtual machine.
struct Network {
    container: Process,
    outside: Process,
    machine: Process,
}

/// The user whom the taps belong to.
const OWNER: u32 = 1_879_048_193;

fn namespace() -> Process {
    let (reader, writer) = pipe();
    let mut command = Command::new("unshare");
    let process = Process::start(command.args(["--net", "sh", "-c", "echo ready; exec sleep 1000"]).stdout(writer));
    wait_readable(std::os::fd::AsRawFd::as_raw_fd(&reader), "the namespace");
    process
}

impl Network {
    fn new() -> Network {
        let network = Network { container: namespace(), outside: namespace(), machine: namespace() };
        let outside = network.outside.pid().to_string();
        network.ip(&format!("link add eth0 address 02:42:ac:11:00:02 type veth peer name far netns {outside}"));
        network.ip("link set eth0 mtu 1400 up");
        network.ip("link set lo up");
        let (status, _, said) = outcome(Command::new("nsenter").args(["-t", &outside, "-n", "ip", "link", "set", "far", "up"]));
        assert_eq!(status, 0, "{said}");
        eventually("the cable is plugged in", || network.ip("link show eth0").contains("state UP"));
        network
    }

    fn netns(&self) -> String {
        format!("/proc/{}/ns/net", self.container.pid())
    }

    /// The virtual machine's.
    fn machine(&self) -> String {
        format!("/proc/{}/ns/net", self.machine.pid())
    }

    /// Makes a tap in the virtual machine's namespace, as its PID 1 does.
    fn make_tap(&self, name: &str, owner: u32) {
        run_in(&self.machine(), &format!("ip tuntap add dev {name} mode tap user {owner} vnet_hdr"));
    }

    /// Joins a tap of the virtual machine's to a link of the container's.
    fn attach(&self, link: &str, tap: &str) -> (i32, String, String) {
        self.helper(&format!("attach --from {} --link {link} --tap {tap}", self.machine()))
    }

    /// Runs a program in the container's namespace, and answers what it prints.
    fn run(&self, words: &str) -> String {
        run_in(&self.netns(), words)
    }

    fn ip(&self, words: &str) -> String {
        self.run(&format!("ip {words}"))
    }

    fn helper(&self, words: &str) -> (i32, String, String) {
        let (verb, rest) = words.split_once(' ').unwrap_or((words, ""));
        let mut command = Command::new(HELPER);
        command.args(["network", verb, "--netns", &self.netns()]).args(rest.split(' ').filter(|word| !word.is_empty()));
        outcome(&mut command)
    }

    fn scan(&self) -> Value {
        let (status, out, said) = self.helper("scan");
        assert_eq!((status, said.as_str()), (0, ""));
        serde_json::from_str(&out).expect("JSON")
    }

    /// Everything that tc and ip know, without numbers that change.
    fn state(&self) -> String {
        self.ip("-o link") + &self.run("tc qdisc show") + &self.run("tc filter show dev eth0 ingress")
    }
}

fn run_in(netns: &str, words: &str) -> String {
    let (status, out, said) = outcome(Command::new("nsenter").arg(format!("--net={netns}")).args(words.split(' ')));
    assert_eq!(status, 0, "{words}: {said}");
    out
}

#[test]
fn a_namespace_is_listed() {
    let network = Network::new();
    for words in [
        "addr add 10.9.0.2/24 dev eth0",
        "-6 addr add fd00::2/64 dev eth0 nodad",
        "route add default via 10.9.0.1",
        "route add 10.20.0.0/16 via 10.99.0.1 dev eth0 src 10.9.0.2 metric 7 onlink",
        "route add 10.30.0.0/16 dev eth0 scope link",
        "-6 route add default via fd00::1 metric 5",
        "route add 10.40.0.0/16 via 10.9.0.1 table 100",
        "neigh add 10.9.0.77 lladdr 02:00:00:00:00:77 dev eth0",
        "neigh add 10.9.0.78 lladdr 02:00:00:00:00:78 nud stale dev eth0",
    ] {
        network.ip(words);
    }
    let link = json!({
        "name": "eth0", "kind": "veth", "mac": "02:42:ac:11:00:02", "mtu": 1400, "up": true, "no_arp": false, "addresses": ["10.9.0.2/24", "fd00::2/64"],
    });
    let route = |destination: &str, gateway: &str, more: Value| {
        let mut route = json!({
            "destination": destination, "gateway": gateway, "interface": "eth0", "source": "",
            "scope": 0, "metric": 0, "onlink": false, "family": 4,
        });
        for (key, value) in more.as_object().expect("an object") {
            route[key] = value.clone();
        }
        route
    };
    let mut found = network.scan();
    assert!(found["links"][0]["index"].as_u64().is_some());
    found["links"][0].as_object_mut().expect("a link").remove("index");
    assert_eq!(
        found,
        json!({
            "links": [link],
            "routes": [
                route("0.0.0.0/0", "10.9.0.1", json!({})),
                route("10.20.0.0/16", "10.99.0.1", json!({"source": "10.9.0.2", "metric": 7, "onlink": true})),
                route("10.30.0.0/16", "", json!({"scope": 253})),
                route("::/0", "fd00::1", json!({"metric": 5, "family": 6})),
            ],
            "neighbours": [{"address": "10.9.0.77", "mac": "02:00:00:00:00:77", "interface": "eth0"}],
        })
    );
}

#[test]
fn an_empty_namespace_has_nothing_to_list() {
    let empty = namespace();
    let mut command = Command::new(HELPER);
    command.args(["network", "scan", "--netns", &format!("/proc/{}/ns/net", empty.pid())]);
    assert_eq!(outcome(&mut command), (0, "{\"links\":[],\"routes\":[],\"neighbours\":[]}\n".into(), String::new()));
}

#[test]
fn routes_that_a_guest_cannot_have_are_named() {
    for (route, message) in [
        ("blackhole 10.1.0.0/16", "the route to 10.1.0.0/16 is not one to a host or a network (its type is 6), which a guest cannot have"),
        ("10.2.0.0/16 nexthop via 10.9.0.1 nexthop via 10.9.0.3", "the route to 10.2.0.0/16 has several ways, which a guest cannot have"),
    ] {
        let network = Network::new();
        network.ip("addr add 10.9.0.2/24 dev eth0");
        network.ip(&format!("route add {route}"));
        assert_eq!(network.helper("scan"), (1, String::new(), format!("husk: {message}\n")));
    }
}

#[test]
fn links_are_chosen_by_what_a_guest_can_have() {
    let network = Network::new();
    for words in ["link add br0 address 02:00:00:00:00:99 type bridge", "link set eth0 master br0", "link set br0 up"] {
        network.ip(words);
    }
    let links = network.scan()["links"].clone();
    assert_eq!(links.as_array().expect("links").iter().map(|link| &link["name"]).collect::<Vec<_>>(), ["br0"], "its port is behind it");

    network.ip("link add link br0 name net1 type macvlan");
    let message = "husk: net1 is a macvlan on top of the same network namespace, which a guest cannot have (from outside of it, it can)\n";
    assert_eq!(network.helper("scan"), (1, String::new(), message.into()));
    network.ip("link delete net1");

    // On top of another namespace's link, it is a card like any other.
    let outside = ["-t", &network.outside.pid().to_string(), "-n", "ip", "link", "add", "link", "far", "name", "net1", "type", "macvlan"];
    assert_eq!(outcome(Command::new("nsenter").args(outside)).0, 0);
    let moved =
        ["-t", &network.outside.pid().to_string(), "-n", "ip", "link", "set", "net1", "netns", &network.container.pid().to_string()];
    assert_eq!(outcome(Command::new("nsenter").args(moved)).0, 0);
    let links = network.scan()["links"].clone();
    assert_eq!(links.as_array().expect("links").iter().map(|link| &link["kind"]).collect::<Vec<_>>(), ["bridge", "macvlan"]);
}

#[test]
fn a_tap_carries_what_arrives_at_the_link_and_back() {
    let network = Network::new();
    let before = network.state();
    network.make_tap("husk0", OWNER);
    // As QEMU does: before it is where it will be.
    let guest = Guest::open(&network.machine(), "husk0");
    assert_eq!(network.attach("eth0", "husk0"), (0, String::new(), String::new()));
    assert!(!run_in(&network.machine(), "ip -o link").contains("husk0"));
    let tap = network.ip("-d link show husk0");
    for part in ["mtu 1400", "UP", "tun type tap", "vnet_hdr on", "persist on", "user 1879048193", "addrgenmode none"] {
        assert!(tap.contains(part), "{part}: {tap}");
    }
    let contents = network.scan();
    assert_eq!(contents["links"].as_array().expect("links").len(), 1, "husk's own is left out");

    // Both ways are one redirection; that packets take them is seen by their counters and by what comes out at the far end.
    for (device, to) in [("eth0", "husk0"), ("husk0", "eth0")] {
        let filter = network.run(&format!("tc filter show dev {device} ingress"));
        assert!(filter.contains(&format!("Egress Redirect to device {to}")), "{filter}");
    }
    let hello = frame(0x42);
    guest.send(&hello);
    let received = |network: &Network| -> u64 {
        let outside = network.outside.pid();
        let text = fs::read_to_string(format!("/proc/{outside}/net/dev")).expect("counters");
        let line = text.lines().find_map(|line| line.trim().strip_prefix("far:")).expect("the far end");
        line.split_whitespace().nth(1).expect("packets").parse().expect("a number")
    };
    eventually("the frame comes out at the far end", || received(&network) > 0);
    let (status, _, said) = outcome(Command::new("nsenter").args([
        "-t",
        &network.outside.pid().to_string(),
        "-n",
        "ip",
        "addr",
        "add",
        "10.9.0.1/24",
        "dev",
        "far",
    ]));
    assert_eq!(status, 0, "{said}");
    // An ARP request of the far end must arrive at the guest, and only there.
    let mut ping = Command::new("nsenter");
    ping.args(["-t", &network.outside.pid().to_string(), "-n", "bash", "-c", "echo > /dev/udp/10.9.0.2/9"]);
    assert_eq!(outcome(&mut ping).0, 0);
    guest.expect_arp_for([10, 9, 0, 2]);
    drop(guest);

    let detach = format!("detach --link eth0 --tap husk0 --owner {OWNER}");
    assert_eq!(network.helper(&detach), (0, String::new(), String::new()));
    assert_eq!(network.state(), before);
    assert_eq!(network.helper(&detach), (0, String::new(), String::new()), "what is gone is no error");
    assert_eq!(network.helper("detach --link absent --tap husk0").0, 0);

    // Engines take the namespace away before they have the container deleted; what it was mounted on may still be there.
    let detach =
        |netns: &str| outcome(Command::new(HELPER).args(["network", "detach", "--netns", netns, "--link", "eth0", "--tap", "husk0"]));
    assert_eq!(detach("/run/netns/gone"), (0, String::new(), String::new()));
    assert_eq!(detach("/etc/hostname"), (0, String::new(), String::new()));
}

#[test]
fn an_attachment_that_fails_leaves_nothing() {
    let network = Network::new();
    let before = network.state();
    for tap in ["husk0", "eth0"] {
        network.make_tap(tap, OWNER);
    }
    let refused = |message: &str| (1, String::new(), format!("husk: {message}\n"));
    assert_eq!(network.attach("absent", "husk0"), refused("there is no link absent"));
    assert_eq!(
        network.attach("eth0", "eth0"),
        refused("the network namespace has a link eth0 already: its links are those of another virtual machine, and two cannot share them")
    );
    assert_eq!(network.attach("lo", "husk0"), refused("lo is no Ethernet link, which is all that a guest can have"));
    assert_eq!(network.attach("eth0", "husk1"), refused("there is no tap husk1"));
    assert_eq!(network.helper("attach --link eth0 --tap husk0"), refused("--from is missing"));
    assert_eq!(network.state(), before);

    // Somebody else's traffic control stays.
    network.run("tc qdisc add dev eth0 ingress");
    network.run("tc filter add dev eth0 ingress protocol ip prio 3 u32 match u32 0 0 action mirred egress redirect dev lo");
    let others = network.state();
    assert_eq!(network.attach("eth0", "husk0"), refused("link eth0: somebody else handles the packets that arrive there (see tc qdisc)"));
    assert_eq!(network.state(), others);
    assert_eq!(network.helper("detach --link eth0 --tap husk0").0, 0);
    assert_eq!(network.state(), others);

    // Where it was not moved, it is taken away from where it was made; others' stay.
    let detach = |owner: u32| format!("detach --from {} --link eth0 --tap eth0 --owner {owner}", network.machine());
    assert_eq!(network.helper(&detach(1)).0, 0);
    assert!(run_in(&network.machine(), "ip -o link").contains("eth0"));
    assert_eq!(network.helper(&detach(OWNER)).0, 0);
    assert!(!run_in(&network.machine(), "ip -o link").contains("eth0"));
    assert_eq!(network.state(), others);
}

#[test]
fn a_tap_is_joined_where_it_was_made_where_the_link_is_there() {
    let network = Network::new();
    let before = network.state();
    run_in(&network.netns(), &format!("ip tuntap add dev husk0 mode tap user {OWNER} vnet_hdr"));
    assert_eq!(network.helper(&format!("attach --from {} --link eth0 --tap husk0", network.netns())).0, 0);
    assert!(network.state().contains("Egress Redirect to device husk0"), "{}", network.state());
    assert_eq!(network.helper(&format!("detach --from {0} --link eth0 --tap husk0 --owner {OWNER}", network.netns())).0, 0);
    assert_eq!(network.state(), before);
}

#[test]
fn detaching_leaves_what_is_another_virtual_machines() {
    let network = Network::new();
    network.make_tap("husk0", OWNER);
    assert_eq!(network.attach("eth0", "husk0").0, 0);
    let before = network.state();
    assert_eq!(network.helper(&format!("detach --link eth0 --tap husk0 --owner {}", OWNER + 1)).0, 0);
    assert_eq!(network.helper(&format!("detach --link eth0 --tap husk1 --owner {}", OWNER + 1)).0, 0);
    assert_eq!(network.state(), before);
    // As ledgers have it that do not say whose it is.
    assert_eq!(network.helper("detach --link eth0 --tap husk0").0, 0);
    assert!(!network.state().contains("husk0"), "{}", network.state());
}

#[test]
fn detaching_leaves_links_that_are_not_husks() {
    let network = Network::new();
    network.ip("tuntap add dev other mode tap");
    let before = network.state();
    assert_eq!(network.helper("detach --link eth0 --tap other").0, 0);
    assert_eq!(network.state(), before);
}

#[test]
fn a_namespace_that_is_not_there_is_named() {
    let message = "husk: cannot open the network namespace /absent: No such file or directory (os error 2)\n";
    assert_eq!(outcome(Command::new(HELPER).args(["network", "scan", "--netns", "/absent"])), (1, String::new(), message.into()));
    assert_eq!(
        outcome(Command::new(HELPER).args(["network", "dance"])),
        (1, String::new(), "husk: network dance: expected scan, attach, detach or serve\n".into())
    );
}

/// What QEMU does with the tap: opened by its name, by the user that it belongs to.
struct Guest(fs::File);

impl Guest {
    fn open(netns: &str, name: &str) -> Guest {
        let netns = fs::File::open(netns).expect("the namespace");
        let name = name.to_owned();
        // A thread of its own changes its namespace and its user.
        let device = std::thread::spawn(move || {
            nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            let device = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").expect("open");
            // SAFETY: only this thread's user changes; glibc's function would change all threads'.
            assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, OWNER, OWNER, OWNER) }, 0);
            // SAFETY: zeroes are a valid ifreq.
            let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
            for (target, source) in request.ifr_name.iter_mut().zip(name.bytes()) {
                *target = source as libc::c_char;
            }
            request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
            // SAFETY: the request lives through the call.
            let result = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&device), libc::TUNSETIFF, &request) };
            nix::errno::Errno::result(result).expect("the user may open its tap");
            device
        });
        Guest(device.join().expect("opened"))
    }

    /// Sends a frame, behind an empty header of virtio-net.
    fn send(&self, frame: &[u8]) {
        let packet = [&[0; 10], frame].concat();
        assert_eq!(nix::unistd::write(&self.0, &packet).expect("send"), packet.len());
    }

    /// Waits for an ARP request for that address.
    fn expect_arp_for(&self, address: [u8; 4]) {
        eventually("an ARP request", || {
            wait_readable(std::os::fd::AsRawFd::as_raw_fd(&self.0), "a frame");
            let mut packet = [0; 2048];
            let length = nix::unistd::read(&self.0, &mut packet).expect("receive");
            let frame = &packet[10..length];
            frame.len() >= 42 && frame[12..14] == [8, 6] && frame[38..42] == address
        });
    }
}

/// A broadcast frame of a protocol that nobody speaks.
fn frame(content: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0x42, 0xac, 0x11, 0, 2, 0x88, 0xb5]);
    frame.resize(64, content);
    frame
}
