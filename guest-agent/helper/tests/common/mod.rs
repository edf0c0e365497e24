//! What the tests of the built helper share. They need root, and take nothing from the host that is not given back when they fail as well.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod sandbox;
pub mod session;
pub mod shim;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

pub const HELPER: &str = env!("CARGO_BIN_EXE_husk-helper");

/// The time within which anything that is waited for must happen; far more than it takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A folder of a test's own, removed at its end.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        assert!(nix::unistd::geteuid().is_root(), "the helper's tests make namespaces and mounts: run them as root");
        let path = std::env::temp_dir().join(format!("husk-helper-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).expect("make a folder");
        Folder(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes a file with that content, and the folders on the way.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
        fs::write(&path, content).expect("write a file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What the test has mounted inside, in this thread's namespace.
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
        for path in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if Path::new(path).starts_with(&self.0) {
                let _ = nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH);
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// A cgroup of the test's own, wherever this host has them.
pub struct Cgroup(pub PathBuf);

impl Cgroup {
    pub fn new() -> Cgroup {
        let parent = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].into_iter().find(|path| Path::new(path).join("cgroup.procs").exists());
        let path = Path::new(parent.expect("a cgroup hierarchy")).join(format!("husk-helper-test-{}", std::process::id()));
        fs::create_dir(&path).expect("make a cgroup");
        Cgroup(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// The test's side of a conversation in JSON lines.
pub struct Conversation(pub BufReader<UnixStream>);

impl Conversation {
    pub fn new(stream: UnixStream) -> Conversation {
        stream.set_read_timeout(Some(PATIENCE)).expect("set a deadline");
        Conversation(BufReader::new(stream))
    }

    pub fn send(&mut self, message: &Value) {
        self.send_text(&format!("{message}\n"));
    }

    pub fn send_text(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("send a message");
    }

    /// The next message; `None` at the end.
    pub fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).expect("a JSON message")),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no message came: {error}"),
        }
    }

    pub fn expect(&mut self, expected: Value) {
        assert_eq!(self.next(), Some(expected));
    }
}

/// A pipe that no program inherits by chance: tests run beside each other in one process.
pub fn pipe() -> (OwnedFd, OwnedFd) {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("a pipe")
}

/// A pair of connected sockets.
pub fn pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().expect("a socket pair")
}

/// Accepts one connection, within bounds.
pub fn accept(listener: &UnixListener) -> UnixStream {
    wait_readable(listener.as_raw_fd(), "a connection");
    let stream = listener.accept().expect("a connection").0;
    stream.set_read_timeout(Some(PATIENCE)).expect("set a deadline");
    stream
}

/// Waits until a descriptor can be read, or has come to its end.
pub fn wait_readable(number: RawFd, what: &str) {
    assert!(is_readable(number, PATIENCE), "{what} did not come within {PATIENCE:?}");
}

pub fn is_readable(number: RawFd, patience: Duration) -> bool {
    // SAFETY: only borrowed for this call.
    let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    let timeout = PollTimeout::try_from(patience).expect("a short time");
    poll(&mut [PollFd::new(descriptor, PollFlags::POLLIN)], timeout).expect("poll") > 0
}

/// Waits until one of two can be read. Answers whether it is the first.
pub fn is_readable_soon(first: &impl AsFd, second: &impl AsFd) -> bool {
    let mut watched = [PollFd::new(first.as_fd(), PollFlags::POLLIN), PollFd::new(second.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(PATIENCE).expect("a short time");
    assert!(poll(&mut watched, timeout).expect("poll") > 0, "neither can be read");
    watched[0].any() == Some(true)
}

/// Everything up to the end of file.
pub fn read_all(reader: OwnedFd) -> Vec<u8> {
    let mut file = fs::File::from(reader);
    let mut content = Vec::new();
    let mut block = [0; 65536];
    loop {
        wait_readable(file.as_raw_fd(), "the end of a stream");
        match file.read(&mut block).expect("read") {
            0 => return content,
            length => content.extend_from_slice(&block[..length]),
        }
    }
}

pub fn read_text(reader: OwnedFd) -> String {
    String::from_utf8(read_all(reader)).expect("text")
}

/// Lets a command inherit descriptors under the numbers given.
pub fn inherit(command: &mut Command, descriptors: Vec<(RawFd, OwnedFd)>) {
    // Out of the way of all the numbers.
    let raised = descriptors
        .iter()
        .map(|(number, descriptor)| {
            let high = fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(500)).expect("duplicate");
            // SAFETY: fcntl has just made it.
            (*number, unsafe { OwnedFd::from_raw_fd(high) })
        })
        .collect::<Vec<_>>();
    let place = move || {
        for (number, descriptor) in &raised {
            // SAFETY: dup2 on numbers that nobody else uses in the child.
            nix::errno::Errno::result(unsafe { libc::dup2(descriptor.as_raw_fd(), *number) })?;
        }
        Ok(())
    };
    // SAFETY: dup2 may be called between fork and execve.
    unsafe { command.pre_exec(place) };
}

/// A child that is killed at the end of the test.
pub struct Process {
    child: Child,
    ended: Option<WaitStatus>,
}

impl Process {
    pub fn start(command: &mut Command) -> Process {
        Process { child: command.spawn().expect("start a program"), ended: None }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    pub fn kill(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(self.pid(), signal).expect("send a signal");
    }

    /// How it ended: its code, or minus the signal's number.
    pub fn wait(&mut self) -> i32 {
        let status = self.ended.unwrap_or_else(|| {
            wait_for_end(self.pid());
            waitpid(self.pid(), Some(WaitPidFlag::empty())).expect("wait")
        });
        self.ended = Some(status);
        match status {
            WaitStatus::Exited(_, code) => code,
            WaitStatus::Signaled(_, signal, core) => {
                assert!(!core, "no core file may be made");
                -(signal as i32)
            }
            other => panic!("not an end: {other:?}"),
        }
    }

    pub fn has_ended(&mut self) -> bool {
        is_readable(pidfd(self.pid()).as_raw_fd(), Duration::ZERO)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = nix::sys::signal::kill(self.pid(), nix::sys::signal::Signal::SIGKILL);
            let _ = waitpid(self.pid(), None);
        }
    }
}

pub fn pidfd(pid: Pid) -> OwnedFd {
    // SAFETY: only numbers are passed.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    assert!(number >= 0, "process {pid} is there");
    // SAFETY: the kernel has just made it.
    unsafe { OwnedFd::from_raw_fd(number as RawFd) }
}

/// Waits until a process, of whomever, has ended.
pub fn wait_for_end(pid: Pid) {
    wait_readable(pidfd(pid).as_raw_fd(), "the end of a process");
}

/// Repeats a look at something that tells nobody when it changes.
pub fn eventually(what: &str, mut look: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !look() {
        assert!(std::time::Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A field of /proc/PID/status.
pub fn status_field(pid: i64, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("the field is there");
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The names in a folder, sorted.
pub fn names(folder: impl AsRef<Path>) -> Vec<String> {
    let folder = folder.as_ref();
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect::<Vec<_>>();
    names.sort();
    names
}
