//! Making file systems as detached mounts, which are attached where they belong once they are ready.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::mount_options::MountOptions;
use crate::error::{Class, Context, Failure, Result};
use crate::folders::SCRATCH;
use crate::sys;

/// The longest value that fsconfig(2) takes, its NUL left out.
const MAX_VALUE: usize = 255;

/// File systems whose superblock is shared or made anew in memory, so that `ro` is a property of the mount alone.
const VIRTUAL: [&str; 8] = [
    "tmpfs", "proc", "sysfs", "devpts", "mqueue", "cgroup2", "ramfs", "devtmpfs",
];

/// The kernel's name for a mount's type: there is one kind of cgroups.
pub fn kernel_name(kind: &str) -> &str {
    if kind == "cgroup" { "cgroup2" } else { kind }
}

/// A detached mount of a new file system, with the attributes of the options but for the propagation.
pub fn make(kind: &str, source: &str, options: &MountOptions) -> Result<OwnedFd> {
    let name =
        |text: &str| sys::c_string(text).class(Class::MountFailed, || format!("{kind}: {text:?}"));
    let context = sys::open_filesystem(&name(kind)?).map_err(|errno| match errno {
        nix::errno::Errno::ENODEV => Failure::new(
            Class::MountFailed,
            format!("the guest's kernel has no file system {kind}"),
        ),
        errno => Failure::new(Class::MountFailed, format!("{kind}: {errno}")),
    })?;
    let set = |key: &str, value: Option<&str>| {
        let value = value.map(name).transpose()?;
        let command = if value.is_some() {
            libc::FSCONFIG_SET_STRING
        } else {
            libc::FSCONFIG_SET_FLAG
        };
        sys::configure_filesystem(&context, command, Some(&*name(key)?), value.as_deref())
            .map_err(|errno| complaint(&context, key, errno))
    };
    if !source.is_empty() {
        set("source", Some(source))?;
    }
    for flag in &options.superblock {
        set(flag, None)?;
    }
    if options.readonly() && !VIRTUAL.contains(&kind) {
        set("ro", None)?;
    }
    for option in &options.data {
        match option.split_once('=') {
            Some((_, value)) if value.len() > MAX_VALUE => {
                return make_by_path(kind, source, options);
            }
            Some((key, value)) => set(key, Some(value))?,
            None => set(option, None)?,
        }
    }
    sys::configure_filesystem(&context, libc::FSCONFIG_CMD_CREATE, None, None)
        .map_err(|errno| complaint(&context, kind, errno))?;
    sys::mount_filesystem(&context, options.attributes.set).class(Class::MountFailed, || kind)
}

/// mount(2), for options that are too long for fsconfig(2): on a folder of ours, from where the mount is taken away again.
fn make_by_path(kind: &str, source: &str, options: &MountOptions) -> Result<OwnedFd> {
    // One at a time: the agent mounts storages on several threads.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let fail =
        |errno: nix::errno::Errno| Failure::new(Class::MountFailed, format!("{kind}: {errno}"));
    let scratch = sys::c_string(SCRATCH).map_err(fail)?;
    let flags = if options.readonly() {
        MsFlags::MS_RDONLY
    } else {
        MsFlags::empty()
    };
    let data = options
        .superblock
        .iter()
        .copied()
        .chain(options.data.iter().map(String::as_str))
        .collect::<Vec<_>>()
        .join(",");
    mount(
        Some(source),
        SCRATCH,
        Some(kind),
        flags,
        Some(data.as_str()),
    )
    .map_err(fail)?;
    let tree = sys::clone_tree(None, &scratch, false).and_then(|tree| {
        sys::set_mount(&tree, options.attributes, false)?;
        Ok(tree)
    });
    umount2(SCRATCH, MntFlags::MNT_DETACH).map_err(fail)?;
    tree.map_err(fail)
}

/// The kernel's own words about a configuration that it refused, where it has any.
fn complaint(context: &OwnedFd, key: &str, errno: nix::errno::Errno) -> Failure {
    let mut words = String::new();
    if let Ok(clone) = context.as_fd().try_clone_to_owned() {
        // Each read gives one message, "e tmpfs: Bad value for 'size'"; ENODATA ends them.
        let mut file = File::from(clone);
        let mut buffer = [0; 512];
        while let Ok(count @ 3..) = file.read(&mut buffer) {
            words += &format!(
                ": {}",
                String::from_utf8_lossy(&buffer[2..count]).trim_end()
            );
        }
    }
    Failure::new(Class::MountFailed, format!("{key}: {errno}{words}"))
}
