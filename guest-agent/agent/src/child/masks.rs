//! Paths that a container may not read or may not write.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::filesystem;
use super::mount_options::MountOptions;
use super::resolve::{Missing, is_folder, resolve};
use crate::error::{Class, Context, Result};
use crate::spec::Linux;
use crate::sys::{self, MountChange};

/// Masks and makes read-only what the spec names. Files are covered by the guest's own /dev/null: the container's might be anything.
pub fn apply(linux: &Linux, root: &OwnedFd) -> Result<()> {
    for path in &linux.readonly_paths {
        ignore_absent(make_readonly(root, path)).class(Class::MountFailed, || {
            format!("linux.readonlyPaths: {path}")
        })?;
    }
    for path in &linux.masked_paths {
        mask(root, path)?;
    }
    Ok(())
}

fn ignore_absent(result: nix::Result<()>) -> nix::Result<()> {
    match result {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
        result => result,
    }
}

fn make_readonly(root: &OwnedFd, path: &str) -> nix::Result<()> {
    let target = resolve(root.as_fd(), path.as_ref(), Missing::Fail)?;
    let copy = sys::clone_tree(Some(target.as_fd()), c"", true)?;
    sys::set_mount(
        &copy,
        MountChange {
            set: libc::MOUNT_ATTR_RDONLY,
            ..MountChange::default()
        },
        false,
    )?;
    sys::attach(&copy, &target)
}

fn mask(root: &OwnedFd, path: &str) -> Result<()> {
    let what = || format!("linux.maskedPaths: {path}");
    let target = match resolve(root.as_fd(), path.as_ref(), Missing::Fail) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        result => result.class(Class::MountFailed, what)?,
    };
    let cover = if is_folder(&target).class(Class::MountFailed, what)? {
        let options = MountOptions {
            attributes: MountChange {
                set: libc::MOUNT_ATTR_RDONLY,
                ..MountChange::default()
            },
            ..MountOptions::default()
        };
        filesystem::make("tmpfs", "tmpfs", &options)?
    } else {
        sys::clone_tree(None, c"/dev/null", false).class(Class::MountFailed, what)?
    };
    sys::attach(&cover, &target).class(Class::MountFailed, what)
}
