//! A process's terminal: a pty of the container's own devpts.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::stat::Mode;
use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};
use nix::unistd::{Gid, Uid, fchown};

use super::resolve::{Missing, resolve};
use super::wire::TerminalSize;
use crate::error::{Class, Context, Failure, Result};
use crate::sys;

const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
const PTMX: &str = "/dev/pts/ptmx";

/// Both ends of a pty.
pub struct Terminal {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// Opens a pty in the root that the process is in.
pub fn open_pty(size: TerminalSize) -> Result<Terminal> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let master = open(PTMX, flags, Mode::empty())
        .context(|| format!("open {PTMX} (a terminal needs a devpts mount on /dev/pts)"))?;
    let kind = nix::sys::statfs::fstatfs(&master)
        .context(|| format!("look at {PTMX}"))?
        .filesystem_type();
    if kind.0 != DEVPTS_SUPER_MAGIC {
        return Err(Failure::other(format!(
            "{PTMX} is no pty: a terminal needs a devpts mount on /dev/pts"
        )));
    }
    let unlocked: libc::c_int = 0;
    // SAFETY: the argument of TIOCSPTLCK is a pointer to an int.
    Errno::result(unsafe {
        libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked)
    })
    .context(|| "unlock a pty")?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the argument of TIOCGPTPEER is a number; it makes a descriptor of the slave without going by any path.
    let slave = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })
        .context(|| "open a pty's other end")?;
    // SAFETY: it has just been made.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    set_size(master.as_fd(), size)?;
    Ok(Terminal { master, slave })
}

/// Sets the window size of the terminal.
pub fn set_size(terminal: impl AsFd, size: TerminalSize) -> Result<()> {
    let size = libc::winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the argument of TIOCSWINSZ is a pointer to a winsize.
    Errno::result(unsafe {
        libc::ioctl(
            terminal.as_fd().as_raw_fd(),
            libc::TIOCSWINSZ,
            &raw const size,
        )
    })
    .context(|| "set the window size")
    .map(drop)
}

impl Terminal {
    /// Lets line feeds through as they are, where what comes out is read by no terminal: a file is not to have carriage returns that its
    /// program did not write.
    pub fn keep_newlines(&self) -> Result<()> {
        let what = || "set the terminal up";
        let mut mode = tcgetattr(&self.slave).context(what)?;
        mode.output_flags.remove(OutputFlags::ONLCR);
        tcsetattr(&self.slave, SetArg::TCSANOW, &mode).context(what)
    }

    /// Makes it the standard streams and the controlling terminal of this process, which leads its session.
    pub fn take(self, uid: u32) -> Result<()> {
        // The group stays that of the mount's gid option, usually tty.
        let group: Option<Gid> = None;
        fchown(&self.slave, Some(Uid::from_raw(uid)), group)
            .context(|| "give the terminal to the user")?;
        // SAFETY: the argument of TIOCSCTTY is a number.
        Errno::result(unsafe { libc::ioctl(self.slave.as_raw_fd(), libc::TIOCSCTTY, 0) })
            .context(|| "take the terminal")?;
        set_standard_streams(&[&self.slave, &self.slave, &self.slave])
    }

    /// Shows it as /dev/console in the container.
    pub fn bind_to_console(&self) -> Result<()> {
        let fail = |errno: Errno| {
            Failure::new(
                Class::MountFailed,
                format!("bind the terminal to /dev/console: {errno}"),
            )
        };
        let root = File::open("/").class(Class::MountFailed, || "open /")?;
        let console = resolve(root.as_fd(), "dev/console".as_ref(), Missing::File).map_err(fail)?;
        let node = sys::clone_tree(Some(self.slave.as_fd()), c"", false).map_err(fail)?;
        sys::attach(&node, &console).map_err(fail)
    }
}

/// Makes these the descriptors 0, 1 and 2, which execve keeps.
pub fn set_standard_streams(streams: &[&OwnedFd; 3]) -> Result<()> {
    nix::unistd::dup2_stdin(streams[0])
        .and_then(|()| nix::unistd::dup2_stdout(streams[1]))
        .and_then(|()| nix::unistd::dup2_stderr(streams[2]))
        .context(|| "set the standard streams")
}
