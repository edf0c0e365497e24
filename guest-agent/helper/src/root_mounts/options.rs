//! A mount's options, as fstab has them.

use anyhow::{Result, bail, ensure};
use nix::mount::MsFlags;

use super::Mount;
use crate::mount::Attributes;

/// Options that are flags of the kernel's: the name, the flags, and whether it sets or clears them. As containerd's parseMountOptions.
const FLAGS: [(&str, MsFlags, bool); 24] = [
    ("async", MsFlags::MS_SYNCHRONOUS, false),
    ("atime", MsFlags::MS_NOATIME, false),
    ("defaults", MsFlags::empty(), true),
    ("dev", MsFlags::MS_NODEV, false),
    ("diratime", MsFlags::MS_NODIRATIME, false),
    ("dirsync", MsFlags::MS_DIRSYNC, true),
    ("exec", MsFlags::MS_NOEXEC, false),
    ("mand", MsFlags::MS_MANDLOCK, true),
    ("noatime", MsFlags::MS_NOATIME, true),
    ("nodev", MsFlags::MS_NODEV, true),
    ("nodiratime", MsFlags::MS_NODIRATIME, true),
    ("noexec", MsFlags::MS_NOEXEC, true),
    ("nomand", MsFlags::MS_MANDLOCK, false),
    ("norelatime", MsFlags::MS_RELATIME, false),
    ("nostrictatime", MsFlags::MS_STRICTATIME, false),
    ("nosuid", MsFlags::MS_NOSUID, true),
    ("relatime", MsFlags::MS_RELATIME, true),
    ("ro", MsFlags::MS_RDONLY, true),
    ("rw", MsFlags::MS_RDONLY, false),
    ("strictatime", MsFlags::MS_STRICTATIME, true),
    ("suid", MsFlags::MS_NOSUID, false),
    ("sync", MsFlags::MS_SYNCHRONOUS, true),
    // Nothing propagates to or from what is mounted here, so these hold in any case.
    ("private", MsFlags::empty(), true),
    ("rprivate", MsFlags::empty(), true),
];

/// What a bind mount can be given.
const FOR_BIND: [(MsFlags, u64); 7] = [
    (MsFlags::MS_RDONLY, libc::MOUNT_ATTR_RDONLY),
    (MsFlags::MS_NOSUID, libc::MOUNT_ATTR_NOSUID),
    (MsFlags::MS_NODEV, libc::MOUNT_ATTR_NODEV),
    (MsFlags::MS_NOEXEC, libc::MOUNT_ATTR_NOEXEC),
    (MsFlags::MS_NOATIME, libc::MOUNT_ATTR_NOATIME),
    (MsFlags::MS_STRICTATIME, libc::MOUNT_ATTR_STRICTATIME),
    (MsFlags::MS_NODIRATIME, libc::MOUNT_ATTR_NODIRATIME),
];

#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    pub bind: bool,
    /// Of a bind mount: with what is mounted below the source.
    pub recursive: bool,
    /// The source is a file, to be made a block device.
    pub loops: bool,
    pub flags: MsFlags,
    /// What the file system itself shall take.
    pub data: Vec<String>,
}

impl Options {
    pub fn attributes(&self) -> Attributes {
        let set = FOR_BIND.into_iter().filter(|(flag, _)| self.flags.contains(*flag)).fold(0, |all, (_, attribute)| all | attribute);
        let atime = MsFlags::MS_NOATIME | MsFlags::MS_STRICTATIME | MsFlags::MS_RELATIME;
        Attributes { set, clear: if self.flags.intersects(atime) { libc::MOUNT_ATTR__ATIME } else { 0 } }
    }
}

/// Sorts a mount's options, and refuses by name what cannot be done.
pub fn parse(mount: &Mount) -> Result<Options> {
    let kind = &mount.r#type;
    let letters = kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    ensure!(letters && !kind.is_empty(), "the mount type {kind:?} is not supported: expected bind, or a file system of the kernel's");
    let mut options = Options {
        bind: kind == "bind" || kind == "rbind",
        recursive: kind == "rbind",
        loops: false,
        flags: MsFlags::empty(),
        data: Vec::new(),
    };
    for option in &mount.options {
        ensure!(!option.contains('\0'), "a mount option has a zero byte: {option:?}");
        let name = option.split('=').next().unwrap_or_default();
        match name {
            "bind" | "rbind" => {
                options.bind = true;
                options.recursive |= name == "rbind";
            }
            "loop" => options.loops = true,
            _ if let_flag(&mut options.flags, option) => {}
            _ if name.to_ascii_lowercase().starts_with("x-containerd.") || ["remount", "uidmap", "gidmap"].contains(&name) => {
                bail!("the mount option {option} is not supported");
            }
            _ => options.data.push(option.clone()),
        }
    }
    if options.bind {
        ensure!(options.data.is_empty(), "a bind mount has no option {}", options.data.join(","));
        ensure!(!options.loops, "a bind mount has no option loop");
        let exact = MsFlags::MS_SYNCHRONOUS | MsFlags::MS_DIRSYNC | MsFlags::MS_MANDLOCK;
        ensure!(!options.flags.intersects(exact), "a bind mount has no option sync, dirsync or mand");
    }
    if options.bind || options.loops {
        ensure!(mount.source.is_absolute(), "the mount's source {} must be absolute", mount.source.display());
    }
    Ok(options)
}

/// Answers whether the option is a flag.
fn let_flag(flags: &mut MsFlags, option: &str) -> bool {
    let found = FLAGS.iter().find(|(name, _, _)| *name == option);
    if let Some((_, flag, set)) = found {
        flags.set(*flag, *set);
    }
    found.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(kind: &str, source: &str, options: &[&str]) -> Result<Options> {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        parse(&Mount { r#type: kind.into(), source: source.into(), target: "".into(), options })
    }

    #[test]
    fn flags_and_the_file_systems_own_options_are_told_apart() {
        let options = parsed("ext4", "/dev/x", &["ro", "noatime", "loop", "data=ordered", "rw", "nosuid"]).expect("options");
        let flags = MsFlags::MS_NOATIME | MsFlags::MS_NOSUID;
        assert_eq!(options, Options { bind: false, recursive: false, loops: true, flags, data: vec!["data=ordered".into()] });
        let options = parsed("bind", "/x", &["rbind", "ro", "noatime"]).expect("options");
        assert!(options.bind && options.recursive);
        let expected = Attributes { set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOATIME, clear: libc::MOUNT_ATTR__ATIME };
        assert_eq!(options.attributes(), expected);
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        let message = |kind, source, options: &[&str]| parsed(kind, source, options).expect_err("refused").to_string();
        for option in ["X-containerd.size=1", "x-containerd.loop", "uidmap=0:1:2", "gidmap=0:1:2", "remount"] {
            assert_eq!(message("overlay", "overlay", &["ro", option]), format!("the mount option {option} is not supported"));
        }
        for kind in ["fuse3.fuse-overlayfs", "mkfs/ext4", ""] {
            let expected = format!("the mount type {kind:?} is not supported: expected bind, or a file system of the kernel's");
            assert_eq!(message(kind, "/x", &[]), expected);
        }
        assert_eq!(message("bind", "/x", &["lowerdir=/y"]), "a bind mount has no option lowerdir=/y");
        assert_eq!(message("bind", "/x", &["loop"]), "a bind mount has no option loop");
        assert_eq!(message("bind", "/x", &["sync"]), "a bind mount has no option sync, dirsync or mand");
        assert_eq!(message("bind", "x", &["rbind"]), "the mount's source x must be absolute");
        assert_eq!(message("overlay", "overlay", &["lowerdir=/a\0b"]), "a mount option has a zero byte: \"lowerdir=/a\\0b\"");
    }
}
