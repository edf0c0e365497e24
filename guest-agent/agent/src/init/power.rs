//! The end of the machine.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::reboot::{RebootMode, reboot};

use crate::console;

nix::ioctl_readwrite!(
    /// FIFREEZE of linux/fs.h: writes back a file system, journal and all, and lets nobody write from then on.
    freeze_filesystem,
    b'X',
    119,
    libc::c_int
);

/// Writes back what would be lost with the machine. `processes`: whether any of a container's live.
///
/// What is written to the host's folders is there at once, and what processes have mapped of them, with their end. Without processes there is nothing left to be
/// written but to disks; to be asked for all the same, the host would write back what all of its own programs have written.
pub fn settle(processes: bool) {
    if processes {
        nix::unistd::sync();
    }
    settle_disks();
}

/// Leaves the file systems of disks as an unmount would, though somebody may still use them: the next machine that mounts such a disk
/// read-only could not replay a journal.
fn settle_disks() {
    let mounts = match fs::read_to_string("/proc/self/mountinfo") {
        Ok(mounts) => mounts,
        Err(error) => return console::log(format_args!("cannot list the mounts: {error}")),
    };
    for mount_point in disk_mounts(&mounts) {
        if let Err(errno) = settle_disk(mount_point) {
            console::log(format_args!("cannot settle {mount_point}: {errno}"));
        }
    }
}

fn settle_disk(mount_point: &str) -> Result<(), Errno> {
    let folder = File::open(mount_point)
        .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    // SAFETY: the kernel ignores the argument; it points to an integer nevertheless.
    match unsafe { freeze_filesystem(folder.as_raw_fd(), &mut 0) } {
        // EBUSY: frozen already, by another of its mount points. EROFS: there is nothing to write.
        Ok(_) | Err(Errno::EBUSY | Errno::EROFS) => Ok(()),
        // It has no journal to be closed.
        Err(Errno::EOPNOTSUPP) => nix::unistd::syncfs(&folder),
        Err(errno) => Err(errno),
    }
}

/// The mount points of block devices in the text of /proc/self/mountinfo (proc(5)).
fn disk_mounts(mountinfo: &str) -> impl Iterator<Item = &str> {
    mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let source = right.split(' ').nth(1)?;
        source
            .starts_with("/dev/")
            .then(|| left.split(' ').nth(4))?
    })
}

/// Writes back what is dirty and powers the machine off; does not return. Where the kernel has no way to power off (no ACPI), it resets,
/// which ends QEMU too: it runs with -no-reboot.
pub fn off() {
    nix::unistd::sync();
    cut();
}

/// Powers the machine off, as `off` does, with nothing written back.
pub fn cut() {
    let mode = if Path::new("/sys/firmware/acpi/tables").exists() {
        RebootMode::RB_POWER_OFF
    } else {
        RebootMode::RB_AUTOBOOT
    };
    let Err(errno) = reboot(mode);
    console::log(format_args!("reboot: {errno}"));
    // PID 1 ends: the kernel panics, and panic=-1 on its command line makes that a reset.
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_told_from_what_has_none() {
        let mountinfo = "22 1 0:21 / / rw - rootfs rootfs rw\n\
             23 22 0:5 / /proc rw,nosuid - proc proc rw\n\
             40 22 254:0 / /run/husk/containers/c/rootfs rw,relatime shared:1 - ext4 /dev/vda rw\n\
             41 22 0:40 / /run/husk/shares rw - virtiofs husk rw\n";
        let found: Vec<&str> = disk_mounts(mountinfo).collect();
        assert_eq!(found, ["/run/husk/containers/c/rootfs"]);
    }

    #[test]
    fn a_file_system_without_a_disk_need_not_be_settled() {
        assert_eq!(settle_disk("/proc"), Ok(()));
    }
}
