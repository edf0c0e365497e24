//! The kernel's mount calls that work on descriptors, which nix does not wrap.
//!
//! A tree of mounts is cloned where its path means something, as a descriptor, and attached where it shall be seen. So
//! nothing depends on how mounts propagate between namespaces.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::Result;
use nix::errno::Errno;

pub use libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// Clones the tree of mounts at `path` (a file or a folder, symbolic links followed), with all mounts below it. The clone is
/// private (no mount of either side reaches the other) and carries `attributes` (MOUNT_ATTR_*) on each of its mounts.
pub fn clone_tree(path: &Path, attributes: u64) -> Result<OwnedFd> {
    clone_with(path, attributes, true)
}

/// As `clone_tree`, without the mounts below.
pub fn clone_top(path: &Path, attributes: u64) -> Result<OwnedFd> {
    clone_with(path, attributes, false)
}

fn clone_with(path: &Path, attributes: u64, recursive: bool) -> Result<OwnedFd> {
    let tree = clone(path, recursive)?;
    change(&tree, Attributes { set: attributes, clear: 0 }, true)?;
    Ok(tree)
}

/// As `clone_tree`, or `clone_top` where not `recursive`; but mounts that are made below `path` later, or taken away, come and go in the clone as well, without
/// the attributes. Nothing goes the other way.
pub fn clone_following(path: &Path, attributes: u64, recursive: bool) -> Result<OwnedFd> {
    let tree = open_clone(path, recursive)?;
    set_attributes(&tree, Attributes { set: attributes, clear: 0 }, libc::MS_SLAVE, scope(true))?;
    Ok(tree)
}

/// Clones the mount at `path`, with all mounts below it where `recursive`. The clone is private.
pub fn clone(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let tree = open_clone(path, recursive)?;
    make_private(&tree)?;
    Ok(tree)
}

fn open_clone(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let name = c_string(path)?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | scope(recursive) as libc::c_uint;
    // SAFETY: the name outlives the call, and the kernel answers a new descriptor or -1.
    let result = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, name.as_ptr(), flags) };
    descriptor(result)
}

/// MOUNT_ATTR_* to set, and to clear before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
}

/// Changes the attributes of the mount that `root` is the root of, and of all mounts below where `recursive`.
pub fn change(root: &OwnedFd, attributes: Attributes, recursive: bool) -> Result<()> {
    set_attributes(root, attributes, 0, scope(recursive))
}

/// Lets nothing propagate to or from a mount and all below; EINVAL where `root` is not the root of one.
pub fn make_private(root: &OwnedFd) -> Result<()> {
    set_attributes(root, Attributes { set: 0, clear: 0 }, libc::MS_PRIVATE, libc::AT_RECURSIVE)
}

/// Makes a file system that is attached nowhere yet. Options are what `mount -o` would name.
pub fn new_filesystem(kind: &CStr, options: &[(&CStr, Option<&CStr>)], attributes: u64) -> Result<OwnedFd> {
    // SAFETY: the strings outlive each call, and the kernel answers a new descriptor or -1.
    let context = descriptor(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    let nothing = std::ptr::null::<libc::c_char>();
    for (key, value) in options {
        // SAFETY: as above.
        let result = unsafe {
            match value {
                Some(value) => libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr(), 0),
                None => libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_SET_FLAG, key.as_ptr(), nothing, 0),
            }
        };
        Errno::result(result)?;
    }
    // SAFETY: creation takes no key and no value.
    Errno::result(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, nothing, nothing, 0) })?;
    // SAFETY: only numbers are passed.
    descriptor(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes as libc::c_uint) })
}

/// Attaches a detached tree at `name` in `folder`; an empty name is the folder (or file) itself.
pub fn attach(tree: BorrowedFd<'_>, folder: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let mut flags = libc::MOVE_MOUNT_F_EMPTY_PATH;
    if name.is_empty() {
        flags |= libc::MOVE_MOUNT_T_EMPTY_PATH;
    }
    // SAFETY: the strings outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_move_mount, tree.as_raw_fd(), c"".as_ptr(), folder.as_raw_fd(), name.as_ptr(), flags) };
    Errno::result(result).map(drop)
}

/// Makes the one mount that `folder` is the root of read-only, not what is mounted below it.
pub fn make_read_only(folder: &OwnedFd) -> Result<()> {
    change(folder, Attributes { set: MOUNT_ATTR_RDONLY, clear: 0 }, false)
}

fn scope(recursive: bool) -> libc::c_int {
    if recursive { libc::AT_RECURSIVE } else { 0 }
}

fn set_attributes(mount: &OwnedFd, attributes: Attributes, propagation: libc::c_ulong, scope: libc::c_int) -> Result<()> {
    let change = libc::mount_attr { attr_set: attributes.set, attr_clr: attributes.clear, propagation, userns_fd: 0 };
    let size = size_of::<libc::mount_attr>();
    let flags = libc::AT_EMPTY_PATH | scope;
    // SAFETY: the structure outlives the call and has the size that is passed.
    let result = unsafe { libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), c"".as_ptr(), flags, &change, size) };
    Errno::result(result).map(drop)
}

fn descriptor(result: libc::c_long) -> Result<OwnedFd> {
    let number = Errno::result(result)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number as libc::c_int) })
}

/// A path as the kernel takes it; a zero byte inside is EINVAL.
pub fn c_string(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}
