//! What the supervisor asks for: the plan, and the requests that follow it.

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::descriptors;

/// Everything that a sandbox is made of; the first line of the conversation.
#[derive(Deserialize)]
pub struct Plan {
    #[serde(default)]
    pub cgroups: Vec<PathBuf>,
    #[serde(default)]
    pub listen: Vec<Listener>,
    /// Zygotes' sockets, connected before there is a sandbox.
    #[serde(default)]
    pub dial: Vec<Listener>,
    #[serde(default)]
    pub open: Vec<OpenFile>,
    #[serde(default)]
    pub memory: Vec<Memory>,
    /// The descriptor of a socket whose other end the outer process keeps: QEMU's second monitor, by which it is given files while it runs.
    pub monitor: Option<RawFd>,
    pub tree: Tree,
    pub user: User,
    #[serde(default)]
    pub mounts: Vec<Mount>,
    #[serde(default)]
    pub processes: Vec<Process>,
    /// Whether it is a zygote's, which has to be in the host's PID namespace to make processes in others'.
    #[serde(default)]
    pub zygote: bool,
    /// What the outer process becomes where the supervisor has died: a program and its arguments; empty: nothing.
    #[serde(default)]
    pub remains: Vec<String>,
}

/// A unix socket that listens in the host's file system, as descriptor `fd` of the processes.
#[derive(Deserialize)]
pub struct Listener {
    pub fd: RawFd,
    pub path: PathBuf,
    /// It carries packets, and not a stream.
    #[serde(default)]
    pub packets: bool,
}

/// A file or block device of the host, opened as descriptor `fd` of the processes.
#[derive(Deserialize)]
pub struct OpenFile {
    pub fd: RawFd,
    pub path: PathBuf,
    #[serde(default)]
    pub write: bool,
}

/// Memory that the sandbox's processes share, as descriptor `fd`: its own, or a template's, which other sandboxes have as well.
#[derive(Deserialize)]
pub struct Memory {
    pub fd: RawFd,
    pub bytes: u64,
    pub template: Option<TemplateMemory>,
    /// The sum of what a request before the plan has filled it with.
    pub filled: Option<String>,
}

/// What a template's memory is to be filled with, and how to find it where another sandbox has it already.
#[derive(Deserialize)]
pub struct TemplateMemory {
    /// Tells it apart from any other content.
    pub name: String,
    pub ram: PathBuf,
    /// Of `ram`, as `husk-helper template sum` has it.
    pub sum: String,
    /// The file that says who has it.
    pub record: PathBuf,
}

/// What the processes see of the host's files.
#[derive(Deserialize)]
pub struct Tree {
    #[serde(default)]
    pub readonly: Vec<PathBuf>,
    #[serde(default)]
    pub devices: Vec<String>,
}

/// Who the processes of the account "user" run as.
#[derive(Clone, Copy, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

/// A path of the host, shown at `target` below /shared.
#[derive(Deserialize)]
pub struct Mount {
    pub source: PathBuf,
    pub target: PathBuf,
    #[serde(default)]
    pub readonly: bool,
    /// Not the source itself, but an overlay file system with these options.
    pub overlay: Option<Vec<String>>,
    /// What the host mounts below it later shows as well.
    #[serde(default)]
    pub follows: bool,
    /// With what is mounted below it.
    #[serde(default = "recursive")]
    pub recursive: bool,
    /// Where it is read-only, what is mounted below it is not.
    #[serde(default, rename = "writableBelow")]
    pub writable_below: bool,
    /// Made in it, as far as they are missing.
    #[serde(default, rename = "mountPoints")]
    pub mount_points: Vec<MountPoint>,
}

/// Where something is to be mounted, in a tree that is shown.
#[derive(Deserialize, Serialize)]
pub struct MountPoint {
    /// Absolute, in the tree.
    pub path: PathBuf,
    /// A folder; else a file.
    pub folder: bool,
}

fn recursive() -> bool {
    true
}

/// A program of the sandbox.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    pub name: String,
    pub argv: Vec<String>,
    pub user: Account,
    #[serde(default)]
    pub fds: Vec<RawFd>,
    pub socket: Option<PathBuf>,
    pub socket_fd: Option<RawFd>,
    /// Its writable mappings of a template's memory are private ones.
    #[serde(default)]
    pub private_memory: bool,
    /// It makes copies of itself for whoever asks on this socket.
    pub zygote: Option<RawFd>,
    /// It is not started, but copied.
    pub copy: Option<CopyOf>,
}

/// Of what a process is a copy.
#[derive(Clone, Deserialize, Serialize)]
pub struct CopyOf {
    /// The connection to the zygote.
    pub from: RawFd,
    /// The descriptor that is the copy's memory; none: it has the zygote's.
    pub memory: Option<RawFd>,
    /// Descriptors that the copy has under other numbers, which come second.
    #[serde(default)]
    pub places: Vec<(RawFd, RawFd)>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Account {
    /// With the capabilities that virtiofsd begins with, and no others.
    Root,
    /// The plan's user, with no privilege at all.
    User,
}

/// What the supervisor asks for later.
#[derive(Deserialize)]
pub struct Request {
    pub id: u64,
    #[serde(flatten)]
    pub operation: Operation,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Operation {
    Mount(Mount),
    Unmount {
        target: PathBuf,
    },
    Spawn {
        process: Process,
    },
    /// Makes a tap for QEMU in the sandbox's network namespace.
    Tap {
        name: String,
    },
    /// Fills memory with that of a zygote, for the plan to come.
    Fill {
        ram: PathBuf,
        bytes: u64,
        sum: String,
    },
    /// Changes the plan's `remains`.
    Remains {
        program: Vec<String>,
    },
    Signal {
        name: String,
        signal: i32,
    },
    /// Ends everything in the sandbox.
    End,
    /// Gives QEMU a file or block device of the host, as its set of descriptors number `set`.
    Give {
        set: u32,
        path: PathBuf,
        #[serde(default)]
        write: bool,
    },
}

impl Plan {
    /// The descriptors that the plan itself opens.
    pub fn opened(&self) -> impl Iterator<Item = RawFd> {
        let sockets = self.listen.iter().chain(&self.dial).map(|socket| socket.fd);
        sockets.chain(self.open.iter().map(|file| file.fd)).chain(self.memory.iter().map(|memory| memory.fd)).chain(self.monitor)
    }

    /// Checks all that can be checked before anything is made. `inherited`: the descriptors that the supervisor passed. Answers all that
    /// the processes may be given.
    pub fn check(&self, inherited: BTreeSet<RawFd>) -> Result<BTreeSet<RawFd>> {
        let mut available = inherited;
        for number in self.opened() {
            check_number(number)?;
            ensure!(available.insert(number), "descriptor {number} is to be opened, but is open already");
        }
        let mut names = BTreeSet::new();
        for process in &self.processes {
            process.check(&available)?;
            ensure!(names.insert(&process.name), "two processes are named {}", process.name);
        }
        for path in &self.tree.readonly {
            ensure!(path.is_absolute() && is_plain(path), "the tree's path {} must be absolute and without ..", path.display());
        }
        for mount in &self.mounts {
            mount.check()?;
        }
        Ok(available)
    }
}

impl Mount {
    pub fn check(&self) -> Result<()> {
        ensure!(self.source.is_absolute(), "the mount's source {} must be absolute", self.source.display());
        check_target(&self.target)
    }
}

impl Process {
    /// Checks what does not depend on the state of the sandbox, apart from the descriptors that it has.
    pub fn check(&self, available: &BTreeSet<RawFd>) -> Result<()> {
        let name = &self.name;
        ensure!(!name.is_empty(), "a process has no name");
        ensure!(self.argv.first().is_some_and(|program| program.starts_with('/')), "process {name}: argv must begin with an absolute path");
        for number in &self.fds {
            ensure!(available.contains(number), "process {name}: descriptor {number} was not passed to the sandbox");
        }
        if let Some(CopyOf { from, memory, places }) = &self.copy {
            for number in places.iter().map(|(own, _)| own).chain([from]) {
                ensure!(available.contains(number), "process {name}: descriptor {number} was not passed to the sandbox");
            }
            ensure!(memory.is_none_or(|memory| self.fds.contains(&memory)), "process {name}: its memory is none of its descriptors");
        }
        match (&self.socket, self.socket_fd) {
            (None, None) => Ok(()),
            (Some(path), Some(number)) => {
                ensure!(path.is_absolute(), "process {name}: the socket {} must be absolute", path.display());
                check_number(number)?;
                ensure!(!self.fds.contains(&number), "process {name}: descriptor {number} is meant twice");
                Ok(())
            }
            _ => anyhow::bail!("process {name}: socket and socketFd go together"),
        }
    }
}

/// Checks a path below /shared.
pub fn check_target(target: &Path) -> Result<()> {
    let plain = target.is_relative() && is_plain(target) && target.file_name().is_some();
    ensure!(plain, "the mount's target {} must be relative and without ..", target.display());
    Ok(())
}

fn is_plain(path: &Path) -> bool {
    path.components().all(|component| matches!(component, Component::Normal(_) | Component::RootDir))
}

fn check_number(number: RawFd) -> Result<()> {
    ensure!(number > super::CONTROL && number < descriptors::LIMIT, "descriptor {number} must be from 4 to {}", descriptors::LIMIT - 1);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(change: Value) -> String {
        let mut plan = json!({"tree": {}, "user": {"uid": 1, "gid": 1}, "later": "ignored"});
        for (key, value) in change.as_object().expect("an object") {
            plan[key] = value.clone();
        }
        match serde_json::from_value::<Plan>(plan) {
            Ok(plan) => plan.check(BTreeSet::from([4, 5])).map_or_else(|error| error.to_string(), |available| format!("{available:?}")),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn descriptors_must_be_passed_or_opened_once() {
        assert_eq!(check(json!({"listen": [{"fd": 7, "path": "/a"}], "open": [{"fd": 6, "path": "/b", "write": true}]})), "{4, 5, 6, 7}");
        assert_eq!(check(json!({"open": [{"fd": 5, "path": "/b"}]})), "descriptor 5 is to be opened, but is open already");
        assert_eq!(check(json!({"open": [{"fd": 3, "path": "/b"}]})), "descriptor 3 must be from 4 to 1023");
        assert_eq!(check(json!({"open": [{"fd": 1024, "path": "/b"}]})), "descriptor 1024 must be from 4 to 1023");
        let process = |fds: &[i32]| json!({"processes": [{"name": "q", "argv": ["/q"], "user": "user", "fds": fds}]});
        assert_eq!(check(process(&[4])), "{4, 5}");
        assert_eq!(check(process(&[3])), "process q: descriptor 3 was not passed to the sandbox");
    }

    #[test]
    fn processes_are_checked_before_anything_is_made() {
        let refused = |change: Value| {
            let mut process = json!({"name": "v", "argv": ["/v"], "user": "root", "fds": [5]});
            for (key, value) in change.as_object().expect("an object") {
                process[key] = value.clone();
            }
            check(json!({"processes": [process]}))
        };
        assert_eq!(refused(json!({"argv": []})), "process v: argv must begin with an absolute path");
        assert_eq!(refused(json!({"argv": ["v"]})), "process v: argv must begin with an absolute path");
        assert_eq!(refused(json!({"socket": "/run/a"})), "process v: socket and socketFd go together");
        assert_eq!(refused(json!({"socket": "/run/a", "socketFd": 5})), "process v: descriptor 5 is meant twice");
        assert_eq!(refused(json!({"socket": "run/a", "socketFd": 6})), "process v: the socket run/a must be absolute");
        assert_eq!(refused(json!({"user": "nobody"})), "unknown variant `nobody`, expected `root` or `user`");
        let twice = json!({"name": "v", "argv": ["/v"], "user": "root"});
        assert_eq!(check(json!({"processes": [twice, twice]})), "two processes are named v");
    }

    #[test]
    fn paths_do_not_leave_their_place() {
        let mount = |source: &str, target: &str| check(json!({"mounts": [{"source": source, "target": target}]}));
        assert_eq!(mount("/a", "c1/rootfs"), "{4, 5}");
        for target in ["/c1", "../c1", "c1/../../x", "", "."] {
            assert_eq!(mount("/a", target), format!("the mount's target {target} must be relative and without .."));
        }
        assert_eq!(mount("a", "b"), "the mount's source a must be absolute");
        assert_eq!(check(json!({"tree": {"readonly": ["/usr/../etc"]}})), "the tree's path /usr/../etc must be absolute and without ..");
    }
}
