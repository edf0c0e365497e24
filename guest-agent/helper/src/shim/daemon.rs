//! The shim's server as a process of its own: nothing of the caller's but its environment reaches it.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid, pipe2, setsid};

use crate::programs::Programs;
use crate::{cgroup, descriptors, processes, signals};

/// The descriptor of the listening socket in the server.
const LISTENER: i32 = 3;

/// What the C library is told, so that the buffers of bulk output go back to the system: one pool for all threads, cut whenever its end is free.
const ALLOCATION: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", "1"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

/// The highest score there is: the first to be killed where memory is short.
const WORST_OOM_SCORE: i32 = 1000;

/// What a server has besides what it inherits.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    pub variables: &'a [(&'a str, &'a str)],
    /// The folders of the cgroups that it is to be in.
    pub cgroups: &'a [PathBuf],
}

/// A server that runs.
pub struct Daemon(Pid);

impl Daemon {
    /// Starts the server in the current folder, with a listening socket. Answers when its program runs: Node, that is, not yet husk's.
    pub fn start(programs: Programs<'_>, words: &[OsString], listener: &OwnedFd, surroundings: &Surroundings<'_>) -> Result<Daemon> {
        let oom_score = oom_score();
        let (reader, low) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
        // Out of the way of the server's numbers.
        let writer = descriptors::raise(low.as_fd(), LISTENER + 1)?;
        drop(low);
        let Some(child) = processes::fork()? else {
            drop(reader);
            let Err(error) = become_server(programs, words, listener, surroundings, oom_score);
            // Where the starting process is gone, nobody is left to be told.
            let _ = File::from(writer).write_all(format!("{error:#}").as_bytes());
            std::process::exit(1)
        };
        drop(writer);
        let mut message = String::new();
        // The pipe ends when the program is executed, which closes it.
        let heard = File::from(reader).read_to_string(&mut message).context("cannot hear of the server's start");
        let daemon = Daemon(child);
        if let Err(error) = heard.and_then(|length| if length == 0 { Ok(()) } else { Err(anyhow!(message)) }) {
            daemon.end();
            return Err(error);
        }
        Ok(daemon)
    }

    /// Takes the start back.
    pub fn end(self) {
        // A process that has ended already is as it should be.
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = processes::wait(self.0);
    }
}

fn become_server(
    programs: Programs<'_>,
    words: &[OsString],
    listener: &OwnedFd,
    surroundings: &Surroundings<'_>,
    oom_score: Option<i32>,
) -> Result<Infallible> {
    if let Some(score) = oom_score {
        // Lowering it may be forbidden; the server works all the same.
        let _ = fs::write("/proc/self/oom_score_adj", score.to_string());
    }
    // Before it takes any memory that would be counted elsewhere.
    cgroup::join(surroundings.cgroups)?;
    processes::unbind();
    // What containerd sends to its own process group, or its terminal does, is not the server's.
    setsid().context("cannot make a session")?;
    // Out of the way of the numbers below; closed when the program runs.
    let listener = descriptors::raise(listener.as_fd(), LISTENER + 1)?;
    descriptors::silence(&[0, 1, 2])?;
    if let Some(log) = open_log() {
        let log = descriptors::raise(log.as_fd(), LISTENER + 1)?;
        [1, 2].into_iter().try_for_each(|number| descriptors::place(log.as_fd(), number))?;
    }
    descriptors::place(listener.as_fd(), LISTENER)?;
    descriptors::close_at_exec_from(LISTENER + 1)?;
    signals::restore_defaults()?;
    for (name, value) in surroundings.variables.iter().copied().chain(ALLOCATION) {
        // SAFETY: there is only this thread.
        unsafe { std::env::set_var(name, value) };
    }
    programs.execute(&super::SERVER_FLAGS, super::SCRIPT, words)
}

/// The bundle's log, a FIFO that containerd reads; `None` where there is none, or nobody reads it.
fn open_log() -> Option<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY;
    let log = OpenOptions::new().write(true).custom_flags(flags).open("log").ok()?;
    log.metadata().ok()?.file_type().is_fifo().then_some(log)
}

/// How willingly a server is killed where memory is short: a little more than containerd, which has started this process.
pub fn oom_score() -> Option<i32> {
    let callers: i32 = fs::read_to_string(format!("/proc/{}/oom_score_adj", getppid())).ok()?.trim().parse().ok()?;
    Some((callers + 1).min(WORST_OOM_SCORE))
}
