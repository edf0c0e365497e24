//! The first stage: in the agent's namespaces, up to the fork into the container's.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::unistd::{ForkResult, Gid, Uid, fork, pipe2, setgroups, setresgid, setresuid};

use super::attributes::Proc;
use super::control::Control;
use super::rootfs::{self, Gathered};
use super::second_stage;
use super::wire::{Kind, Plan, ToAgent, ToChild};
use super::{limits, namespaces};
use crate::error::{Context, Failure, Result};
use crate::spec::{Process, Spec, parse};
use crate::sys;

/// Everything that the second stage works from.
pub struct Setup {
    pub container_id: String,
    pub spec: Spec,
    pub process: Process,
    pub terminal: Option<super::wire::TerminalSize>,
    /// Standard input, output and error; none with a terminal.
    pub streams: Vec<OwnedFd>,
    pub proc: Proc,
    /// A container's init: its root file system, and the folder of the guest where it is put together.
    pub root: Option<(Gathered, String)>,
    /// This process, as the agent sees it.
    pub pid: i32,
}

/// Carries the plan out, up to where the second stage, a process of its own, takes over; returns in the first one.
pub fn run(control: &mut Control) -> Result<()> {
    // Nobody in the container may look into this process while it is still the agent's.
    nix::sys::prctl::set_dumpable(false).context(|| "make the set-up undumpable")?;
    let (plan, streams) = control.receive_plan()?;
    let spec: Spec = parse("spec", plan.spec.as_bytes())?;
    let process: Process = parse("process", plan.process.as_bytes())?;
    let proc = Proc::open()?;
    join_cgroup(&plan, &proc)?;
    limits::set_oom_score_adj(&process, &proc)?;
    if let Some(affinity) = &process.exec_cpu_affinity {
        limits::set_affinity(&affinity.initial)?;
    }

    let flags = namespaces::of(&spec.linux)?;
    let root = match &plan.kind {
        Kind::Init(init) => {
            let gathered = rootfs::gather(
                &spec,
                &init.rootfs,
                flags.contains(CloneFlags::CLONE_NEWUSER),
            )?;
            enter_new_namespaces(control, &spec, &init.join, flags)?;
            Some((gathered, init.rootfs.clone()))
        }
        Kind::Exec { init_pid } => {
            namespaces::join(*init_pid, flags)?;
            if flags.contains(CloneFlags::CLONE_NEWUSER) {
                become_root()?;
            }
            None
        }
    };
    let setup = Setup {
        container_id: plan.container_id,
        spec,
        process,
        terminal: plan.terminal,
        streams,
        proc,
        root,
        pid: 0,
    };
    hand_over(control, setup)
}

/// Forks the second stage, and lets it go on once the agent knows of it.
fn hand_over(control: &mut Control, setup: Setup) -> Result<()> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context(|| "make a pipe")?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }.context(|| "fork the container's process")? {
        ForkResult::Parent { child } => {
            drop(reader);
            control.send(&ToAgent::Forked {
                pid: child.as_raw(),
            })?;
            control.expect(ToChild::Go)?;
            File::from(writer)
                .write_all(&child.as_raw().to_le_bytes())
                .context(|| "release the container's process")
        }
        ForkResult::Child => {
            drop(writer);
            let mut pid = [0; 4];
            File::from(reader)
                .read_exact(&mut pid)
                .context(|| "wait for the agent")?;
            Err(second_stage::run(
                control,
                Setup {
                    pid: i32::from_le_bytes(pid),
                    ..setup
                },
            ))
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
    if let (Kind::Exec { init_pid }, Some(libc::EBUSY)) = (&plan.kind, error.raw_os_error()) {
        let line = proc.read(&format!("{init_pid}/cgroup"))?;
        if let Some(path) = line.lines().find_map(|line| line.strip_prefix("0::")) {
            return join(&format!("/sys/fs/cgroup{path}"))
                .context(|| format!("join the cgroup {path}"));
        }
    }
    Err(Failure::other(format!(
        "join the cgroup {}: {error}",
        plan.cgroup
    )))
}

fn enter_new_namespaces(
    control: &mut Control,
    spec: &Spec,
    join: &[(String, i32)],
    flags: CloneFlags,
) -> Result<()> {
    let mut new = flags;
    for (kind, pid) in join {
        let flag = namespaces::flag(kind)?;
        namespaces::join(*pid, flag)?;
        new -= flag;
    }
    if new.contains(CloneFlags::CLONE_NEWUSER) {
        // First, and alone, so that the others belong to it.
        namespaces::make(CloneFlags::CLONE_NEWUSER)?;
        control.send(&ToAgent::MapUser)?;
        control.expect(ToChild::Go)?;
        new -= CloneFlags::CLONE_NEWUSER;
    }
    if flags.contains(CloneFlags::CLONE_NEWUSER) {
        become_root()?;
    }
    namespaces::make(new)?;
    namespaces::set_time_offsets(&spec.linux)?;
    let name = sys::c_string("_ses.husk").context(|| "name a keyring")?;
    match sys::join_new_session_keyring(&name) {
        // A kernel without keyrings has none to keep apart.
        Ok(()) | Err(nix::errno::Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(Failure::other(format!("make a session keyring: {errno}"))),
    }
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
