//! /shared: the host's files and folders that virtiofsd shows to the guest.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, ResolveFlag, open};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::open::Shared;
use super::{nodes, plan, tree};

const FOLDER: &str = "/shared";

/// Shows a tree at `target`. The way there leads over folders of /shared itself alone, never into what is shown, where a container
/// could have put a symbolic link.
pub fn show(target: &Path, shared: &Shared) -> Result<()> {
    plan::check_target(target)?;
    let what = || format!("cannot share at {}", target.display());
    let name = target.file_name().with_context(what)?;
    let own = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    let folder = nodes::make_folders(open_folder()?.as_fd(), target.parent().unwrap_or(Path::new("")), own).with_context(what)?;
    tree::attach(folder.as_fd(), name, shared).with_context(what)
}

/// Undoes `show`. Files that are open stay usable to whoever has them open.
pub fn hide(target: &Path) -> Result<()> {
    plan::check_target(target)?;
    let path = Path::new(FOLDER).join(target);
    umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).with_context(|| format!("cannot unshare {}", target.display()))?;
    let folder = open_folder()?;
    let removed = match unlinkat(&folder, target, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR) => unlinkat(&folder, target, UnlinkatFlags::RemoveDir),
        other => other,
    };
    removed.with_context(|| format!("cannot remove {}", path.display()))?;
    // Folders that were made on the way go with the last that was in them.
    for parent in target.ancestors().skip(1).filter(|parent| parent.file_name().is_some()) {
        match unlinkat(&folder, parent, UnlinkatFlags::RemoveDir) {
            Ok(()) => {}
            Err(Errno::ENOTEMPTY | Errno::EBUSY) => break,
            Err(error) => return Err(error).with_context(|| format!("cannot remove {FOLDER}/{}", parent.display())),
        }
    }
    Ok(())
}

fn open_folder() -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(FOLDER, flags, Mode::empty()).with_context(|| format!("cannot open the sandbox's {FOLDER}"))
}
