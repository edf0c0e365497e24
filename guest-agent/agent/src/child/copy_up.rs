//! tmpcopyup: a tmpfs that begins with what was at its mount point.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fstatat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

/// Deeper trees are somebody's trick.
const MAX_DEPTH: usize = 128;

/// Copies everything in the folder `from` into the folder `to`, links as links.
pub fn copy(from: BorrowedFd, to: BorrowedFd) -> io::Result<()> {
    copy_folder(from, to, 0)
}

fn copy_folder(from: BorrowedFd, to: BorrowedFd, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(Errno::ELOOP.into());
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut folder = Dir::openat(from, ".", flags, Mode::empty())?;
    let folder_fd = folder.as_fd().try_clone_to_owned()?;
    for entry in folder.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            copy_entry(folder_fd.as_fd(), to, name, depth)?;
        }
    }
    Ok(())
}

fn copy_entry(from: BorrowedFd, to: BorrowedFd, name: &OsStr, depth: usize) -> io::Result<()> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    let open = |folder, flags| {
        openat(
            folder,
            name,
            flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            Mode::from_bits_truncate(0o600),
        )
    };
    match kind {
        SFlag::S_IFDIR => {
            mkdirat(to, name, Mode::from_bits_truncate(0o700))?;
            let source = open(from, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
            let target = open(to, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
            copy_folder(source.as_fd(), target.as_fd(), depth + 1)?;
        }
        SFlag::S_IFREG => {
            let mut source = File::from(open(from, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?);
            let mut target =
                File::from(open(to, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)?);
            io::copy(&mut source, &mut target)?;
        }
        SFlag::S_IFLNK => symlinkat(readlinkat(from, name)?.as_os_str(), to, name)?,
        _ => mknodat(
            to,
            name,
            kind,
            Mode::from_bits_truncate(0o600),
            stat.st_rdev,
        )?,
    }
    keep_owner_mode_and_times(to, name, &stat, mode, kind)
}

fn keep_owner_mode_and_times(
    folder: BorrowedFd,
    name: &OsStr,
    stat: &FileStat,
    mode: Mode,
    kind: SFlag,
) -> io::Result<()> {
    let (owner, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchownat(
        folder,
        name,
        Some(owner),
        Some(group),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )?;
    if kind != SFlag::S_IFLNK {
        // After the owner, since a change of owner clears the set-user-id bit. Nobody else is in this file system yet.
        nix::sys::stat::fchmodat(
            folder,
            name,
            mode,
            nix::sys::stat::FchmodatFlags::FollowSymlink,
        )?;
    }
    let accessed = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
    let modified = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    utimensat(
        folder,
        name,
        &accessed,
        &modified,
        UtimensatFlags::NoFollowSymlink,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn the_copy_looks_like_the_original() {
        let base = std::env::temp_dir().join(format!("husk-copy-up-{}", std::process::id()));
        let (from, to) = (base.join("from"), base.join("to"));
        fs::create_dir_all(from.join("folder")).expect("a folder");
        fs::create_dir_all(&to).expect("a folder");
        fs::write(from.join("folder/file"), "content").expect("a file");
        fs::set_permissions(from.join("folder/file"), fs::Permissions::from_mode(0o750))
            .expect("a mode");
        symlink("nowhere", from.join("link")).expect("a link");

        let (source, target) = (
            File::open(&from).expect("from"),
            File::open(&to).expect("to"),
        );
        copy(source.as_fd(), target.as_fd()).expect("a copy");

        assert_eq!(
            fs::read_to_string(to.join("folder/file")).expect("the file"),
            "content"
        );
        let mode = fs::metadata(to.join("folder/file"))
            .expect("metadata")
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o750);
        assert_eq!(
            fs::read_link(to.join("link")).expect("the link").to_str(),
            Some("nowhere")
        );
        fs::remove_dir_all(base).expect("to clean up");
    }
}
