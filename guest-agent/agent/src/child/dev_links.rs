//! The symbolic links that programs expect in /dev.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use super::resolve::parent;
use crate::error::{Class, Context, Result};
use crate::spec::Spec;

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
];

/// Makes the links that are not there yet, and /dev/ptmx as a link to the container's own devpts.
pub fn make(root: BorrowedFd, spec: &Spec) -> Result<()> {
    for (target, path) in LINKS {
        link(root, target, path, false).class(Class::MountFailed, || format!("link {path}"))?;
    }
    let has_devpts = spec
        .mounts
        .iter()
        .any(|mount| mount.destination.trim_end_matches('/') == "/dev/pts");
    if has_devpts {
        link(root, "pts/ptmx", "/dev/ptmx", true).class(Class::MountFailed, || "link /dev/ptmx")?;
    }
    Ok(())
}

fn link(root: BorrowedFd, target: &str, path: &str, replace: bool) -> nix::Result<()> {
    let (folder, name) = parent(root, path.as_ref())?;
    if replace {
        match unlinkat(folder.as_fd(), name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    match symlinkat(target, folder.as_fd(), name.as_os_str()) {
        Err(Errno::EEXIST) => Ok(()),
        result => result,
    }
}
