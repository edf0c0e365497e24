//! System calls that nix does not wrap: the mount API of descriptors, and a few small ones.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

type Result<T> = nix::Result<T>;

fn owned(result: libc::c_long) -> Result<OwnedFd> {
    let fd = Errno::result(result)?;
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A C string of outside bytes; EINVAL where they hold a NUL.
pub fn c_string(bytes: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(bytes).map_err(|_| Errno::EINVAL)
}

/// A detached copy of the mount at `path` (of `fd` itself, where the path is empty), with all below it where `recursive`.
pub fn clone_tree(fd: Option<BorrowedFd>, path: &CStr, recursive: bool) -> Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as u32;
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    let dir = fd.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd());
    // SAFETY: `path` is a C string that outlives the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) })
}

/// Attaches a detached mount on the file or folder that `target` refers to.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are empty C strings.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            target.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    };
    Errno::result(result).map(drop)
}

/// What [`set_mount`] changes: MOUNT_ATTR_* flags to set and to clear, and one of MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE, or 0.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct MountChange {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
}

/// Changes the attributes of the mount that `mount` refers to, and of all mounts below it where `recursive`.
pub fn set_mount(mount: impl AsFd, change: MountChange, recursive: bool) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the struct is initialised and its size is passed along.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop)
}

/// A context in which a file system of the type is configured.
pub fn open_filesystem(fstype: &CStr) -> Result<OwnedFd> {
    // SAFETY: `fstype` is a C string.
    owned(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), libc::FSOPEN_CLOEXEC) })
}

/// One command of fsconfig(2), with a key and a value where the command takes them.
pub fn configure_filesystem(
    context: impl AsFd,
    command: u32,
    key: Option<&CStr>,
    value: Option<&CStr>,
) -> Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the pointers are null or C strings.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_fd().as_raw_fd(),
            command,
            pointer(key),
            pointer(value),
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// The detached mount of a configured file system, with MOUNT_ATTR_* flags.
pub fn mount_filesystem(context: impl AsFd, attributes: u64) -> Result<OwnedFd> {
    let context = context.as_fd().as_raw_fd();
    // SAFETY: plain numbers.
    owned(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            context,
            libc::FSMOUNT_CLOEXEC,
            attributes as libc::c_uint,
        )
    })
}

/// A descriptor of the process.
pub fn open_pidfd(pid: i32) -> Result<OwnedFd> {
    // SAFETY: plain numbers.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Marks every descriptor from `first` on to be closed by execve.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    // SAFETY: plain numbers; no descriptor is closed now.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    Errno::result(result).map(drop)
}

/// Gives the calling process a session keyring of its own.
pub fn join_new_session_keyring(name: &CStr) -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: `name` is a C string.
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            name.as_ptr(),
            0,
            0,
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// Puts a seccomp filter in force for the calling process, with flags of seccomp(2).
pub fn load_seccomp(program: &[libc::sock_filter], flags: libc::c_ulong) -> Result<()> {
    let length = libc::c_ushort::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let program = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads the program, and writes nothing to it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    Errno::result(result).map(drop)
}

/// ioprio_set(2) for the calling process.
pub fn set_io_priority(class: u32, level: u32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_long = 1;
    // SAFETY: plain numbers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            IOPRIO_WHO_PROCESS,
            0,
            (class << 13) | level,
        )
    };
    Errno::result(result).map(drop)
}

/// sched_setattr(2) for the calling process.
pub fn set_scheduler(attributes: &libc::sched_attr) -> Result<()> {
    // SAFETY: the struct carries its own size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setattr,
            0,
            std::ptr::from_ref(attributes),
            0,
        )
    };
    Errno::result(result).map(drop)
}
