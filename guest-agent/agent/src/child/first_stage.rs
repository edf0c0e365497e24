//! The first stage: in the agent's namespaces, up to the fork into the container's.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::unistd::{ForkResult, Gid, Uid, fork, pipe2, setgroups, setresgid, setresuid};

use super::attributes::Proc;
use super::control::Control;
use super::rootfs::{self, Gathered};
use super::streams;
use super::wire::{Kind, Plan, ToAgent, ToChild};
use super::{capabilities, limits, namespaces};
use super::{sandbox_init, second_stage};
use crate::error::{Context, Failure, Result};
use crate::spec::{Process, Spec, parse};

/// Everything that the second stage works from.
pub struct Setup {
    pub container_id: String,
    pub spec: Spec,
    pub process: Process,
    pub terminal: Option<super::wire::TerminalSize>,
    /// As the plan has it.
    pub plain_newlines: bool,
    /// Standard input, output and error; none with a terminal.
    pub streams: Vec<OwnedFd>,
    /// For a container's init: the guest's /proc. A further process has none, since the container could take it from it.
    pub proc: Option<Proc>,
    /// A container's init: its root file system, and the folder of the guest where it is put together.
    pub root: Option<(Gathered, String)>,
    /// This process, as the agent sees it.
    pub pid: i32,
}

/// Carries the plan out, up to where the second stage, a process of its own, takes over; returns in the first one.
pub fn run(control: &mut Control) -> Result<()> {
    // Nobody in the container may look into this process while it is still the agent's.
    nix::sys::prctl::set_dumpable(false).context(|| "make the set-up undumpable")?;
    capabilities::supported();
    control.send(&ToAgent::Waiting)?;
    let (plan, streams) = control.receive_plan()?;
    let proc = Proc::open()?;
    if matches!(plan.kind, Kind::SandboxInit) {
        return sandbox_init::fork(control, &proc);
    }
    let spec: Spec = parse("spec", plan.spec.as_bytes())?;
    let mut process: Process = parse("process", plan.process.as_bytes())?;
    if matches!(plan.kind, Kind::Exec { .. }) {
        inherit(&mut process, spec.process.as_ref());
    }
    join_cgroup(&plan, &proc)?;
    limits::set_oom_score_adj(&process, &proc)?;
    limits::set_default_rlimits()?;
    if let Some(affinity) = &process.exec_cpu_affinity {
        limits::set_affinity(&affinity.initial)?;
    }

    let flags = namespaces::of(&spec.linux)?;
    if flags.contains(CloneFlags::CLONE_NEWUSER) {
        streams::give_to_mapped_root(&streams, &spec.linux)?;
    }
    let (root, proc) = match &plan.kind {
        Kind::Init(init) => {
            let gathered = rootfs::gather(
                &spec,
                &init.rootfs,
                flags.contains(CloneFlags::CLONE_NEWUSER),
            )?;
            enter_new_namespaces(control, &spec, &init.join, flags)?;
            (Some((gathered, init.rootfs.clone())), Some(proc))
        }
        Kind::SandboxInit => (None, None),
        Kind::Exec { init_pid } => {
            drop(proc);
            namespaces::join(*init_pid, flags)?;
            if flags.contains(CloneFlags::CLONE_NEWUSER) {
                become_root()?;
            }
            (None, None)
        }
    };
    let setup = Setup {
        container_id: plan.container_id,
        spec,
        process,
        terminal: plan.terminal,
        plain_newlines: plan.plain_newlines,
        streams,
        proc,
        root,
        pid: 0,
    };
    hand_over(control, |control, pid| {
        second_stage::run(control, Setup { pid, ..setup })
    })
}

/// What a further process does not say of itself is as with the container's first, as runc has it.
fn inherit(process: &mut Process, first: Option<&Process>) {
    let Some(first) = first else { return };
    process.capabilities = process
        .capabilities
        .take()
        .or_else(|| first.capabilities.clone());
    process.oom_score_adj = process.oom_score_adj.or(first.oom_score_adj);
    process.scheduler = process.scheduler.take().or_else(|| first.scheduler.clone());
    process.io_priority = process
        .io_priority
        .take()
        .or_else(|| first.io_priority.clone());
}

/// Forks, and lets the child go on as the second stage once the agent has been told of it. The second stage returns only its failure.
pub fn hand_over(
    control: &mut Control,
    second_stage: impl FnOnce(&mut Control, i32) -> Failure,
) -> Result<()> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context(|| "make a pipe")?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }.context(|| "fork the container's process")? {
        ForkResult::Parent { child } => {
            drop(reader);
            control.send(&ToAgent::Forked {
                pid: child.as_raw(),
            })?;
            File::from(writer)
                .write_all(&child.as_raw().to_le_bytes())
                .context(|| "release the container's process")
        }
        ForkResult::Child => {
            drop(writer);
            let mut pid = [0; 4];
            File::from(reader)
                .read_exact(&mut pid)
                .context(|| "wait for the first stage")?;
            Err(second_stage(control, i32::from_le_bytes(pid)))
        }
    }
}

fn join_cgroup(plan: &Plan, proc: &Proc) -> Result<()> {
    let join = |folder: &str| fs::write(format!("{folder}/cgroup.procs"), "0");
    let error = match join(&plan.cgroup) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    // A container that manages cgroups itself has moved its processes down, and the kernel then takes no more of them up here.
    if let (Kind::Exec { init_pid }, Some(libc::EBUSY)) = (&plan.kind, error.raw_os_error())
        && !plan.exact_cgroup
    {
        let line = proc.read(&format!("{init_pid}/cgroup"))?;
        if let Some(path) = line.lines().find_map(|line| line.strip_prefix("0::")) {
            return join(&format!("/sys/fs/cgroup{path}"))
                .context(|| format!("join the cgroup {path}"));
        }
    }
    let what = match (plan.exact_cgroup, error.kind()) {
        // In runc's words.
        (true, ErrorKind::NotFound) => format!(
            "--cgroup: adding pid {} to {}/cgroup.procs: no such file or directory",
            std::process::id(),
            plan.cgroup
        ),
        _ => format!("join the cgroup {}: {error}", plan.cgroup),
    };
    Err(Failure::other(what))
}

fn enter_new_namespaces(
    control: &mut Control,
    spec: &Spec,
    join: &[(String, i32)],
    flags: CloneFlags,
) -> Result<()> {
    let mut new = flags;
    // The user namespace last: in it, there are no rights over those that belong to others.
    let (user, others): (Vec<_>, Vec<_>) = join.iter().partition(|(kind, _)| kind == "user");
    for (kind, pid) in others.into_iter().chain(user) {
        let flag = namespaces::flag(kind)?;
        namespaces::join(*pid, flag)?;
        new -= flag;
    }
    if new.contains(namespaces::CLONE_NEWTIME) {
        // Before the user namespace, which has no right to set its clocks.
        namespaces::make(namespaces::CLONE_NEWTIME)?;
        namespaces::set_time_offsets(&spec.linux)?;
        new -= namespaces::CLONE_NEWTIME;
    }
    if new.contains(CloneFlags::CLONE_NEWUSER) {
        // First of the rest, and alone, so that the others belong to it.
        namespaces::make(CloneFlags::CLONE_NEWUSER)?;
        control.send(&ToAgent::MapUser)?;
        control.expect(ToChild::Go)?;
        new -= CloneFlags::CLONE_NEWUSER;
    }
    if flags.contains(CloneFlags::CLONE_NEWUSER) {
        become_root()?;
    }
    namespaces::make(new)
}

/// The user namespace's root, who sets everything else up.
fn become_root() -> Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid)
        .and_then(|()| setresuid(uid, uid, uid))
        .and_then(|()| setgroups(&[]))
        .context(|| "become root of the user namespace (does linux.uidMappings map 0?)")?;
    // A change of user makes a process dumpable or not by its own rules.
    nix::sys::prctl::set_dumpable(false).context(|| "make the set-up undumpable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_process_takes_after_the_first() {
        let first = br#"{"oomScoreAdj": 5, "capabilities": {"bounding": ["CAP_KILL"]}}"#;
        let first: Process = parse("process", first).expect("a process");
        let mut process: Process = parse("process", br#"{"oomScoreAdj": 7}"#).expect("a process");
        inherit(&mut process, Some(&first));
        assert_eq!(process.oom_score_adj, Some(7));
        assert_eq!(process.capabilities, first.capabilities);
    }
}
