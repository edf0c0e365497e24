//! The second stage: in the container's namespaces, from an empty root to the program.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{sethostname, setsid};

use super::control::Control;
use super::first_stage::Setup;
use super::program::{self, Program};
use super::resolve::{Missing, resolve};
use super::terminal::{self, Terminal};
use super::wire::{ToAgent, ToChild};
use super::{hooks, identity, limits, personality, rootfs, seccomp, streams, sysctl};
use crate::error::{Class, Context, Failure, Result};
use crate::spec::Spec;
use crate::sys;

/// Becomes the process's program. Returns only the reason why that could not be.
pub fn run(control: &mut Control, setup: Setup) -> Failure {
    match prepare(control, setup) {
        Ok(program) => program.execute(),
        Err(failure) => failure,
    }
}

fn prepare(control: &mut Control, mut setup: Setup) -> Result<Program> {
    setsid().context(|| "begin a session")?;
    make_keyring()?;
    umask(Mode::empty());
    let root = match setup.root.take() {
        Some((gathered, mount_point)) => Some(enter_root(&setup, gathered, &mount_point)?),
        None => None,
    };
    check_cwd(&setup.process.cwd)?;
    if root.is_some() {
        make_cwd(&setup.process.cwd)?;
    }
    let identity = identity::of(&setup.process)?;
    set_streams(control, &setup, identity.uid, root.is_some())?;
    let is_init = root.is_some();
    if let Some(root) = root {
        root.seal(&setup.spec)?;
    }
    umask(Mode::from_bits_truncate(0o022));

    set_limits(&setup)?;
    if is_init {
        end_by_signals()?;
    }
    // Before any filter, which need not know this call.
    sys::close_on_exec_from(3).context(|| "close what the program must not inherit")?;
    let process = &setup.process;
    let seccomp = setup.spec.linux.seccomp.as_ref();
    if process.no_new_privileges {
        nix::sys::prctl::set_no_new_privs().context(|| "process.noNewPrivileges")?;
    } else if let Some(seccomp) = seccomp {
        // Without no_new_privs only root may load a filter, so before root is given up.
        seccomp::load(seccomp)?;
    }
    let home = identity::home(identity.uid);
    identity::assume(process, &identity)?;
    let program = program::find(process, &home)?;
    reset_signals()?;

    control.send(&ToAgent::Ready)?;
    control.expect(ToChild::Start)?;
    if process.no_new_privileges
        && let Some(seccomp) = seccomp
    {
        // As late as can be, so that the filter need not allow what the set-up does; the container's own hooks are held to it.
        seccomp::load(seccomp)?;
    }
    if is_init && !setup.spec.hooks.start_container.is_empty() {
        let state = hooks::state(
            &setup.spec,
            &setup.container_id,
            "created",
            std::process::id() as i32,
            "/",
        );
        hooks::run(
            "startContainer",
            &setup.spec.hooks.start_container,
            &state,
            &program.environment(),
        )?;
    }
    Ok(program)
}

/// Builds the root file system, runs the hooks that see it from outside, and makes it `/`.
fn enter_root(
    setup: &Setup,
    gathered: rootfs::Gathered,
    mount_point: &str,
) -> Result<rootfs::Rootfs> {
    let spec = &setup.spec;
    let root = rootfs::build(spec, gathered, mount_point)?;
    set_names(spec)?;
    if !spec.hooks.create_container.is_empty() {
        let state = hooks::state(
            spec,
            &setup.container_id,
            "creating",
            setup.pid,
            mount_point,
        );
        hooks::run("createContainer", &spec.hooks.create_container, &state, &[])?;
    }
    if let Some(proc) = &setup.proc {
        sysctl::apply(&spec.linux.sysctl, proc)?;
    }
    root.mask(spec)?;
    root.enter()?;
    Ok(root)
}

/// A session keyring of its own, so that containers do not find each other's keys.
fn make_keyring() -> Result<()> {
    match sys::join_new_session_keyring(c"_ses.husk") {
        // A kernel without keyrings has none to keep apart.
        Ok(()) | Err(Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(Failure::other(format!("make a session keyring: {errno}"))),
    }
}

fn set_names(spec: &Spec) -> Result<()> {
    if !spec.hostname.is_empty() {
        sethostname(&spec.hostname).context(|| format!("hostname: {:?}", spec.hostname))?;
    }
    if !spec.domainname.is_empty() {
        let name = spec.domainname.as_bytes();
        // SAFETY: the pointer and the length are those of one slice.
        let result = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
        Errno::result(result).context(|| format!("domainname: {:?}", spec.domainname))?;
    }
    Ok(())
}

fn check_cwd(cwd: &str) -> Result<()> {
    if cwd.starts_with('/') {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "process.cwd: expected an absolute path, got {cwd:?}"
    )))
}

/// The working directory of a container's first process is made where it is missing, as runc does; that of a further one has to be there.
fn make_cwd(cwd: &str) -> Result<()> {
    let root = std::fs::File::open("/").context(|| "open /")?;
    match resolve(root.as_fd(), cwd.as_ref(), Missing::Folder) {
        Ok(_) => Ok(()),
        Err(errno) => Err(Failure::new(
            Class::CwdNotFound,
            format!("process.cwd: {cwd}: {errno}"),
        )),
    }
}

/// A terminal, or the streams that the agent sent.
fn set_streams(control: &mut Control, setup: &Setup, uid: u32, is_init: bool) -> Result<()> {
    if let Some(size) = setup.terminal {
        let terminal: Terminal = terminal::open_pty(size)?;
        if setup.plain_newlines {
            terminal.keep_newlines()?;
        }
        control.send_with(&ToAgent::Terminal, &terminal.master)?;
        if is_init {
            terminal.bind_to_console()?;
        }
        return terminal.take(uid);
    }
    let [stdin, stdout, stderr] = setup.streams.as_slice() else {
        return Err(Failure::other(format!(
            "expected three standard streams, got {}",
            setup.streams.len()
        )));
    };
    for stream in [stdin, stdout, stderr] {
        streams::give_to(stream, uid)?;
    }
    terminal::set_standard_streams(&[stdin, stdout, stderr])
}

fn set_limits(setup: &Setup) -> Result<()> {
    let process = &setup.process;
    limits::set_scheduler(process)?;
    limits::set_io_priority(process)?;
    personality::set(&setup.spec.linux)?;
    if let Some(affinity) = &process.exec_cpu_affinity {
        limits::set_affinity(&affinity.r#final)?;
    }
    Ok(())
}

/// Until the program runs, the signals that ask for an end are obeyed, as runc's set-up does: a PID namespace's first process is spared what it
/// does not handle. The program finds them as if nothing had been.
fn end_by_signals() -> Result<()> {
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
    ] {
        // SAFETY: the handler does nothing but end the process.
        unsafe { nix::sys::signal::signal(signal, SigHandler::Handler(end_by)) }
            .context(|| format!("handle {signal} until the start"))?;
    }
    Ok(())
}

extern "C" fn end_by(signal: libc::c_int) {
    // SAFETY: it may be called in a handler, and does not return.
    unsafe { libc::_exit(128 + signal) }
}

/// Signals as a program expects them: none blocked, and SIGPIPE, which the Rust runtime ignores, at its default.
fn reset_signals() -> Result<()> {
    // SAFETY: the default action runs no code of ours.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.context(|| "reset SIGPIPE")?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).context(|| "unblock signals")
}
