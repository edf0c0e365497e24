//! Taking mounts away, however many are stacked and whoever made them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;

use crate::{mount, mount_table};

/// Unmounts what is at `target` and below, lazily. A target that is not there, or that nothing is mounted at, is no error.
pub fn all(target: &Path) -> Result<()> {
    ensure!(target.is_absolute(), "the target {} must be absolute", target.display());
    // First the target's own, with all that is in them: what a container has a hand in is gone before any path inside is followed.
    while detach(target)? {}
    let (Some(folder), Some(name)) = (target.parent(), target.file_name()) else { return Ok(()) };
    let Ok(folder) = fs::canonicalize(folder) else { return Ok(()) };
    let target = folder.join(name);
    loop {
        // The last one first: it may be on top of an earlier one. Some are hidden by what is mounted over them, and stay.
        let mut found = false;
        for path in mount_table::read()?.into_iter().rev().map(|mount| mount.point).filter(|path| path.starts_with(&target)) {
            found |= detach(&path)?;
        }
        if !found {
            return Ok(());
        }
    }
}

/// Takes the uppermost mount at a path away, with all below. Answers whether there was one.
fn detach(path: &Path) -> Result<bool> {
    let what = || format!("cannot unmount {}", path.display());
    match open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()) {
        // A tree that was bound where mounts are shared would take its source's mounts along.
        Ok(root) => match mount::make_private(&root) {
            Ok(()) => {}
            Err(Errno::EINVAL) => return Ok(false),
            Err(error) => return Err(error).with_context(what),
        },
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(false),
        Err(error) => return Err(error).with_context(what),
    }
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(true),
        // Somebody else was quicker.
        Err(Errno::EINVAL | Errno::ENOENT) => Ok(false),
        Err(error) => Err(error).with_context(what),
    }
}
