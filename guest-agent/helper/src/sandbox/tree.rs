//! The file tree of a sandbox: as little as QEMU and virtiofsd need, read-only.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{AT_FDCWD, AtFlags, ResolveFlag, open};
use nix::sys::stat::{Mode, SFlag, makedev, mknodat, umask};
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

use super::nodes::{FOLDER, make_folders, make_node, unless_exists};
use super::open::{Part, Shared};
use super::plan::User;
use crate::mount::{self, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
use crate::namespaces;

/// Devices that every program may expect: name and minor number; the major number is 1 (memory).
const MEMORY_DEVICES: [(&str, u64); 5] = [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)];

/// Inert: files can be written and read, nothing else.
const DATA_ONLY: u64 = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

/// Builds the tree, and makes it the root of the calling process, which has a mount and a PID namespace of its own.
pub fn build(parts: Vec<(PathBuf, Part)>, devices: &[(PathBuf, libc::dev_t)], user: User) -> Result<()> {
    let before = umask(Mode::empty());
    let root = tmpfs(c"0755", c"1m", DATA_ONLY)?;
    let root = namespaces::attach_new_root(root.as_fd())?;
    // First, so that they hide no part: a guest image may lie in /tmp.
    add_folders(root.as_fd())?;
    for (path, part) in parts {
        show(root.as_fd(), &path, part).with_context(|| format!("cannot show {} in the sandbox", path.display()))?;
    }
    namespaces::change_root(root.as_fd())?;
    fill_devices(devices, user)?;
    give("/run", user)?;
    for folder in ["/dev", "/"] {
        let opened = open(folder, FOLDER, Mode::empty()).with_context(|| format!("cannot open the sandbox's {folder}"))?;
        mount::make_read_only(&opened).with_context(|| format!("cannot make the sandbox's {folder} read-only"))?;
    }
    umask(before);
    Ok(())
}

/// Makes a part of the host's tree visible at the same path.
fn show(root: BorrowedFd<'_>, path: &Path, part: Part) -> Result<()> {
    let relative = path.strip_prefix("/")?;
    let name = relative.file_name().context("it is the root itself")?;
    let folder = make_folders(root, relative.parent().unwrap_or(Path::new("")), ResolveFlag::RESOLVE_IN_ROOT)?;
    match part {
        // What is there already came with a part that holds this one.
        Part::Link(target) => unless_exists(symlinkat(&target, &folder, name)),
        Part::Tree(shared) => attach(folder.as_fd(), name, &shared),
    }
}

/// Attaches a tree at `name` in `folder`, on a folder or a file that is made for it.
pub fn attach(folder: BorrowedFd<'_>, name: &OsStr, shared: &Shared) -> Result<()> {
    make_node(folder, name, shared.folder)?;
    Ok(mount::attach(shared.tree.as_fd(), folder, &mount::c_string(Path::new(name))?)?)
}

/// The file systems that are the sandbox's own.
fn add_folders(root: BorrowedFd<'_>) -> Result<()> {
    let add = |name: &str, filesystem: Result<OwnedFd>| -> Result<()> {
        let what = || format!("cannot make the sandbox's /{name}");
        let shared = Shared { tree: filesystem.with_context(what)?, folder: true };
        attach(root, OsStr::new(name), &shared).with_context(what)
    };
    // A program sees no process of another user, and root's programs change no setting of the kernel.
    add("proc", Ok(mount::new_filesystem(c"proc", &[(c"hidepid", Some(c"2"))], DATA_ONLY | MOUNT_ATTR_RDONLY)?))?;
    add("dev", tmpfs(c"0755", c"64k", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC))?;
    add("shared", tmpfs(c"0700", c"1m", DATA_ONLY))?;
    add("run", tmpfs(c"0700", c"16m", DATA_ONLY))?;
    add("tmp", tmpfs(c"1777", c"64m", DATA_ONLY))
}

fn fill_devices(devices: &[(PathBuf, libc::dev_t)], user: User) -> Result<()> {
    let folder = open("/dev", FOLDER, Mode::empty()).context("cannot open the sandbox's /dev")?;
    let make = |name: &Path, number: libc::dev_t, mode: u32| {
        mknodat(&folder, name, SFlag::S_IFCHR, Mode::from_bits_truncate(mode), number)
            .with_context(|| format!("cannot make the sandbox's /dev/{}", name.display()))
    };
    for (name, minor) in MEMORY_DEVICES {
        make(Path::new(name), makedev(1, minor), 0o666)?;
    }
    for (name, number) in devices {
        make_folders(folder.as_fd(), name.parent().unwrap_or(Path::new("")), ResolveFlag::RESOLVE_BENEATH)?;
        make(name, *number, 0o600)?;
        give(Path::new("/dev").join(name), user)?;
    }
    Ok(())
}

/// Makes the user the owner of a path.
pub fn give(path: impl AsRef<Path>, user: User) -> Result<()> {
    let path = path.as_ref();
    fchownat(AT_FDCWD, path, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)), AtFlags::AT_SYMLINK_NOFOLLOW)
        .with_context(|| format!("cannot give the sandbox's {} to user {}", path.display(), user.uid))
}

fn tmpfs(mode: &CStr, size: &CStr, attributes: u64) -> Result<OwnedFd> {
    mount::new_filesystem(c"tmpfs", &[(c"mode", Some(mode)), (c"size", Some(size))], attributes).context("cannot make a tmpfs")
}
