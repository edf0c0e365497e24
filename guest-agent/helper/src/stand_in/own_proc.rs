//! A /proc with nothing in it but the stand-in: who wants to know what runs in a container, and finds no other way than the mount namespace of its PID
//! (podman top), reads this one.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::symlinkat;

use crate::mount::{self, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};

/// Files of the stand-in's own folder: none that can be written to, and no link, since what these lead to is the host's.
const FILES: [&str; 3] = ["cmdline", "stat", "status"];

/// What it is made of, taken where the host's /proc is.
pub struct OwnProc {
    /// The stand-in's name in it: its PID.
    pid: PathBuf,
    /// What its link to the PID namespace says.
    pid_namespace: PathBuf,
    files: Vec<(&'static str, OwnedFd)>,
    /// Since when the host is up is in /proc/stat, which the time that a process has run is counted by.
    system: OwnedFd,
}

impl OwnProc {
    pub fn take() -> Result<OwnProc> {
        let attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
        let pid = fs::read_link("/proc/self").context("cannot read /proc/self")?;
        let folder = Path::new("/proc").join(&pid);
        let file = |path: PathBuf| mount::clone_top(&path, attributes).with_context(|| format!("cannot take {}", path.display()));
        let files = FILES.iter().map(|name| Ok((*name, file(folder.join(name))?))).collect::<Result<_>>()?;
        let pid_namespace = fs::read_link(folder.join("ns/pid")).context("cannot read /proc/self/ns/pid")?;
        Ok(OwnProc { pid, pid_namespace, files, system: file("/proc/stat".into())? })
    }

    /// Puts it over the folder `proc` of a root, where that is a folder and no link.
    pub fn put_into(self, root: BorrowedFd<'_>) -> Result<()> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let place = match openat(root, "proc", flags, Mode::empty()) {
            Ok(place) => place,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
            Err(error) => return Err(error).context("cannot open the folder for /proc"),
        };
        self.fill(&place).context("cannot make a /proc of the stand-in's own")
    }

    fn fill(&self, place: &OwnedFd) -> Result<()> {
        let attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
        let tree = mount::new_filesystem(c"tmpfs", &[(c"mode", Some(c"0555")), (c"size", Some(c"16k"))], attributes)?;
        mount::attach(tree.as_fd(), place.as_fd(), c"")?;
        let folder = Mode::from_bits_truncate(0o555);
        mkdirat(&tree, &self.pid, folder)?;
        mkdirat(&tree, &self.pid.join("ns"), folder)?;
        symlinkat(&self.pid_namespace, &tree, &self.pid.join("ns/pid"))?;
        for (name, file) in &self.files {
            show(file, &tree, &self.pid.join(name))?;
        }
        show(&self.system, &tree, Path::new("stat"))?;
        mount::make_read_only(&tree)?;
        Ok(())
    }
}

/// Makes an empty file, and mounts `file` over it.
fn show(file: &OwnedFd, tree: &OwnedFd, path: &Path) -> Result<()> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    drop(openat(tree, path, flags, Mode::from_bits_truncate(0o444))?);
    Ok(mount::attach(file.as_fd(), tree.as_fd(), &mount::c_string(path)?)?)
}
