//! Starting a program of the sandbox with exactly what it is to have.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, IntoRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result, ensure};
use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Pid, Uid, chdir, execve, getppid, pipe2, setgroups, setresgid, setresuid, setsid};

use super::plan::{Account, Process, User};
use super::tree;
use crate::{capabilities, descriptors, processes, signals, unix_socket};

/// The whole environment of every program.
const ENVIRONMENT: [&str; 2] = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"];

/// What gives a process private mappings of sealed memory (preload/private.rs).
const PRIVATE_MEMORY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/private.so"));

/// What makes a process a zygote (preload/zygote.rs).
const ZYGOTE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/zygote.so"));

/// How many open files a file server asks for: the kernel's own default of fs.nr_open.
const OPEN_FILES: u64 = 1 << 20;

/// Starts a program, and answers its PID as soon as it runs. What keeps it from running is the error. `ends_with_parent`: it is killed when this process ends.
pub fn start(process: &Process, user: User, available: &BTreeSet<RawFd>, ends_with_parent: bool) -> Result<Pid> {
    process.check(available)?;
    let what = || format!("cannot start {} ({})", process.name, process.argv.first().map_or("", String::as_str));
    let socket =
        process.socket.as_ref().map(|path| unix_socket::listen_at(path).and_then(|socket| tree::give(path, user).map(|()| socket)));
    let socket = socket.transpose().with_context(what)?;
    let (mut reader, writer) = report_pipe(process).with_context(what)?;
    let parent = ends_with_parent.then(Pid::this);
    let Some(pid) = processes::fork().with_context(what)? else {
        let Err(error) = execute(process, user, socket, parent);
        // The reader sees either this or, at a successful execve, the end of the pipe.
        let told = write!(&writer, "{error:#}");
        std::process::exit(if told.is_ok() { 127 } else { 126 })
    };
    drop(writer);
    let mut complaint = String::new();
    reader.read_to_string(&mut complaint).with_context(what)?;
    if !complaint.is_empty() {
        processes::wait(pid)?;
        return Err(anyhow::anyhow!(complaint)).with_context(what);
    }
    Ok(pid)
}

/// A pipe for the child's complaint, which closes at execve. In the child, the socket takes its number from whatever has it, but
/// must not take it from the pipe. No other writing end may stay open: the end of the pipe is the sign of success.
fn report_pipe(process: &Process) -> Result<(File, File)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
    let writer = descriptors::raise(writer.as_fd(), process.socket_fd.map_or(0, |number| number + 1))?;
    Ok((reader.into(), writer.into()))
}

/// In the child: gives up everything that is not the program's, then becomes it.
fn execute(process: &Process, user: User, socket: Option<OwnedFd>, parent: Option<Pid>) -> Result<Infallible> {
    let arguments = process.argv.iter().map(processes::argument).collect::<Result<Vec<_>>>()?;
    // A zygote stays in its keeper's, which the scheduler weighs less; each of its copies has one of its own.
    if process.zygote.is_none() {
        setsid().context("cannot make a session")?;
    }
    chdir("/").context("cannot enter /")?;
    umask(Mode::from_bits_truncate(0o077));
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("cannot forbid core files")?;
    place_descriptors(process, socket)?;
    let additions = additions(process)?;
    let environment = ENVIRONMENT.into_iter().chain(additions.iter().map(String::as_str));
    let environment = environment.map(processes::argument).collect::<Result<Vec<_>>>()?;
    match process.user {
        Account::Root => {
            raise_open_files()?;
            capabilities::keep_for_root()?;
        }
        // Its copies give up what it has, each for a user of its own. It runs nobody's code.
        Account::User if process.zygote.is_some() => {}
        Account::User => become_user(user)?,
    }
    if let Some(parent) = parent {
        // Behind the change of the user, with which the kernel forgets it.
        prctl::set_pdeathsig(Signal::SIGKILL).context("cannot tie it to its parent")?;
        ensure!(getppid() == parent, "its parent has ended");
    }
    prctl::set_no_new_privs().context("cannot forbid new privileges")?;
    signals::restore_defaults()?;
    let program = &arguments[0];
    execve(program, &arguments, &environment).context("cannot execute it")
}

/// Lets a file server hold as many files open as the host allows: it may need one for each file that the guest remembers.
fn raise_open_files() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    let wanted = hard.max(OPEN_FILES);
    // Beyond the hard limit it takes CAP_SYS_RESOURCE, which not every root has.
    setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted)
        .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard))
        .context("cannot raise the limit of open files")
}

/// What the process has in its environment beside what all have.
fn additions(process: &Process) -> Result<Vec<String>> {
    match process.zygote {
        Some(listener) => Ok(vec![format!("LD_PRELOAD={}", open_library(ZYGOTE)?), format!("HUSK_ZYGOTE={listener}")]),
        None if process.private_memory => Ok(vec![format!("LD_PRELOAD={}", open_library(PRIVATE_MEMORY)?)]),
        None => Ok(Vec::new()),
    }
}

/// A path at which the process finds what it is preloaded with: a descriptor of its own, since its tree has no such file.
fn open_library(content: &[u8]) -> Result<String> {
    let what = "cannot make a library to be preloaded";
    let file = memfd_create("husk-preload", MFdFlags::empty()).context(what)?;
    let mut file = File::from(file);
    file.write_all(content).context(what)?;
    Ok(format!("/proc/self/fd/{}", file.into_raw_fd()))
}

fn place_descriptors(process: &Process, socket: Option<OwnedFd>) -> Result<()> {
    descriptors::silence(&[0, 1])?;
    descriptors::close_at_exec_from(3)?;
    for number in &process.fds {
        descriptors::keep(*number)?;
    }
    if let (Some(socket), Some(number)) = (socket, process.socket_fd) {
        descriptors::place_owned(socket, number)?;
    }
    Ok(())
}

fn become_user(user: User) -> Result<()> {
    capabilities::drop_bounding_set(&[])?;
    setgroups(&[]).context("cannot drop the supplementary groups")?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    setresgid(gid, gid, gid).with_context(|| format!("cannot become group {gid}"))?;
    // The kernel clears the capabilities as all three user ids leave root.
    setresuid(uid, uid, uid).with_context(|| format!("cannot become user {uid}"))
}
