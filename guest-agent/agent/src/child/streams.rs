//! Who the pipes of a process's standard streams belong to: its user, who may open /dev/stdout again by its path.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::unistd::{Gid, Uid, fchown};

use crate::error::{Context, Result};
use crate::spec::{IdMapping, Linux};

/// Gives a pipe to a user. /dev/null is everybody's, and stays root's.
pub fn give_to(stream: &OwnedFd, uid: u32) -> Result<()> {
    let group: Option<Gid> = None;
    if !is_pipe(stream) {
        return Ok(());
    }
    match fchown(stream, Some(Uid::from_raw(uid)), group) {
        // The user namespace is another container's, or does not map the user; then only the path is of no use to it, as with runc.
        Err(Errno::EPERM | Errno::EINVAL) => Ok(()),
        result => result.context(|| "give the standard streams to the user"),
    }
}

/// Gives the pipes to the root of the user namespace that the spec maps, so that it can give them to any of its users.
pub fn give_to_mapped_root(streams: &[OwnedFd], linux: &Linux) -> Result<()> {
    let root = |mappings: &[IdMapping]| {
        mappings
            .iter()
            .find(|mapping| mapping.container_id == 0)
            .map(|mapping| mapping.host_id)
    };
    let (Some(uid), Some(gid)) = (root(&linux.uid_mappings), root(&linux.gid_mappings)) else {
        return Ok(());
    };
    for stream in streams.iter().filter(|stream| is_pipe(stream)) {
        fchown(stream, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .context(|| "give the standard streams to the user namespace")?;
    }
    Ok(())
}

fn is_pipe(stream: &OwnedFd) -> bool {
    fstat(stream).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFIFO)
}
