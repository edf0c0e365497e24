//! The first process of the sandbox's PID namespace, for containers that have none of their own: they see each other, and never the agent.
//!
//! It does nothing but be there: the kernel reaps its children. Its root is empty, since containers find it as their process 1.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{chdir, pause, pivot_root};

use super::attributes::Proc;
use super::control::Control;
use super::wire::ToAgent;
use super::{first_stage, namespaces};
use crate::error::{Context, Result};
use crate::folders::EMPTY;

/// Makes the namespaces, and forks the process that stays in them.
pub fn fork(control: &mut Control, proc: &Proc) -> Result<()> {
    proc.write("self/oom_score_adj", "-1000")?;
    namespaces::make(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS)?;
    first_stage::hand_over(control, |control, _| match stay(control) {
        Ok(never) => match never {},
        Err(failure) => failure,
    })
}

fn stay(control: &mut Control) -> Result<std::convert::Infallible> {
    leave_everything().context(|| "empty the root of the sandbox's first process")?;
    // SAFETY: no handler, so no code of ours. Ignoring SIGCHLD makes the kernel reap.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.context(|| "ignore SIGCHLD")?;
    nix::sys::prctl::set_name(c"sandbox").context(|| "take a name")?;
    control.send(&ToAgent::Ready)?;
    loop {
        pause();
    }
}

fn leave_everything() -> Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context(|| "make / private")?;
    mount(
        Some("tmpfs"),
        EMPTY,
        Some("tmpfs"),
        MsFlags::MS_RDONLY,
        none,
    )
    .context(|| "mount a tmpfs")?;
    chdir(EMPTY).context(|| format!("enter {EMPTY}"))?;
    pivot_root(".", ".").context(|| "pivot")?;
    umount2(".", MntFlags::MNT_DETACH).context(|| "let go of the guest's root")?;
    chdir("/").context(|| "enter /")
}
