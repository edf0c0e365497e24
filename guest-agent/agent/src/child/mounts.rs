//! The spec's mounts, one at a time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::filesystem;
use super::mount_options::MountOptions;
use super::resolve::{Missing, is_folder, resolve};
use crate::error::{Class, Context, Failure, Result};
use crate::spec::Mount;
use crate::sys::{self, MountChange};

/// Mounts one entry within `root`; `source` is the detached mount where the first stage gathered one. Answers a change that has to wait
/// until the mount is filled.
pub fn mount(
    root: BorrowedFd,
    entry: &Mount,
    options: &MountOptions,
    source: Option<OwnedFd>,
) -> Result<Option<(OwnedFd, MountChange)>> {
    mount_inner(root, entry, options, source).map_err(|failure| {
        Failure::new(
            failure.class,
            format!("mount {}: {failure}", entry.destination),
        )
    })
}

fn mount_inner(
    root: BorrowedFd,
    entry: &Mount,
    options: &MountOptions,
    source: Option<OwnedFd>,
) -> Result<Option<(OwnedFd, MountChange)>> {
    let failed = Class::MountFailed;
    if !entry.destination.starts_with('/')
        || entry
            .destination
            .split('/')
            .all(|part| part.is_empty() || part == ".")
    {
        return Err(Failure::unsupported(
            "the destination is not an absolute path below /",
        ));
    }
    let missing = match &source {
        Some(source) if !is_folder(source).class(failed, || "look at the source")? => Missing::File,
        _ => Missing::Folder,
    };
    let find = |missing| resolve(root, entry.destination.as_ref(), missing);
    let (target, is_new) = match find(Missing::Fail) {
        Err(Errno::ENOENT) => (find(missing), true),
        found => (found, false),
    };
    let target = target.class(failed, || "find the mount point")?;
    let (mounted, late) = match source {
        Some(source) => {
            sys::set_mount(&source, options.attributes, false)
                .class(failed, || "set the mount's flags")?;
            (source, None)
        }
        None => make(entry, options, &target, is_new)?,
    };
    if options.recursive_attributes != MountChange::default() {
        sys::set_mount(&mounted, options.recursive_attributes, true)
            .class(failed, || "set the flags of all mounts below")?;
    }
    sys::attach(&mounted, &target).class(failed, || "attach")?;
    for &(propagation, recursive) in &options.propagation {
        let change = MountChange {
            propagation,
            ..MountChange::default()
        };
        sys::set_mount(&mounted, change, recursive).class(failed, || "set the propagation")?;
    }
    Ok(late.map(|change| (mounted, change)))
}

/// A new file system, and what is to be changed once it is filled. `is_new`: its mount point has only just been made.
fn make(
    entry: &Mount,
    options: &MountOptions,
    target: &OwnedFd,
    is_new: bool,
) -> Result<(OwnedFd, Option<MountChange>)> {
    let kind = filesystem::kernel_name(&entry.r#type);
    if kind.is_empty() {
        return Err(Failure::unsupported(
            "the mount has no type, and neither bind nor rbind",
        ));
    }
    let mut options = MountOptions {
        attributes: options.attributes,
        superblock: options.superblock.clone(),
        data: options.data.clone(),
        copy_up: options.copy_up,
        ..MountOptions::default()
    };
    if kind == "tmpfs"
        && !is_new
        && !options
            .data
            .iter()
            .any(|option| option.starts_with("mode="))
    {
        // As runc: the file system looks like the folder that it covers; where there was none, it has tmpfs's own mode, 1777.
        let mode = nix::sys::stat::fstat(target)
            .class(Class::MountFailed, || "look at the mount point")?
            .st_mode
            & 0o7777;
        options.data.push(format!("mode={mode:o}"));
    }
    let is_dev = entry.destination.trim_end_matches('/') == "/dev";
    let fills_later = kind == "tmpfs" && options.readonly() && (is_dev || options.copy_up);
    if fills_later {
        options.attributes.set &= !libc::MOUNT_ATTR_RDONLY;
    }
    let mounted = filesystem::make(kind, &entry.source, &options)?;
    if options.copy_up {
        if kind != "tmpfs" {
            return Err(Failure::unsupported("tmpcopyup is for tmpfs alone"));
        }
        super::copy_up::copy(target.as_fd(), mounted.as_fd())
            .class(Class::MountFailed, || "copy what was at the mount point")?;
    }
    let late = fills_later.then_some(MountChange {
        set: libc::MOUNT_ATTR_RDONLY,
        ..MountChange::default()
    });
    Ok((mounted, late))
}
