//! PID 1 of a sandbox: makes its namespaces and its tree, starts its programs, reaps, and obeys the outer process.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, RawFd};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sethostname};

use super::copy::{self, Copied};
use super::link::{Link, Order, Packet, Report, Task};
use super::open::{Shared, Sources};
use super::plan::{Plan, Process, User};
use super::{process, shared, tree};
use crate::processes::End;
use crate::{cgroup, descriptors, namespaces, network, signals};

/// Makes the next child of the calling process PID 1 of a new PID namespace.
pub fn prepare() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWPID).context("cannot make a PID namespace")
}

/// Runs PID 1 until the outer process is gone. `available`: the descriptors that may be given to processes.
pub fn main(plan: Plan, sources: Sources, available: BTreeSet<RawFd>, link: Link) -> ! {
    let code = match run(plan, sources, available, &link) {
        Ok(()) => 0,
        Err(error) => {
            // Where the outer process is gone as well, nobody is left to be told.
            match link.send(&Report::Fatal { message: format!("{error:#}") }, None) {
                Ok(()) => 1,
                Err(_) => 2,
            }
        }
    };
    std::process::exit(code)
}

fn run(plan: Plan, sources: Sources, available: BTreeSet<RawFd>, link: &Link) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot tie this process to its parent")?;
    // A parent outside the PID namespace has no PID here to look for: had it died before the line above, the link would have ended.
    if is_over(link)? {
        return Ok(());
    }
    let mask = SigSet::from_iter([Signal::SIGCHLD]);
    signals::block(&mask)?;
    let children = signals::open(&mask)?;

    // While the host's cgroups can still be seen.
    cgroup::join(&plan.cgroups)?;
    enter_namespaces()?;
    link.send_with_pid(&Report::Entered, std::process::id() as i32)?;
    tree::build(sources.tree, &sources.devices, plan.user)?;
    for (target, tree) in &sources.mounts {
        shared::show(target, tree)?;
    }
    drop(sources.mounts);

    let mut init = Init { user: plan.user, ends_with_parent: plan.zygote, available, running: BTreeMap::new(), copies: Vec::new() };
    for process in &plan.processes {
        init.start(process, link)?;
    }
    // Several of the plan's processes may have the same descriptor, so none is closed before all of them run.
    plan.processes.iter().for_each(|process| init.give_up(process));
    init.serve(link, &children)
}

fn is_over(link: &Link) -> Result<bool> {
    let mut watched = [PollFd::new(link.as_fd(), PollFlags::empty())];
    poll(&mut watched, PollTimeout::ZERO).context("cannot look at the outer process")?;
    Ok(watched[0].any().unwrap_or(true))
}

fn enter_namespaces() -> Result<()> {
    let surroundings = CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWNET;
    unshare(surroundings).context("cannot make the IPC, UTS and network namespaces")?;
    sethostname("husk").context("cannot name the sandbox")?;
    namespaces::raise_loopback()?;
    namespaces::unshare_mounts()
}

struct Init {
    user: User,
    /// Whether each process has to be tied to this one: it is not PID 1, whose end is everybody's.
    ends_with_parent: bool,
    available: BTreeSet<RawFd>,
    running: BTreeMap<Pid, String>,
    /// Those of them that are no children.
    copies: Vec<Copied>,
}

impl Init {
    fn start(&mut self, process: &Process, link: &Link) -> Result<()> {
        ensure!(!self.running.values().any(|name| *name == process.name), "a process named {} is running", process.name);
        let pid = match &process.copy {
            None => process::start(process, self.user, &self.available, self.ends_with_parent)?,
            Some(of) => {
                process.check(&self.available)?;
                let copied = copy::make(process, of, self.user)?;
                self.available.remove(&of.from);
                let pid = copied.pid;
                self.copies.push(copied);
                pid
            }
        };
        self.running.insert(pid, process.name.clone());
        link.send_with_pid(&Report::Started { name: process.name.clone() }, pid.as_raw())
    }

    /// Closes what a process has been given: the other ends shall see when it is gone.
    fn give_up(&mut self, process: &Process) {
        let placed = process.copy.iter().flat_map(|of| &of.places).map(|(own, _)| *own);
        descriptors::close(process.fds.iter().copied().chain(placed).filter(|number| self.available.remove(number)));
    }

    fn serve(&mut self, link: &Link, children: &SignalFd) -> Result<()> {
        loop {
            let own = [link.as_fd(), children.as_fd()].into_iter();
            let mut watched: Vec<_> =
                own.chain(self.copies.iter().map(Copied::as_fd)).map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
            match poll(&mut watched, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error).context("cannot wait for events"),
            }
            let told: Vec<bool> = watched.iter().map(|descriptor| descriptor.any().unwrap_or(true)).collect();
            let (asked, ended) = (told[0], told[1]);
            self.look_at_copies(&told[2..], link)?;
            if ended {
                // One reading stands for any number of children.
                children.read_signal().context("cannot read a signal")?;
                self.reap(link)?;
            }
            if asked {
                let Some(packet) = link.receive::<Order>()? else {
                    return Ok(());
                };
                let id = packet.message.id;
                let error = self.obey(packet, link).err().map(|error| format!("{error:#}"));
                link.send(&Report::Answer { id, error }, None)?;
            }
        }
    }

    /// Tells of the copies that have ended, of those that are named.
    fn look_at_copies(&mut self, told: &[bool], link: &Link) -> Result<()> {
        for index in (0..told.len()).rev().filter(|&index| told[index]) {
            let Some(end) = self.copies[index].ended()? else { continue };
            let Copied { pid, name, .. } = self.copies.swap_remove(index);
            self.running.remove(&pid);
            report_end(name, end, link)?;
        }
        Ok(())
    }

    /// Reaps every child that has ended: the sandbox's own processes, and orphans of theirs.
    fn reap(&mut self, link: &Link) -> Result<()> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Ok(status) => {
                    let Some((pid, end)) = End::of(status) else { continue };
                    let Some(name) = self.running.remove(&pid) else { continue };
                    report_end(name, Some(end), link)?;
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("cannot wait for a process"),
            }
        }
    }

    fn obey(&mut self, packet: Packet<Order>, link: &Link) -> Result<()> {
        match packet.message.task {
            Task::Mount { target, folder } => {
                let tree = packet.descriptor.context("the mount came without its tree")?;
                shared::show(&target, &Shared { tree, folder })
            }
            Task::Unmount { target } => shared::hide(&target),
            Task::Spawn(process) => {
                self.start(&process, link)?;
                self.give_up(&process);
                Ok(())
            }
            Task::Tap { name } => network::make_tap(&name, self.user.uid),
            Task::Signal { name, signal } => self.signal(&name, signal),
        }
    }

    fn signal(&self, name: &str, number: i32) -> Result<()> {
        let Some((pid, _)) = self.running.iter().find(|(_, running)| *running == name) else {
            bail!("no process named {name} is running");
        };
        let signal = Signal::try_from(number).with_context(|| format!("{number} is no signal"))?;
        kill(*pid, signal).with_context(|| format!("cannot send {signal} to {name}"))
    }
}

/// Tells how a process ended, as far as anybody knows.
fn report_end(name: String, end: Option<End>, link: &Link) -> Result<()> {
    let (code, signal) = match end {
        Some(End::Code(code)) => (Some(code), None),
        Some(End::Signal(signal)) => (None, Some(signal)),
        None => (None, None),
    };
    link.send(&Report::Exited { name, code, signal }, None)
}
