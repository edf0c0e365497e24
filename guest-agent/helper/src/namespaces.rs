//! Entering namespaces, and changing the root of one's own mount namespace.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, chdir, fchdir, pivot_root, sethostname};

use serde::Deserialize;

use crate::{mount, processes};

/// Opens a network namespace by its path, such as /proc/PID/ns/net or /run/netns/NAME.
pub fn open_network(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot open the network namespace {}", path.display()))
}

/// Enters an opened network namespace. `path` is for the error alone.
pub fn enter_network(namespace: &File, path: &Path) -> Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter the network namespace {}", path.display()))
}

/// Sets the loopback interface of the current network namespace up.
pub fn raise_loopback() -> Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).context("cannot open a socket")?;
    // SAFETY: zeroes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, source) in request.ifr_name.iter_mut().zip(b"lo") {
        *target = *source as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request lives through the call.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) }).context("cannot set the interface lo up")?;
    Ok(())
}

/// Makes a mount namespace of one's own, from which nothing propagates to where it came from.
pub fn unshare_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).context("cannot make the mounts private")
}

/// What a container's host and domain are called. None: as the machine's.
#[derive(Default, Deserialize)]
pub struct Names {
    pub hostname: Option<String>,
    pub domainname: Option<String>,
}

/// What a container has for itself besides network and mounts, so that who looks at the process on the host sees a container.
const SURROUNDINGS: CloneFlags = CloneFlags::CLONE_NEWUTS.union(CloneFlags::CLONE_NEWIPC).union(CloneFlags::CLONE_NEWCGROUP);

/// Makes namespaces of names, IPC and cgroups of one's own. The names are the host's, where none are given.
pub fn unshare_surroundings(names: &Names) -> Result<()> {
    unshare(SURROUNDINGS).context("cannot make namespaces of names, IPC and cgroups")?;
    if let Some(name) = &names.hostname {
        sethostname(name).with_context(|| format!("cannot set the host's name {name}"))?;
    }
    if let Some(name) = &names.domainname {
        // SAFETY: the name lives through the call, and its length is its own.
        Errno::result(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) })
            .with_context(|| format!("cannot set the domain's name {name}"))?;
    }
    Ok(())
}

/// Enters the namespaces of names, IPC and cgroups of another process.
pub fn join_surroundings(pid: i32) -> Result<()> {
    let what = || format!("cannot enter the namespaces of process {pid}");
    setns(processes::pidfd(Pid::from_raw(pid)).with_context(what)?, SURROUNDINGS).with_context(what)
}

/// Attaches a detached tree where it is out of the way, and answers its root: the first half of a change of the root.
pub fn attach_new_root(tree: BorrowedFd<'_>) -> Result<OwnedFd> {
    // /proc is there on every host, and whatever it hides is given up with the old root.
    let place = open("/proc", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).context("cannot open /proc")?;
    mount::attach(tree, place.as_fd(), c"").context("cannot attach the new root")?;
    open("/proc", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).context("cannot open the new root")
}

/// Makes `root`, the root of an attached mount, the root of the process, and gives up everything else that was mounted.
pub fn change_root(root: BorrowedFd<'_>) -> Result<()> {
    let old = open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).context("cannot open the old root")?;
    fchdir(root).context("cannot enter the new root")?;
    // The old root is put over the new one, and unmounted there: no folder is needed for it.
    pivot_root(".", ".").context("cannot change the root")?;
    fchdir(old.as_fd()).context("cannot enter the old root")?;
    umount2(".", MntFlags::MNT_DETACH).context("cannot unmount the old root")?;
    chdir("/").context("cannot enter the new root")
}

/// Undoes what unshare(CLONE_NEWPID) has done for later children (and threads, which are refused otherwise): they are in the caller's own
/// PID namespace again.
pub fn keep_children_here() -> Result<()> {
    let own = File::open("/proc/self/ns/pid").context("cannot open /proc/self/ns/pid")?;
    setns(own, CloneFlags::CLONE_NEWPID).context("cannot stay in the PID namespace")
}
