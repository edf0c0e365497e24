//! `husk-helper sandbox`: the namespaces of a sandbox, and what runs in them.
//!
//! ```text
//! supervisor ──3── outer (the host's namespaces) ──link── init (PID 1 of the sandbox) ── virtiofsd, QEMU
//! ```
//!
//! - `outer` (this file) talks to the supervisor, opens what lies on the host, and ends as init ends.
//! - `init` makes the namespaces and the tree, starts the processes, reaps.
//! - Whoever dies, all die: init by PR_SET_PDEATHSIG; everything else because PID 1 of its namespace did. Outer learns of the
//!   supervisor's death by the end of their conversation and by a signal, kills init, and becomes what the plan calls `remains`:
//!   a program that gives back what the kernel does not.

mod copy;
mod init;
mod link;
mod monitor;
mod nodes;
mod open;
mod plan;
mod process;
mod shared;
mod template_memory;
mod tree;

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::unistd::{Pid, chdir, execv, getppid};
use serde::Serialize;

use crate::lines::Lines;
use crate::processes;
use crate::{cgroup, descriptors, namespaces, signals, unix_socket};
use link::{Link, Order, Packet, Report, Task};
use monitor::Monitor;
use plan::{Operation, Plan, Request};

/// The descriptor of the conversation with the supervisor.
const CONTROL: RawFd = 3;

/// What the supervisor is told.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Launched {
        pid: i32,
    },
    Started {
        name: String,
        pid: i32,
    },
    Exit {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
    },
    Fatal {
        message: String,
    },
    #[serde(untagged)]
    Done {
        id: u64,
        ok: bool,
    },
    #[serde(untagged)]
    Failed {
        id: Option<u64>,
        error: String,
    },
}

/// The sign of the supervisor's death as soon as there is something to be done after it. A process that has been stopped is woken by it.
const SUPERVISOR_DIED: Signal = Signal::SIGCONT;

/// Runs the outer process until the sandbox has ended, or the supervisor has.
pub fn main() -> Result<ExitCode> {
    let supervisor = getppid();
    die_with_parent()?;
    let inherited = descriptors::open_numbers(CONTROL + 1);
    // SAFETY: the number is this program's by contract, and nothing else here uses it.
    let mut control = Lines::new(unsafe { OwnedFd::from_raw_fd(CONTROL) });
    descriptors::close_at_exec_from(CONTROL)?;
    // The end of the conversation before the plan: the supervisor died, maybe before die_with_parent.
    let Some(line) = control.wait().context("cannot read the plan from descriptor 3")? else {
        return Ok(ExitCode::SUCCESS);
    };
    let plan: Plan = match serde_json::from_slice(&line) {
        Ok(plan) => plan,
        Err(error) => return refuse(&control, &format!("the plan cannot be understood: {error}")),
    };
    let remains = plan.remains.clone();
    let copies = plan.processes.iter().filter(|process| process.copy.is_some()).map(|process| process.name.clone()).collect();
    match launch(plan, inherited) {
        Ok(Launched { init, link, held, monitor }) => {
            let signals = signals::open(&SigSet::from_iter([SUPERVISOR_DIED]))?;
            let outcome = Outer { supervisor, control, signals, init, link, monitor, remains, copies }.serve();
            drop(held);
            outcome
        }
        Err(error) => refuse(&control, &format!("{error:#}")),
    }
}

/// Tells the zygote that listens at `path` that its machine stands still for good.
pub fn seal_zygote(path: &Path) -> Result<()> {
    copy::seal(&unix_socket::dial_for_packets(path)?)
}

fn refuse(control: &Lines, message: &str) -> Result<ExitCode> {
    control.send(&Event::Fatal { message: message.to_owned() })?;
    Ok(ExitCode::FAILURE)
}

/// Asks the kernel to kill the calling process as soon as its parent ends. A parent that has ended already shows as the end of
/// the conversation with it.
fn die_with_parent() -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot tie this process to its parent")
}

/// What the outer process has of the sandbox.
struct Launched {
    init: Pid,
    link: Link,
    /// Sources.held
    held: Vec<OwnedFd>,
    monitor: Option<Monitor>,
}

/// Carries out the part of the plan that needs the host's namespaces, and forks init.
fn launch(plan: Plan, inherited: BTreeSet<RawFd>) -> Result<Launched> {
    let available = plan.check(inherited)?;
    chdir("/").context("cannot enter /")?;
    let mut sources = open::Sources::open(&plan)?;
    let held = std::mem::take(&mut sources.held);
    let monitor = sources.monitor.take();
    let (ours, theirs) = Link::pair()?;
    // From here on there is something to do after the supervisor's death.
    signals::block(&SigSet::from_iter([SUPERVISOR_DIED]))?;
    prctl::set_pdeathsig(SUPERVISOR_DIED).context("cannot outlive the supervisor")?;
    if !plan.zygote {
        init::prepare()?;
    }
    match processes::fork()? {
        None => {
            // Init must not keep the conversations alive of which it has copies.
            drop((ours, held, monitor));
            descriptors::close([CONTROL]);
            init::main(plan, sources, available, theirs)
        }
        Some(init) => {
            // What the processes have must end with them.
            descriptors::close(available);
            namespaces::keep_children_here()?;
            Ok(Launched { init, link: ours, held, monitor })
        }
    }
}

/// The outer process, once there is a sandbox.
struct Outer {
    supervisor: Pid,
    control: Lines,
    signals: SignalFd,
    init: Pid,
    link: Link,
    monitor: Option<Monitor>,
    remains: Vec<String>,
    /// The processes that are copied: they come from other cgroups than init's.
    copies: BTreeSet<String>,
}

impl Outer {
    /// Carries messages both ways until the sandbox has ended, or the supervisor has.
    fn serve(mut self) -> Result<ExitCode> {
        loop {
            let own = [self.control.as_fd(), self.link.as_fd(), self.signals.as_fd()].into_iter();
            let all = own.chain(self.monitor.as_ref().map(Monitor::as_fd));
            let mut watched: Vec<_> = all.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
            match poll(&mut watched, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error).context("cannot wait for events"),
            }
            let happened: Vec<bool> = watched.iter().map(|descriptor| descriptor.any().unwrap_or(true)).collect();
            let (asked, told, signalled) = (happened[0], happened[1], happened[2]);
            if happened.get(3) == Some(&true) && !self.monitor.as_mut().is_some_and(Monitor::hear) {
                self.monitor = None;
            }
            if signalled {
                self.signals.read_signal().context("cannot read a signal")?;
            }
            if self.supervisor_is_gone(asked)? {
                return self.end();
            }
            if told {
                let Some(packet) = self.link.receive::<Report>()? else {
                    return self.mirror();
                };
                let joined = match &packet.message {
                    Report::Started { name } if self.copies.contains(name) => self.adopt(packet.pid),
                    _ => Ok(()),
                };
                let event = joined.map_or_else(|error| Event::Fatal { message: format!("{error:#}") }, |()| event(packet));
                // One that takes nothing any more is gone: the next round sees it.
                let _ = self.control.send(&event);
            }
            while let Some(line) = self.control.take() {
                if let Err((id, error)) = self.obey(&line) {
                    let _ = self.control.send(&Event::Failed { id, error: format!("{error:#}") });
                }
            }
        }
    }

    /// Gives a copy what its zygote has not from the supervisor, and init has.
    fn adopt(&self, pid: i32) -> Result<()> {
        cgroup::follow(pid, self.init.as_raw())?;
        let what = || format!("cannot set the OOM score of process {pid}");
        let score = fs::read("/proc/self/oom_score_adj").with_context(what)?;
        fs::write(format!("/proc/{pid}/oom_score_adj"), score).with_context(what)
    }

    /// Carries a request out, or has init do so. An error names the request where it has a number.
    fn obey(&mut self, line: &[u8]) -> std::result::Result<(), (Option<u64>, anyhow::Error)> {
        let Request { id, operation } = serde_json::from_slice(line).map_err(|error| (request_id(line), error.into()))?;
        if let Operation::Remains { program } = operation {
            self.remains = program;
            // One that takes nothing any more is gone: the next round sees it.
            let _ = self.control.send(&Event::Done { id, ok: true });
            return Ok(());
        }
        if let Operation::Give { set, path, write } = operation {
            self.give(set, &path, write).map_err(|error| (Some(id), error))?;
            let _ = self.control.send(&Event::Done { id, ok: true });
            return Ok(());
        }
        pass_on(id, operation, &self.link).map_err(|error| (Some(id), error))
    }

    fn give(&mut self, set: u32, path: &Path, write: bool) -> Result<()> {
        let file = open::open_file(path, write)?;
        let monitor = self.monitor.as_mut().context("QEMU has no second monitor")?;
        monitor.add_file(set, file.as_fd()).with_context(|| format!("cannot give {} to QEMU", path.display()))
    }

    /// Takes in what the supervisor says, where there is something. It is gone where the conversation has ended, or where
    /// another process has become our parent: a program of the supervisor's may hold the conversation open for a moment.
    fn supervisor_is_gone(&mut self, asked: bool) -> Result<bool> {
        Ok((asked && !self.control.receive()?) || getppid() != self.supervisor)
    }

    /// Ends as init did, unless both were killed together.
    fn mirror(mut self) -> Result<ExitCode> {
        if self.supervisor_is_gone(true)? {
            return self.end();
        }
        Ok(ExitCode::from((processes::wait(self.init)?.status() & 0xff) as u8))
    }

    /// Ends the sandbox in whatever state it is (not everything in it need be able to listen), and becomes the program that
    /// sees to what remains.
    fn end(self) -> Result<ExitCode> {
        kill(self.init, Signal::SIGKILL).context("cannot end the sandbox")?;
        processes::wait(self.init)?;
        let Some(program) = self.remains.first() else {
            return Ok(ExitCode::SUCCESS);
        };
        // Whoever read what is said here is gone.
        descriptors::silence(&[0, 1, 2])?;
        signals::restore_defaults()?;
        let arguments = self.remains.iter().map(processes::argument).collect::<Result<Vec<_>>>()?;
        let Err(error) = execv(&arguments[0], &arguments);
        Err(error).with_context(|| format!("cannot execute {program}"))
    }
}

fn event(packet: Packet<Report>) -> Event {
    match packet.message {
        Report::Entered => Event::Launched { pid: packet.pid },
        Report::Started { name } => Event::Started { name, pid: packet.pid },
        Report::Exited { name, code, signal } => Event::Exit { name, code, signal },
        Report::Fatal { message } => Event::Fatal { message },
        Report::Answer { id, error: None } => Event::Done { id, ok: true },
        Report::Answer { id, error: Some(error) } => Event::Failed { id: Some(id), error },
    }
}

/// Passes a request on to init, with what it needs of the host opened.
fn pass_on(id: u64, operation: Operation, link: &Link) -> Result<()> {
    match operation {
        Operation::Mount(mount) => {
            mount.check()?;
            let shared = open::shared(&mount)?;
            let task = Task::Mount { target: mount.target, folder: shared.folder };
            link.send(&Order { id, task }, Some(shared.tree.as_fd()))
        }
        Operation::Unmount { target } => link.send(&Order { id, task: Task::Unmount { target } }, None),
        Operation::Tap { name } => link.send(&Order { id, task: Task::Tap { name } }, None),
        Operation::Spawn { process } => link.send(&Order { id, task: Task::Spawn(process) }, None),
        Operation::Signal { name, signal } => link.send(&Order { id, task: Task::Signal { name, signal } }, None),
        Operation::Remains { .. } | Operation::Give { .. } => bail!("that is the outer process's business"),
    }
}

/// The number of a request that cannot be understood otherwise.
fn request_id(line: &[u8]) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(line).ok()?.get("id")?.as_u64()
}
