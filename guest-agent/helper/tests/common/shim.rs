//! A containerd for `husk-helper shim`: bundles, and what the shim starts in place of Node, a shell script that says what it finds.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::session::outcome;
use super::{Folder, HELPER, eventually, pidfd, wait_readable};

/// Where a shim has its sockets by default.
pub const SOCKETS: &str = "/run/containerd/s";

/// Answers what it was started with, one line a question, and lives until it is killed.
const SERVER: &str = r#"
    dist=${0%/*}
    case $1 in serve) ;; *) echo "$*"; echo "to the log" >&2; exit 7 ;; esac
    echo "said by the server" >&2
    streams=$(for number in 0 1 2 3; do readlink /proc/$$/fd/$number; done)
    open=$(ls /proc/$$/fd | sort -n | tr '\n' ' ')
    {
        echo "$$"; echo "$*"; pwd; echo "$TTRPC_ADDRESS"
        echo "$streams"; echo "$open"
        cut -d ' ' -f 6 /proc/$$/stat; cat /proc/$$/oom_score_adj
    } > $dist/seen.$$
    mv $dist/seen.$$ $dist/server.$$
    read -r end < $dist/end
"#;

pub struct Shims {
    pub folder: Folder,
}

/// What a server found.
pub struct Seen {
    pub pid: Pid,
    pub words: String,
    pub cwd: String,
    pub ttrpc_address: String,
    /// What descriptors 0 to 3 are.
    pub streams: Vec<String>,
    pub open: String,
    pub session: i32,
    pub oom_score: i32,
}

impl Shims {
    /// In a mount namespace of the calling thread, whose /run is empty.
    pub fn new() -> Shims {
        unshare(CloneFlags::CLONE_NEWNS).expect("make a mount namespace");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).expect("make the mounts private");
        mount(Some("husk-test"), "/run", Some("tmpfs"), MsFlags::empty(), Some("size=1m,mode=755")).expect("mount");
        let folder = Folder::new();
        // Node's own flags come before the script, and the shell knows none of them.
        let node = folder.file("node", "#!/bin/sh\nwhile case $1 in --*) ;; *) false ;; esac; do shift; done\nexec /bin/sh \"$@\"\n");
        fs::set_permissions(node, fs::Permissions::from_mode(0o755)).expect("make it a program");
        folder.file("shim.js", SERVER);
        nix::unistd::mkfifo(&folder.path("end"), Mode::from_bits_truncate(0o600)).expect("make a fifo");
        Shims { folder }
    }

    /// Makes a bundle, and answers its folder.
    pub fn bundle(&self, id: &str, annotations: Value) -> PathBuf {
        let config = json!({"ociVersion": "1.0.2", "annotations": annotations, "linux": {"namespaces": [{"type": "network"}]}});
        self.bundle_with(id, &config.to_string())
    }

    pub fn bundle_with(&self, id: &str, config: &str) -> PathBuf {
        let file = self.folder.file(&format!("bundles/{id}/config.json"), config);
        file.parent().expect("a folder").to_owned()
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(HELPER);
        command.args(["shim", "--node"]).arg(self.folder.path("node")).arg("--dist").arg(&self.folder.0).arg("--").args(words);
        command.env("TTRPC_ADDRESS", "/run/containerd/containerd.sock.ttrpc").env_remove("HUSK_SHIM_API");
        command
    }

    /// `start`, as containerd calls it.
    pub fn start_command(&self, id: &str) -> Command {
        let fixed = ["-namespace", "ns", "-address", "/run/c.sock", "-publish-binary", "/bin/c", "-id", id, "start"];
        let mut command = self.command(&fixed);
        command.current_dir(self.folder.path("bundles").join(id));
        command
    }

    /// Starts a shim that must start, and answers what it printed.
    pub fn start(&self, id: &str) -> String {
        let (status, stdout, stderr) = outcome(&mut self.start_command(id));
        assert_eq!((status, stderr), (0, String::new()), "{stdout}");
        stdout
    }

    /// What went wrong with a start that must fail.
    pub fn failure(&self, id: &str) -> String {
        let (status, stdout, stderr) = outcome(&mut self.start_command(id));
        assert_eq!((status, stdout), (1, String::new()), "{stderr}");
        stderr
    }

    /// What each server found that has ever run, once all that were started have said it.
    pub fn servers(&self, count: usize) -> Vec<Seen> {
        let files = || super::names(&self.folder.0).into_iter().filter(|name| name.starts_with("server.")).collect::<Vec<_>>();
        eventually("the servers run", || files().len() >= count);
        files().iter().map(|name| Seen::parse(&fs::read_to_string(self.folder.path(name)).expect("read"))).collect()
    }

    pub fn server(&self) -> Seen {
        let mut servers = self.servers(1);
        assert_eq!(servers.len(), 1);
        servers.remove(0)
    }

    pub fn kill(&self, server: &Seen) {
        // First: whoever reaps it may be quick.
        let server_fd = pidfd(server.pid);
        kill(server.pid, Signal::SIGKILL).expect("kill");
        wait_readable(server_fd.as_raw_fd(), "the end of a server");
    }
}

impl Drop for Shims {
    fn drop(&mut self) {
        // Every server is in its bundle, whether or not it has said anything yet.
        for pid in super::names("/proc").into_iter().filter_map(|name| name.parse().ok()) {
            if fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&self.folder.0)) {
                // It may be ending by itself.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                super::eventually("a server has ended", || fs::read_link(format!("/proc/{pid}/cwd")).is_err());
            }
        }
    }
}

impl Seen {
    fn parse(text: &str) -> Seen {
        let mut lines = text.lines().map(str::to_owned);
        let mut next = || lines.next().expect("a line");
        Seen {
            pid: Pid::from_raw(next().parse().expect("a PID")),
            words: next(),
            cwd: next(),
            ttrpc_address: next(),
            streams: (0..4).map(|_| next()).collect(),
            open: next(),
            session: next().parse().expect("a number"),
            oom_score: next().parse().expect("a number"),
        }
    }
}
