//! The file systems of the guest itself.

use std::fs;
use std::os::fd::AsFd;

use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, chroot, dup2_stderr, dup2_stdin, dup2_stdout};

use crate::error::{Context, Result};
use crate::folders;

struct FileSystem {
    kind: &'static str,
    target: &'static str,
    flags: MsFlags,
    data: &'static str,
}

const NONE: MsFlags = MsFlags::empty();
const HARMLESS: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

/// A cgroup namespace's own limits are not for those in it to change, and protection of memory reaches down: as systemd has it on a host.
const CGROUP_OPTIONS: &str = "nsdelegate,memory_recursiveprot";

const FILE_SYSTEMS: [FileSystem; 9] = [
    FileSystem {
        kind: "proc",
        target: "/proc",
        flags: HARMLESS,
        data: "",
    },
    FileSystem {
        kind: "sysfs",
        target: "/sys",
        flags: HARMLESS,
        data: "",
    },
    FileSystem {
        kind: "devtmpfs",
        target: "/dev",
        flags: MsFlags::MS_NOSUID,
        data: "mode=0755",
    },
    FileSystem {
        kind: "devpts",
        target: "/dev/pts",
        flags: NONE,
        data: "gid=5,mode=0620,ptmxmode=0666",
    },
    FileSystem {
        kind: "tmpfs",
        target: "/dev/shm",
        flags: HARMLESS,
        data: "mode=1777",
    },
    FileSystem {
        kind: "mqueue",
        target: "/dev/mqueue",
        flags: HARMLESS,
        data: "",
    },
    FileSystem {
        kind: "tmpfs",
        target: "/run",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV),
        data: "mode=0755",
    },
    FileSystem {
        kind: "tmpfs",
        target: "/tmp",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV),
        data: "mode=1777",
    },
    FileSystem {
        kind: "cgroup2",
        target: "/sys/fs/cgroup",
        flags: HARMLESS,
        data: CGROUP_OPTIONS,
    },
];

/// Mounts the guest's own file systems, and hands all cgroup controllers down.
pub fn mount_all() -> Result<()> {
    leave_rootfs()?;
    for FileSystem {
        kind,
        target,
        flags,
        data,
    } in &FILE_SYSTEMS
    {
        fs::create_dir_all(target).context(|| format!("create {target}"))?;
        mount(Some(*kind), *target, Some(*kind), *flags, Some(*data))
            .context(|| format!("mount {kind} on {target}"))?;
    }
    for folder in folders::ALL {
        fs::create_dir_all(folder).context(|| format!("create {folder}"))?;
    }
    open_console();
    hurry_grace_periods();
    crate::cgroup::prepare()
}

/// The initramfs is the kernel's rootfs, from which pivot_root(2) refuses to leave. A bind mount of it moved over `/` is an ordinary mount,
/// so containers can pivot away from it and let go of it altogether. The files stay where they are: nothing is copied.
fn leave_rootfs() -> Result<()> {
    const NEW_ROOT: &str = "/run";
    fs::create_dir_all(NEW_ROOT).context(|| format!("create {NEW_ROOT}"))?;
    let none: Option<&str> = None;
    mount(Some("/"), NEW_ROOT, none, MsFlags::MS_BIND, none).context(|| "bind the initramfs")?;
    chdir(NEW_ROOT).context(|| "enter the initramfs's bind mount")?;
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none)
        .context(|| "move the initramfs's bind mount to /")?;
    chroot(".").context(|| "make the initramfs's bind mount the root")?;
    chdir("/").context(|| "enter the new root")
}

/// Makes RCU's grace periods short. Joining a cgroup, and much else of a container's start, waits for one: some 10 ms on an idle machine,
/// where an expedited one takes 0.05. A kernel without the setting is only slower.
fn hurry_grace_periods() {
    let _ = fs::write("/sys/kernel/rcu_expedited", "1");
}

/// Standard input, output and error, which the kernel leaves closed where the initramfs has no /dev/console; without a console, nowhere.
fn open_console() {
    let mode = Mode::empty();
    let console = open(
        "/dev/console",
        OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC,
        mode,
    )
    .or_else(|_| open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, mode));
    if let Ok(console) = console {
        // dup2 onto 0, 1, 2 cannot fail with a descriptor that is open.
        let _ = (
            dup2_stdin(console.as_fd()),
            dup2_stdout(console.as_fd()),
            dup2_stderr(console.as_fd()),
        );
        if std::os::fd::AsRawFd::as_raw_fd(&console) <= 2 {
            std::mem::forget(console);
        }
    }
}
