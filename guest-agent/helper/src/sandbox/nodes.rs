//! Folders and empty files that are made below a root, on ways that lead nowhere out of it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, mkdirat, mknodat};

use super::plan::MountPoint;

/// How a folder is opened in which others are made.
pub const FOLDER: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// Makes the folders of a relative path below `root`, as far as they are missing, and opens the last. `rule` says where symbolic links and
/// mounts may lead.
pub fn make_folders(root: BorrowedFd<'_>, path: &Path, rule: ResolveFlag) -> Result<OwnedFd> {
    let how = OpenHow::new().flags(FOLDER).resolve(rule);
    let mut folder = root.try_clone_to_owned()?;
    let mut reached = PathBuf::new();
    for name in path {
        unless_exists(mkdirat(&folder, name, Mode::from_bits_truncate(0o755)))?;
        reached.push(name);
        folder = openat2(root, &reached, how)?;
    }
    Ok(folder)
}

/// Makes what is to be mounted on below `root`, where it is missing: symbolic links on the way lead nowhere out of it. A tree that cannot be changed has
/// its mount points elsewhere, in a layer over it.
pub fn make_mount_point(root: BorrowedFd<'_>, point: &MountPoint) -> Result<()> {
    let relative = point.path.strip_prefix("/")?;
    let Some(name) = relative.file_name() else { return Ok(()) };
    let parent = relative.parent().unwrap_or(Path::new(""));
    let made = make_folders(root, parent, ResolveFlag::RESOLVE_IN_ROOT).and_then(|folder| make_node(folder.as_fd(), name, point.folder));
    match made {
        Err(error) if error.downcast_ref() == Some(&Errno::EROFS) => Ok(()),
        made => made,
    }
}

/// Makes an empty folder or file, where nothing of that name is there.
pub fn make_node(folder: BorrowedFd<'_>, name: &OsStr, is_folder: bool) -> Result<()> {
    if is_folder {
        return unless_exists(mkdirat(folder, name, Mode::from_bits_truncate(0o755)));
    }
    unless_exists(mknodat(folder, name, SFlag::S_IFREG, Mode::from_bits_truncate(0o444), 0))
}

/// What is there already is as good as what was to be made.
pub fn unless_exists(made: nix::Result<()>) -> Result<()> {
    match made {
        Err(Errno::EEXIST) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::fcntl::open;

    use super::*;

    #[test]
    fn mount_points_are_made_where_they_lack_and_nowhere_else() {
        let folder = std::env::temp_dir().join(format!("husk-helper-nodes-{}", std::process::id()));
        let root = folder.join("root");
        fs::create_dir_all(&root).expect("a root");
        fs::write(root.join("there"), "kept").expect("a file");
        symlink("/inside", root.join("absolute")).expect("a link");
        symlink("../../..", root.join("upwards")).expect("a link");
        fs::create_dir(root.join("inside")).expect("a folder");
        let opened = open(&root, FOLDER, Mode::empty()).expect("it is there");
        let make = |path: &str, folder| make_mount_point(opened.as_fd(), &MountPoint { path: path.into(), folder });
        for (path, folder) in
            [("/a/b", true), ("/a/c", false), ("/there", false), ("/absolute/x", true), ("/upwards/y", false), ("/", true)]
        {
            make(path, folder).expect(path);
        }
        assert!(root.join("a/b").is_dir() && root.join("a/c").is_file());
        assert_eq!(fs::read_to_string(root.join("there")).expect("it is there"), "kept");
        assert!(root.join("inside/x").is_dir() && root.join("y").is_file());
        assert_eq!(fs::read_dir(&folder).expect("it is there").count(), 1);
        assert!(make("/there/x", true).is_err());
        fs::remove_dir_all(folder).expect("it is there");
    }
}
