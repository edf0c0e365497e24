//! The runtime's options, as far as they concern the start of a shim.

mod common;

use std::fs;
use std::process::Stdio;

use common::shim::Shims;
use common::{Cgroup, Process, names, pipe, read_text};
use serde_json::json;

/// `start` with `input` as what containerd writes. Answers the status, and what was said.
fn start(shims: &Shims, id: &str, input: &[u8]) -> (i32, String) {
    let path = shims.folder.path("input");
    fs::write(&path, input).expect("write");
    let (reader, stderr) = pipe();
    let mut command = shims.start_command(id);
    let mut process = Process::start(command.stdin(fs::File::open(path).expect("open")).stdout(Stdio::null()).stderr(stderr));
    drop(command);
    (process.wait(), read_text(reader))
}

/// A field that holds bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, content.len() as u8], content].concat()
}

fn any(name: &str, content: &[u8]) -> Vec<u8> {
    [field(1, name.as_bytes()), field(2, content)].concat()
}

#[test]
fn a_shim_is_in_the_cgroup_that_its_options_name_from_its_first_page_on() {
    let shims = Shims::new();
    let cgroup = Cgroup::new();
    let name = cgroup.0.file_name().expect("a name").to_str().expect("text");
    let path = format!("/{name}");
    let options = any("containerd.runc.v1.Options", &field(3, path.as_bytes()));
    let generic = any("runtimeoptions.v1.Options", &field(3, format!("ShimCgroup = \"{path}\"").as_bytes()));
    let params = [field(1, b"c3"), field(2, b"ns"), field(8, &field(1, &options))].concat();
    for (count, (id, input)) in [("c1", &options), ("c2", &generic), ("c3", &params)].into_iter().enumerate() {
        shims.bundle(id, json!({}));
        assert_eq!(start(&shims, id, input), (0, String::new()), "{id}");
        let servers = shims.servers(count + 1);
        let server = servers.iter().find(|server| server.words.contains(&format!(" -id {id} "))).expect("a server");
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", server.pid)).expect("its cgroups");
        assert!(groups.lines().any(|line| line.ends_with(&path)), "{id}: {groups}");
    }
    for server in shims.servers(3) {
        shims.kill(&server);
    }
}

#[test]
fn a_cgroup_that_is_not_there_is_named_and_nothing_is_left() {
    let shims = Shims::new();
    let bundle = shims.bundle("c1", json!({}));
    for (path, message) in [
        ("/husk-absent", "husk: the runtime option shim_cgroup: there is no cgroup /husk-absent: make it before the container"),
        ("/../x", "husk: the runtime option shim_cgroup: \"/../x\" is no path below a hierarchy's root"),
    ] {
        let options = any("containerd.runc.v1.Options", &field(3, path.as_bytes()));
        assert_eq!(start(&shims, "c1", &options), (1, message.to_owned()));
        assert_eq!(names(&bundle), ["config.json"]);
    }
}

#[test]
fn a_configuration_that_the_options_name_is_the_servers() {
    let shims = Shims::new();
    shims.bundle("c1", json!({}));
    let options = any("runtimeoptions.v1.Options", &field(2, b"/etc/husk/other.toml"));
    assert_eq!(start(&shims, "c1", &options), (0, String::new()));
    let environment = fs::read_to_string(format!("/proc/{}/environ", shims.server().pid)).expect("its environment");
    assert!(environment.split('\0').any(|variable| variable == "HUSK_CONFIG=/etc/husk/other.toml"), "{environment}");
}
