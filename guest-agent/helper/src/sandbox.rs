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
//!   a program that gives back what the kernel does not. While there is one, outer outlives init: the supervisor may yet die before
//!   it has given all of that back itself.

mod copy;
mod filled;
mod heir;
mod init;
mod link;
mod monitor;
mod nodes;
mod open;
mod plan;
mod prelude;
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
use nix::unistd::{Pid, chdir, getppid};
use serde::Serialize;

use crate::lines::Lines;
use crate::processes;
use crate::{cgroup, descriptors, namespaces, signals, unix_socket};
use filled::Filled;
use heir::{Heir, become_program};
use link::{Link, Order, Packet, Report, Task};
use monitor::Monitor;
use plan::{Operation, Plan, Request};
use prelude::Prelude;

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
    /// Nothing of the sandbox is left, but `remains` is.
    Ended {
        status: u8,
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

/// The sign of the supervisor's death. A process that has been stopped is woken by it.
const SUPERVISOR_DIED: Signal = Signal::SIGCONT;

/// Runs the outer process until the sandbox has ended, or the supervisor has.
pub fn main() -> Result<ExitCode> {
    let supervisor = getppid();
    signals::block(&SigSet::from_iter([SUPERVISOR_DIED]))?;
    prctl::set_pdeathsig(SUPERVISOR_DIED).context("cannot outlive the supervisor")?;
    let inherited = descriptors::open_numbers(CONTROL + 1);
    // SAFETY: the number is this program's by contract, and nothing else here uses it.
    let mut control = Lines::new(unsafe { OwnedFd::from_raw_fd(CONTROL) });
    descriptors::close_at_exec_from(CONTROL)?;
    let mut prelude = Prelude::default();
    let plan = loop {
        // Closed again before the plan, whose numbers it may have.
        let lives = listen(&mut control, &signals::open(&SigSet::from_iter([SUPERVISOR_DIED]))?, supervisor)
            .context("cannot read the plan from descriptor 3")?;
        match prelude.take_plan(&mut control) {
            Some(plan) => break plan,
            None if lives => {}
            None => return become_program(&prelude.remains),
        }
    };
    let Prelude { mut remains, filled } = prelude;
    if let Ok(plan) = &plan {
        remains.clone_from(&plan.remains);
    }
    let launched = plan.and_then(|plan| launch(plan, filled, inherited));
    let signals = signals::open(&SigSet::from_iter([SUPERVISOR_DIED]))?;
    match launched {
        Ok(launched) => Outer { supervisor, control, signals, launched, remains }.serve(),
        Err(error) => {
            let _ = control.send(&Event::Fatal { message: format!("{error:#}") });
            Heir { supervisor, control, signals, remains }.serve(1)
        }
    }
}

/// Waits until the supervisor says something, or dies. Answers false where it is dead: what it said last may be there to be taken.
fn listen(control: &mut Lines, signals: &SignalFd, supervisor: Pid) -> Result<bool> {
    let mut watched = [control.as_fd(), signals.as_fd()].map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
    match poll(&mut watched, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error).context("cannot wait for the supervisor"),
    }
    signals.read_signal().context("cannot read a signal")?;
    Ok(control.receive()? && getppid() == supervisor)
}

/// Tells the zygote that listens at `path` that its machine stands still for good.
pub fn seal_zygote(path: &Path) -> Result<()> {
    copy::seal(&unix_socket::dial_for_packets(path)?)
}

/// What the outer process has of the sandbox.
struct Launched {
    init: Pid,
    link: Link,
    /// `Sources.held`, as long as there is a sandbox.
    _held: Vec<OwnedFd>,
    monitor: Option<Monitor>,
    /// The processes that are copied: they come from other cgroups than init's.
    copies: BTreeSet<String>,
}

/// Carries out the part of the plan that needs the host's namespaces, and forks init.
fn launch(plan: Plan, filled: Option<Filled>, inherited: BTreeSet<RawFd>) -> Result<Launched> {
    let available = plan.check(inherited)?;
    chdir("/").context("cannot enter /")?;
    let mut sources = open::Sources::open(&plan, filled)?;
    let held = std::mem::take(&mut sources.held);
    let monitor = sources.monitor.take();
    let copies = plan.processes.iter().filter(|process| process.copy.is_some()).map(|process| process.name.clone()).collect();
    let (ours, theirs) = Link::pair()?;
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
            if let Err(error) = namespaces::keep_children_here() {
                end(init)?;
                return Err(error);
            }
            Ok(Launched { init, link: ours, _held: held, monitor, copies })
        }
    }
}

/// The outer process, once there is a sandbox.
struct Outer {
    supervisor: Pid,
    control: Lines,
    signals: SignalFd,
    launched: Launched,
    remains: Vec<String>,
}

impl Outer {
    /// Carries messages both ways until the sandbox has ended, or the supervisor has.
    fn serve(mut self) -> Result<ExitCode> {
        loop {
            let own = [self.control.as_fd(), self.launched.link.as_fd(), self.signals.as_fd()].into_iter();
            let all = own.chain(self.launched.monitor.as_ref().map(Monitor::as_fd));
            let mut watched: Vec<_> = all.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
            match poll(&mut watched, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error).context("cannot wait for events"),
            }
            let happened: Vec<bool> = watched.iter().map(|descriptor| descriptor.any().unwrap_or(true)).collect();
            let (asked, told, signalled) = (happened[0], happened[1], happened[2]);
            if happened.get(3) == Some(&true) && !self.launched.monitor.as_mut().is_some_and(Monitor::hear) {
                self.launched.monitor = None;
            }
            if signalled {
                self.signals.read_signal().context("cannot read a signal")?;
            }
            if self.supervisor_is_gone(asked)? {
                return self.end();
            }
            if told {
                let Some(packet) = self.launched.link.receive::<Report>()? else {
                    return self.mirror();
                };
                let joined = match &packet.message {
                    Report::Started { name } if self.launched.copies.contains(name) => self.adopt(packet.pid),
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
        cgroup::follow(pid, self.launched.init.as_raw())?;
        let what = || format!("cannot set the OOM score of process {pid}");
        let score = fs::read("/proc/self/oom_score_adj").with_context(what)?;
        fs::write(format!("/proc/{pid}/oom_score_adj"), score).with_context(what)
    }

    /// Carries a request out, or has init do so. An error names the request where it has a number.
    fn obey(&mut self, line: &[u8]) -> std::result::Result<(), (Option<u64>, anyhow::Error)> {
        let Request { id, operation } = serde_json::from_slice(line).map_err(|error| (request_id(line), error.into()))?;
        match operation {
            Operation::Remains { program } => self.remains = program,
            Operation::Give { set, path, write } => self.give(set, &path, write).map_err(|error| (Some(id), error))?,
            Operation::End => kill(self.launched.init, Signal::SIGKILL).map_err(|error| (Some(id), error.into()))?,
            others => return pass_on(id, others, &self.launched.link).map_err(|error| (Some(id), error)),
        }
        // One that takes nothing any more is gone: the next round sees it.
        let _ = self.control.send(&Event::Done { id, ok: true });
        Ok(())
    }

    fn give(&mut self, set: u32, path: &Path, write: bool) -> Result<()> {
        let file = open::open_file(path, write)?;
        let monitor = self.launched.monitor.as_mut().context("QEMU has no second monitor")?;
        monitor.add_file(set, file.as_fd()).with_context(|| format!("cannot give {} to QEMU", path.display()))
    }

    /// Takes in what the supervisor says, where there is something. It is gone where the conversation has ended, or where
    /// another process has become our parent: a program of the supervisor's may hold the conversation open for a moment.
    fn supervisor_is_gone(&mut self, asked: bool) -> Result<bool> {
        Ok((asked && !self.control.receive()?) || getppid() != self.supervisor)
    }

    /// Ends as init did, unless both were killed together, or something remains.
    fn mirror(mut self) -> Result<ExitCode> {
        if self.supervisor_is_gone(true)? {
            return self.end();
        }
        let status = (processes::wait(self.launched.init)?.status() & 0xff) as u8;
        let Outer { supervisor, control, signals, launched, remains } = self;
        drop(launched);
        Heir { supervisor, control, signals, remains }.serve(status)
    }

    /// Ends the sandbox in whatever state it is (not everything in it need be able to listen), and sees to what remains.
    fn end(self) -> Result<ExitCode> {
        end(self.launched.init)?;
        become_program(&self.remains)
    }
}

/// Kills init, and with it everything in the sandbox, and waits for their end.
fn end(init: Pid) -> Result<()> {
    kill(init, Signal::SIGKILL).context("cannot end the sandbox")?;
    processes::wait(init).map(drop)
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
        Operation::Remains { .. } | Operation::Give { .. } | Operation::End | Operation::Fill { .. } => {
            bail!("that is the outer process's business")
        }
    }
}

/// The number of a request that cannot be understood otherwise.
fn request_id(line: &[u8]) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(line).ok()?.get("id")?.as_u64()
}
