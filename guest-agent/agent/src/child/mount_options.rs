//! The options of a spec's mount, as runc and mount(8) name them.

use libc::{
    MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_STRICTATIME,
    MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE,
};

use crate::error::{Failure, Result};
use crate::sys::MountChange;

/// MOUNT_ATTR__ATIME: all bits that say how access times are kept; relatime is none of them.
const ATIME_BITS: u64 = 0x70;

/// What a mount's options ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// A part of the guest's files instead of a file system.
    pub bind: bool,
    /// With all mounts below the source.
    pub recursive: bool,
    /// Attributes of the mount itself.
    pub attributes: MountChange,
    /// Attributes of it and of all mounts below.
    pub recursive_attributes: MountChange,
    /// How mounts made later travel: a MS_* flag, and whether it holds for the mounts below too. In order.
    pub propagation: Vec<(u64, bool)>,
    /// tmpfs: filled with what was at the mount point.
    pub copy_up: bool,
    /// The superblock's own flags: "sync", "dirsync", "lazytime", ....
    pub superblock: Vec<&'static str>,
    /// What only the file system understands.
    pub data: Vec<String>,
}

impl MountOptions {
    /// Whether the mount itself is to be read-only.
    pub fn readonly(&self) -> bool {
        self.attributes.set & MOUNT_ATTR_RDONLY != 0
    }

    /// Reads the options of a mount of a type.
    pub fn parse(kind: &str, options: &[String]) -> Result<MountOptions> {
        let mut parsed = MountOptions {
            bind: kind == "bind",
            ..MountOptions::default()
        };
        for option in options {
            parsed.take(option)?;
        }
        Ok(parsed)
    }

    fn take(&mut self, option: &str) -> Result<()> {
        if let Some((set, clear)) = attribute(option) {
            change(&mut self.attributes, set, clear);
        } else if let Some((set, clear)) = option.strip_prefix('r').and_then(attribute) {
            change(&mut self.recursive_attributes, set, clear);
        } else if let Some(flag) = propagation(option) {
            self.propagation.push((flag, false));
        } else if let Some(flag) = option.strip_prefix('r').and_then(propagation) {
            self.propagation.push((flag, true));
        } else {
            match option {
                "bind" => self.bind = true,
                "rbind" => (self.bind, self.recursive) = (true, true),
                "tmpcopyup" => self.copy_up = true,
                "sync" => self.superblock.push("sync"),
                "dirsync" => self.superblock.push("dirsync"),
                "lazytime" => self.superblock.push("lazytime"),
                "mand" => self.superblock.push("mand"),
                // The kernel's defaults, and what makes no difference to a new mount.
                "" | "defaults" | "async" | "nolazytime" | "nomand" | "loud" | "silent"
                | "remount" | "iversion" | "noiversion" => {}
                "idmap" | "ridmap" => {
                    return Err(Failure::unsupported(
                        "mount option idmap: id-mapped mounts are not supported",
                    ));
                }
                _ => self.data.push(option.to_owned()),
            }
        }
        Ok(())
    }
}

fn change(change: &mut MountChange, set: u64, clear: u64) {
    change.set = change.set & !clear | set;
    change.clear = change.clear & !set | clear;
    if (set | clear) & ATIME_BITS != 0 {
        // The access time is one of several values, not a flag: the kernel wants all its bits cleared first.
        change.clear |= ATIME_BITS;
    }
}

/// The attributes that an option sets and clears.
fn attribute(option: &str) -> Option<(u64, u64)> {
    Some(match option {
        "ro" => (MOUNT_ATTR_RDONLY, 0),
        "rw" => (0, MOUNT_ATTR_RDONLY),
        "nosuid" => (MOUNT_ATTR_NOSUID, 0),
        "suid" => (0, MOUNT_ATTR_NOSUID),
        "nodev" => (MOUNT_ATTR_NODEV, 0),
        "dev" => (0, MOUNT_ATTR_NODEV),
        "noexec" => (MOUNT_ATTR_NOEXEC, 0),
        "exec" => (0, MOUNT_ATTR_NOEXEC),
        "nodiratime" => (MOUNT_ATTR_NODIRATIME, 0),
        "diratime" => (0, MOUNT_ATTR_NODIRATIME),
        "nosymfollow" => (MOUNT_ATTR_NOSYMFOLLOW, 0),
        "symfollow" => (0, MOUNT_ATTR_NOSYMFOLLOW),
        "noatime" => (MOUNT_ATTR_NOATIME, ATIME_BITS & !MOUNT_ATTR_NOATIME),
        "strictatime" => (MOUNT_ATTR_STRICTATIME, ATIME_BITS & !MOUNT_ATTR_STRICTATIME),
        "relatime" | "atime" | "norelatime" | "nostrictatime" => (0, ATIME_BITS),
        _ => return None,
    })
}

/// The flag of a propagation type's name.
pub fn propagation(name: &str) -> Option<u64> {
    Some(match name {
        "private" => MS_PRIVATE,
        "shared" => MS_SHARED,
        "slave" => MS_SLAVE,
        "unbindable" => MS_UNBINDABLE,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: &str, options: &[&str]) -> MountOptions {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        MountOptions::parse(kind, &options).expect("options")
    }

    #[test]
    fn the_default_mounts_of_runc() {
        let shm = parse(
            "tmpfs",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        );
        assert_eq!(
            shm.attributes.set,
            MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV
        );
        assert_eq!(shm.data, ["mode=1777", "size=65536k"]);
        assert!(!shm.bind);
    }

    #[test]
    fn a_recursive_bind_with_propagation() {
        let volume = parse("none", &["rbind", "rslave", "ro"]);
        assert!(volume.bind && volume.recursive && volume.readonly());
        assert_eq!(volume.propagation, [(MS_SLAVE, true)]);
    }

    #[test]
    fn the_last_of_contradicting_options_holds() {
        assert!(!parse("bind", &["ro", "rw"]).readonly());
        assert!(parse("bind", &["rw", "ro"]).readonly());
    }

    #[test]
    fn rro_holds_for_all_mounts_below() {
        let volume = parse("bind", &["rbind", "rro"]);
        assert_eq!(volume.recursive_attributes.set, MOUNT_ATTR_RDONLY);
        assert!(!volume.readonly());
    }

    #[test]
    fn access_times_are_one_value() {
        let change = parse("bind", &["strictatime", "noatime"]).attributes;
        assert_eq!(
            change,
            MountChange {
                set: MOUNT_ATTR_NOATIME,
                clear: ATIME_BITS,
                propagation: 0
            }
        );
        assert_eq!(
            parse("bind", &["relatime"]).attributes,
            MountChange {
                set: 0,
                clear: ATIME_BITS,
                propagation: 0
            }
        );
    }

    #[test]
    fn id_mapped_mounts_are_refused() {
        let failure = MountOptions::parse("bind", &["idmap".into()]).expect_err("a failure");
        assert_eq!(
            failure,
            Failure::unsupported("mount option idmap: id-mapped mounts are not supported")
        );
    }
}
