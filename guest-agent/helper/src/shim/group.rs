//! Which shim a container belongs to: a pod's containers share one, and so does a container that joins another one's network.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::arguments::{Arguments, check_name};
use crate::unix_socket;

/// The largest config.json, in bytes, as husk's own programs have it: Docker's largest are some 60 KiB.
const LARGEST_CONFIG: u64 = 4 << 20;

/// Where shims say which network namespaces are theirs: a file DEVICE-INODE for each, which holds the shim's address.
const NETWORKS: &str = "/run/husk-shim/netns";

/// The longest address that such a file may hold.
const LONGEST_ADDRESS: u64 = 4096;

/// What of a bundle's config.json says where the container belongs.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Config {
    annotations: Option<Annotations>,
    linux: Option<Linux>,
    /// There is no such file.
    #[serde(skip)]
    is_missing: bool,
}

/// Those that name a group, in the order in which they count. They are values, not texts, so that one that is none can be named.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "io.containerd.runc.v2.group")]
    containerd: Value,
    #[serde(rename = "io.kubernetes.cri.sandbox-id")]
    cri: Value,
    #[serde(rename = "io.kubernetes.cri-o.SandboxID")]
    crio: Value,
    #[serde(rename = "io.kubernetes.sandbox.id")]
    dockershim: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Vec<Namespace>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Namespace {
    r#type: String,
    path: Option<PathBuf>,
}

impl Config {
    /// Reads the bundle's config.json, which is in the current folder.
    pub fn read() -> Result<Config> {
        // O_NONBLOCK: it may be a FIFO, whose opening would wait for ever.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open("config.json");
        // A pod by the Sandbox API of containerd 1.7 has none; that a container lacks it, its creation says.
        if file.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return Ok(Config { is_missing: true, ..Config::default() });
        }
        let file = file.context("cannot open the bundle's config.json")?;
        let metadata = file.metadata().context("cannot look at config.json")?;
        ensure!(metadata.is_file(), "config.json is no file");
        ensure!(metadata.len() <= LARGEST_CONFIG, "config.json is larger than {} MiB", LARGEST_CONFIG >> 20);
        serde_json::from_slice(&bounded(file, LARGEST_CONFIG)?).context("config.json cannot be understood")
    }

    /// The group that an annotation names.
    pub fn group(&self) -> Result<Option<&str>> {
        let Some(annotations) = &self.annotations else { return Ok(None) };
        let named = [
            ("io.containerd.runc.v2.group", &annotations.containerd),
            ("io.kubernetes.cri.sandbox-id", &annotations.cri),
            ("io.kubernetes.cri-o.SandboxID", &annotations.crio),
            ("io.kubernetes.sandbox.id", &annotations.dockershim),
        ];
        let Some((name, value)) = named.into_iter().find(|(_, value)| !value.is_null() && *value != "") else { return Ok(None) };
        let text = value.as_str().with_context(|| format!("the annotation {name} is no text"))?;
        check_name(&format!("the annotation {name}"), text)?;
        Ok(Some(text))
    }

    /// Whether the container, or the pod, is to have a network namespace that is not the host's, as everything in a sandbox has.
    pub fn has_own_network(&self) -> bool {
        let mut namespaces = self.linux.iter().flat_map(|linux| &linux.namespaces).filter(|namespace| namespace.r#type == "network");
        // What the Sandbox API says of a pod comes later.
        self.is_missing
            || namespaces.next().is_some_and(|namespace| namespace.path.as_deref().is_none_or(|path| identity(path) != host_network()))
    }

    /// The address of the living shim whose network namespace the container joins.
    pub fn joined_shim(&self) -> Result<Option<String>> {
        let namespaces = self.linux.iter().flat_map(|linux| &linux.namespaces);
        let Some(path) = namespaces.filter(|namespace| namespace.r#type == "network").find_map(|namespace| namespace.path.as_deref())
        else {
            return Ok(None);
        };
        // One that cannot be looked at is an error of the container's creation, which names it.
        let Some(joined) = identity(path) else { return Ok(None) };
        // The host's own is no sandbox's.
        if Some(joined) == host_network() {
            return Ok(None);
        }
        let entry = Path::new(NETWORKS).join(format!("{}-{}", joined.0, joined.1));
        let Ok(file) = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(entry) else { return Ok(None) };
        let content = bounded(file, LONGEST_ADDRESS)?;
        let address = String::from_utf8_lossy(&content).trim().to_owned();
        let living = socket_of(&address).is_some_and(|path| unix_socket::is_served(path).unwrap_or(false));
        Ok(living.then_some(address))
    }
}

fn host_network() -> Option<(u64, u64)> {
    identity(Path::new("/proc/self/ns/net"))
}

/// A file's device and inode; for a namespace's, that is the namespace's identity.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn bounded(file: File, largest: u64) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(largest + 1).read_to_end(&mut content).context("cannot read a file")?;
    ensure!(content.len() as u64 <= largest, "a file is larger than {largest} bytes");
    Ok(content)
}

/// The path of the socket that an address names.
pub fn socket_of(address: &str) -> Option<&Path> {
    address.strip_prefix("unix://").map(Path::new).filter(|path| path.is_absolute())
}

/// Where a group's shim is served below `folder`, as containerd's own shims have it (CreateSocketAddress in its pkg/shim/util_unix.go).
pub fn socket_path(folder: &Path, arguments: &Arguments, group: &str) -> PathBuf {
    let digest = Sha256::digest(join(&[&arguments.address, &arguments.namespace, group]));
    folder.join(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// What Go's path/filepath.Join makes of the parts.
fn join(parts: &[&str]) -> String {
    let text = parts.iter().copied().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    let rooted = text.starts_with('/');
    let mut names = VecDeque::new();
    for name in text.split('/') {
        match name {
            "" | "." => {}
            ".." if names.back().is_some_and(|last| *last != "..") => drop(names.pop_back()),
            ".." if rooted => {}
            name => names.push_back(name),
        }
    }
    format!("{}{}", if rooted { "/" } else { "" }, names.make_contiguous().join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(text: &str) -> Result<Option<String>, String> {
        let config: Config = serde_json::from_str(text).map_err(|error| error.to_string())?;
        config.group().map(|group| group.map(str::to_owned)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_annotation_that_names_a_group_counts() {
        for (text, expected) in [
            ("{}", None),
            (r#"{"annotations":null}"#, None),
            (r#"{"annotations":{"io.kubernetes.cri.container-type":"sandbox","x":7}}"#, None),
            (r#"{"annotations":{"io.kubernetes.sandbox.id":"d"}}"#, Some("d")),
            (r#"{"annotations":{"io.kubernetes.sandbox.id":"d","io.kubernetes.cri-o.SandboxID":"o"}}"#, Some("o")),
            (r#"{"annotations":{"io.kubernetes.cri-o.SandboxID":"o","io.kubernetes.cri.sandbox-id":"c"}}"#, Some("c")),
            (r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"c","io.containerd.runc.v2.group":"g"}}"#, Some("g")),
            (r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"c","io.containerd.runc.v2.group":""}}"#, Some("c")),
        ] {
            assert_eq!(group(text), Ok(expected.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn a_network_namespace_is_its_own_where_it_is_not_the_hosts() {
        for (text, expected) in [
            ("{}", false),
            (r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#, false),
            (r#"{"linux":{"namespaces":[{"type":"pid"},{"type":"network"}]}}"#, true),
            (r#"{"linux":{"namespaces":[{"type":"network","path":""}]}}"#, true),
            (r#"{"linux":{"namespaces":[{"type":"network","path":"/run/netns/x"}]}}"#, true),
            (r#"{"linux":{"namespaces":[{"type":"network","path":"/proc/self/ns/net"}]}}"#, false),
        ] {
            let config: Config = serde_json::from_str(text).expect(text);
            assert_eq!(config.has_own_network(), expected, "{text}");
        }
        assert!(Config { is_missing: true, ..Config::default() }.has_own_network());
    }

    #[test]
    fn a_group_that_is_no_name_is_refused() {
        let error = |text: &str| group(text).expect_err(text);
        for value in ["7", "[]", "{}", "true"] {
            let text = format!(r#"{{"annotations":{{"io.kubernetes.cri.sandbox-id":{value}}}}}"#);
            assert_eq!(error(&text), "the annotation io.kubernetes.cri.sandbox-id is no text");
        }
        let huge = format!(r#"{{"annotations":{{"io.containerd.runc.v2.group":"{}"}}}}"#, "x".repeat(100_000));
        assert_eq!(error(&huge), "the annotation io.containerd.runc.v2.group is longer than 256 characters");
        // It would lead to another namespace's shims.
        let text = r#"{"annotations":{"io.containerd.runc.v2.group":"../other/c1"}}"#;
        assert!(error(text).starts_with("the annotation io.containerd.runc.v2.group is no name"));
    }

    #[test]
    fn parts_are_joined_as_go_joins_them() {
        for (parts, expected) in [
            (["/run/containerd/containerd.sock", "default", "c1"], "/run/containerd/containerd.sock/default/c1"),
            (["/run//a/./b/../c/", "ns", "x"], "/run/a/c/ns/x"),
            (["/../..", "ns", "x"], "/ns/x"),
            (["", "ns", "x"], "ns/x"),
            (["../a/..", "ns", "x"], "../ns/x"),
        ] {
            assert_eq!(join(&parts), expected);
        }
    }

    #[test]
    fn the_socket_is_where_containerds_own_shims_have_it() {
        let arguments =
            Arguments { address: "/run/containerd/containerd.sock".into(), namespace: "default".into(), ..Arguments::default() };
        // printf /run/containerd/containerd.sock/default/c1 | sha256sum
        let digest = "d25aa4ef11a84e954e74a5bcff06557d0b6ea8d0c00243896f29826694bbd888";
        assert_eq!(socket_path(Path::new("/run/containerd/s"), &arguments, "c1"), Path::new("/run/containerd/s").join(digest));
    }
}
