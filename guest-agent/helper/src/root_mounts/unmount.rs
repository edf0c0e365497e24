//! Taking mounts away, however many are stacked and whoever made them.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;

use crate::mount;

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
        for path in mount_points()?.into_iter().rev().filter(|path| path.starts_with(&target)) {
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

/// Where something is mounted, in the order in which it was.
fn mount_points() -> Result<Vec<PathBuf>> {
    let table = fs::read("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let points = table.split(|&byte| byte == b'\n').filter_map(|line| line.split(|&byte| byte == b' ').nth(4));
    Ok(points.map(unescape).collect())
}

/// A path as the kernel prints it: blanks, line ends and backslashes as a backslash and three octal digits.
fn unescape(text: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let digits = after.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(|digit| (b'0'..b'8').contains(digit)));
        match digits {
            Some(digits) => {
                path.push(digits.iter().fold(0_u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')));
                rest = &after[3..];
            }
            None => {
                path.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn the_kernels_escapes_are_undone() {
        for (text, expected) in [("/a\\040b\\134c", "/a b\\c"), ("/a\\04", "/a\\04"), ("/a\\0x0", "/a\\0x0"), ("", "")] {
            assert_eq!(unescape(text.as_bytes()).as_os_str(), OsStr::new(expected));
        }
        assert_eq!(unescape(b"/\xff\\012").as_os_str().as_bytes(), b"/\xff\n");
    }
}
