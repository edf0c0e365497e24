//! Small files of /proc that say how a process is treated.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use crate::error::{Context, Result};

/// The guest's own /proc, kept open while the container's takes its place: what a container mounts there is never trusted.
pub struct Proc(OwnedFd);

impl Proc {
    /// Opens /proc. In the guest's own mount namespace.
    pub fn open() -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open("/proc", flags, Mode::empty())
            .map(Proc)
            .context(|| "open /proc")
    }

    /// Writes a value to a file below /proc.
    pub fn write(&self, path: &str, value: &str) -> Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let file = openat(self.0.as_fd(), path, flags, Mode::empty())
            .context(|| format!("open /proc/{path}"))?;
        File::from(file)
            .write_all(value.as_bytes())
            .context(|| format!("write {value:?} to /proc/{path}"))
    }

    /// Reads a file below /proc.
    pub fn read(&self, path: &str) -> Result<String> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let file = openat(self.0.as_fd(), path, flags, Mode::empty())
            .context(|| format!("open /proc/{path}"))?;
        std::io::read_to_string(File::from(file)).context(|| format!("read /proc/{path}"))
    }
}
