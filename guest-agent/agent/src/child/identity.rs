//! Who the process is: user, groups, capabilities.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::capabilities;
use super::passwd::{self, Identity};
use crate::error::{Class, Context, Failure, Result};
use crate::spec::{Capabilities, Process};

/// A larger file is no list of users.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Who the process object asks for. Looks names up in the container's files, so the root must be the container's.
pub fn of(process: &Process) -> Result<Identity> {
    let user = &process.user;
    if user.username.is_empty() {
        return Ok(Identity {
            uid: user.uid,
            gid: user.gid,
            groups: user.additional_gids.clone(),
        });
    }
    let mut identity = passwd::look_up(&user.username, &read("/etc/passwd"), &read("/etc/group"))?;
    identity.groups.extend(&user.additional_gids);
    Ok(identity)
}

/// The home folder by the container's /etc/passwd.
pub fn home(uid: u32) -> String {
    passwd::home(&read("/etc/passwd"), uid).to_owned()
}

/// A file of the container; empty where it is none, or absent, which is no error.
fn read(path: &str) -> String {
    // Whatever the container has put there: a FIFO must not hold us up, nor a device be touched.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(path) else {
        return String::new();
    };
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return String::new();
    }
    let mut bytes = Vec::new();
    match file.take(MAX_FILE).read_to_end(&mut bytes) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// Becomes the user, enters the working directory, and takes on the capabilities.
pub fn assume(process: &Process, identity: &Identity) -> Result<()> {
    // As with runc, no capabilities object is an empty one.
    let none = Capabilities::default();
    let capabilities = process.capabilities.as_ref().unwrap_or(&none);
    capabilities::limit_bounding(capabilities)?;
    // With the first rights or with the second, whichever are enough.
    let first = nix::unistd::chdir(process.cwd.as_str());
    nix::sys::prctl::set_keepcaps(true).context(|| "keep capabilities")?;
    become_user(identity)?;
    if first.is_err() {
        nix::unistd::chdir(process.cwd.as_str()).class(Class::CwdNotFound, || {
            format!("process.cwd: enter {}", process.cwd)
        })?;
    }
    nix::sys::prctl::set_keepcaps(false).context(|| "keep capabilities no longer")?;
    capabilities::apply(capabilities)?;
    if let Some(mask) = process.user.umask {
        umask(Mode::from_bits_truncate(mask & 0o777));
    }
    check_cwd()
}

fn become_user(identity: &Identity) -> Result<()> {
    let groups: Vec<Gid> = identity
        .groups
        .iter()
        .map(|&gid| Gid::from_raw(gid))
        .collect();
    setgroups(&groups).context(|| format!("process.user: set the groups {:?}", identity.groups))?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    setresgid(gid, gid, gid).context(|| format!("process.user: become group {gid}"))?;
    setresuid(uid, uid, uid).context(|| format!("process.user: become user {uid}"))
}

/// A working directory outside the container's root would be a way out of it (a bundle's cwd of /proc/self/fd/N).
fn check_cwd() -> Result<()> {
    let cwd = nix::unistd::getcwd().class(
        Class::CwdNotFound,
        || "process.cwd: it is outside the container's root file system",
    )?;
    if cwd.is_absolute() {
        return Ok(());
    }
    Err(Failure::new(
        Class::CwdNotFound,
        "process.cwd: it is outside the container's root file system",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_as_they_are() {
        let json = br#"{"user": {"uid": 5, "gid": 6, "additionalGids": [7]}}"#;
        let process: Process = crate::spec::parse("process", json).expect("a process");
        assert_eq!(
            of(&process),
            Ok(Identity {
                uid: 5,
                gid: 6,
                groups: vec![7]
            })
        );
    }
}
