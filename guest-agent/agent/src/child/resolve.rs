//! Paths inside a root file system that the container's image, or another container, controls.
//!
//! What is there, the kernel finds in one step (openat2(2), RESOLVE_IN_ROOT). Where something has to be made, every component is opened relative to the
//! descriptor of the folder before it and never through a symbolic link; links are read and walked here, `..` goes back to a descriptor that was passed on the
//! way. The root is never left, whatever changes meanwhile.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

/// As many symbolic links as the kernel follows.
const MAX_LINKS: usize = 40;
const MAX_COMPONENTS: usize = 4096;

/// What to make where nothing is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Fail,
    /// A folder, mode 0755, and all folders above it.
    Folder,
    /// An empty file, mode 0644, and all folders above it.
    File,
}

/// What the path leads to within `root`, as an O_PATH descriptor.
pub fn resolve(root: BorrowedFd, path: &OsStr, missing: Missing) -> nix::Result<OwnedFd> {
    match find(root, path) {
        Err(Errno::ENOENT) if missing != Missing::Fail => walk(root, path, missing),
        // Somebody moves folders while the kernel looks.
        Err(Errno::EAGAIN) => walk(root, path, missing),
        found => found,
    }
}

fn find(root: BorrowedFd, path: &OsStr) -> nix::Result<OwnedFd> {
    let components: Vec<&[u8]> = components(path).collect();
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    if components.is_empty() {
        return openat2(root, ".", how);
    }
    openat2(root, OsStr::from_bytes(&components.join(&b'/')), how)
}

fn walk(root: BorrowedFd, path: &OsStr, missing: Missing) -> nix::Result<OwnedFd> {
    let mut todo = VecDeque::new();
    push_front(&mut todo, path);
    let mut passed: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(component) = todo.pop_front() {
        if component == ".." {
            passed.pop();
            continue;
        }
        let here = passed.last().map_or(root, AsFd::as_fd);
        let found = match open_component(here, &component) {
            Err(Errno::ENOENT) if missing != Missing::Fail => {
                make(
                    here,
                    &component,
                    missing == Missing::File && todo.is_empty(),
                )?;
                open_component(here, &component)?
            }
            result => result?,
        };
        if is_link(&found)? {
            links += 1;
            let target = readlinkat(&found, "")?;
            if links > MAX_LINKS || todo.len() > MAX_COMPONENTS {
                return Err(Errno::ELOOP);
            }
            if target.as_bytes().starts_with(b"/") {
                passed.clear();
            }
            push_front(&mut todo, &target);
        } else {
            passed.push(found);
        }
    }
    match passed.pop() {
        Some(found) => Ok(found),
        None => openat(root, ".", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()),
    }
}

/// The folder that holds the last component of the path (made where it is missing), and that component.
pub fn parent(root: BorrowedFd, path: &OsStr) -> nix::Result<(OwnedFd, OsString)> {
    let bytes = path.as_bytes();
    let end = bytes
        .iter()
        .rposition(|&byte| byte != b'/')
        .ok_or(Errno::EINVAL)?
        + 1;
    let start = bytes[..end]
        .iter()
        .rposition(|&byte| byte == b'/')
        .map_or(0, |slash| slash + 1);
    let name = OsStr::from_bytes(&bytes[start..end]);
    if name == "." || name == ".." {
        return Err(Errno::EINVAL);
    }
    let folder = resolve(root, OsStr::from_bytes(&bytes[..start]), Missing::Folder)?;
    Ok((folder, name.to_owned()))
}

fn components(path: &OsStr) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.as_bytes()
        .split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
}

fn push_front(todo: &mut VecDeque<OsString>, path: &OsStr) {
    for component in components(path).rev() {
        todo.push_front(OsStr::from_bytes(component).to_owned());
    }
}

fn open_component(folder: BorrowedFd, name: &OsStr) -> nix::Result<OwnedFd> {
    openat(
        folder,
        name,
        OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

fn make(folder: BorrowedFd, name: &OsStr, file: bool) -> nix::Result<()> {
    let result = if file {
        let flags =
            OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        openat(folder, name, flags, Mode::from_bits_truncate(0o644)).map(drop)
    } else {
        mkdirat(folder, name, Mode::from_bits_truncate(0o755))
    };
    // Whoever was faster made something; what it is will be seen when it is opened.
    if result == Err(Errno::EEXIST) {
        Ok(())
    } else {
        result
    }
}

fn kind(fd: &OwnedFd) -> nix::Result<SFlag> {
    Ok(SFlag::from_bits_truncate(
        fstat(fd)?.st_mode & SFlag::S_IFMT.bits(),
    ))
}

fn is_link(fd: &OwnedFd) -> nix::Result<bool> {
    Ok(kind(fd)? == SFlag::S_IFLNK)
}

/// Whether the descriptor refers to a folder.
pub fn is_folder(fd: &OwnedFd) -> nix::Result<bool> {
    Ok(kind(fd)? == SFlag::S_IFDIR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::{Path, PathBuf};

    /// A folder of this test's own, removed with it.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("husk-resolve-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).expect("a folder");
            Root(path)
        }

        fn resolve(&self, path: &str, missing: Missing) -> nix::Result<OwnedFd> {
            let root = fs::File::open(&self.0).expect("the root");
            resolve(root.as_fd(), path.as_ref(), missing)
        }

        fn inode(&self, path: &str) -> u64 {
            fs::metadata(self.0.join(path)).expect("metadata").ino()
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn inode(fd: &OwnedFd) -> u64 {
        fstat(fd).expect("stat").st_ino
    }

    #[test]
    fn an_absolute_link_stays_in_the_root() {
        let root = Root::new("absolute");
        fs::create_dir(root.0.join("etc")).expect("etc");
        symlink("/etc", root.0.join("link")).expect("a link");
        let found = root.resolve("/link", Missing::Fail).expect("a folder");
        assert_eq!(inode(&found), root.inode("etc"));
    }

    #[test]
    fn dots_never_leave_the_root() {
        let root = Root::new("dots");
        fs::create_dir(root.0.join("etc")).expect("etc");
        symlink("../../../../../etc", root.0.join("link")).expect("a link");
        let found = root
            .resolve("../../link/../../etc", Missing::Fail)
            .expect("a folder");
        assert_eq!(inode(&found), root.inode("etc"));
    }

    #[test]
    fn makes_what_a_dangling_link_names_within_the_root() {
        let root = Root::new("dangling");
        symlink("/run/deep/file", root.0.join("link")).expect("a link");
        root.resolve("/link", Missing::File).expect("a file");
        assert!(root.0.join("run/deep/file").is_file());
        assert!(!Path::new("/run/deep").exists());
    }

    #[test]
    fn a_loop_of_links_is_an_error() {
        let root = Root::new("loop");
        symlink("b", root.0.join("a")).expect("a link");
        symlink("a", root.0.join("b")).expect("a link");
        assert_eq!(
            root.resolve("a", Missing::Folder).map(drop),
            Err(Errno::ELOOP)
        );
    }

    #[test]
    fn what_is_there_is_found_alike_in_one_step_and_in_many() {
        let root = Root::new("alike");
        fs::create_dir_all(root.0.join("a/b")).expect("folders");
        fs::write(root.0.join("a/b/file"), "").expect("a file");
        symlink("/a/b", root.0.join("absolute")).expect("a link");
        symlink("../../../a/./b//", root.0.join("a/relative")).expect("a link");
        symlink("missing", root.0.join("dangling")).expect("a link");
        symlink("a/b/file", root.0.join("last")).expect("a link");
        let handle = fs::File::open(&root.0).expect("the root");
        for path in [
            "/",
            "",
            ".",
            "..",
            "a",
            "/a//b/",
            "a/b/../b/file",
            "absolute/file",
            "a/relative/..",
            "a/relative/../../absolute",
            "dangling",
            "last",
            "last/",
            "a/b/file/x",
            "nowhere/..",
        ] {
            let inode_of = |found: nix::Result<OwnedFd>| found.map(|fd| inode(&fd));
            assert_eq!(
                inode_of(find(handle.as_fd(), path.as_ref())),
                inode_of(walk(handle.as_fd(), path.as_ref(), Missing::Fail)),
                "{path}"
            );
        }
    }

    #[test]
    fn a_file_is_no_folder_on_the_way() {
        let root = Root::new("file");
        fs::write(root.0.join("file"), "").expect("a file");
        assert_eq!(
            root.resolve("file/x", Missing::Folder).map(drop),
            Err(Errno::ENOTDIR)
        );
        assert_eq!(
            root.resolve("absent", Missing::Fail).map(drop),
            Err(Errno::ENOENT)
        );
    }

    #[test]
    fn the_parent_and_the_name() {
        let root = Root::new("parent");
        let handle = fs::File::open(&root.0).expect("the root");
        let (folder, name) = parent(handle.as_fd(), "/dev/net/tun".as_ref()).expect("a parent");
        assert_eq!(
            (inode(&folder), name),
            (root.inode("dev/net"), OsString::from("tun"))
        );
        assert_eq!(
            parent(handle.as_fd(), "/".as_ref()).map(drop),
            Err(Errno::EINVAL)
        );
        assert_eq!(
            parent(handle.as_fd(), "/dev/..".as_ref()).map(drop),
            Err(Errno::EINVAL)
        );
    }
}
