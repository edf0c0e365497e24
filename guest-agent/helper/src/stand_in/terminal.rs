//! The terminal of a stand-in: the caller's, or one of its own whose other end is the engine's.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getsid};

use crate::unix_socket;
use crate::window::{self, WindowSize};

pub struct Terminal {
    descriptor: OwnedFd,
    before: Termios,
    /// Somebody else's, to be left as it was found.
    borrowed: bool,
}

impl Terminal {
    /// The caller's terminal: the first of the standard streams that is one. `None` where none is.
    pub fn inherited() -> Result<Option<Terminal>> {
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        for stream in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
            if let Ok(before) = tcgetattr(stream) {
                let descriptor = stream.try_clone_to_owned().context("cannot duplicate the terminal")?;
                return Ok(Some(Terminal { descriptor, before, borrowed: true }));
            }
        }
        Ok(None)
    }

    /// A new terminal. Its master goes to whoever listens at `socket`, as engines expect it of a runtime; the other side becomes the
    /// controlling terminal of this process, so that a change of its size arrives as a signal.
    pub fn for_engine(socket: &Path, size: Option<WindowSize>) -> Result<Terminal> {
        let what = "cannot make a terminal";
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).context(what)?;
        grantpt(&master).context(what)?;
        unlockpt(&master).context(what)?;
        let descriptor = open_slave(&master).context(what)?;
        if let Some(size) = size {
            window::set(descriptor.as_raw_fd(), size).context("cannot set the terminal's size")?;
        }
        let before = tcgetattr(&descriptor).context(what)?;
        let terminal = Terminal { descriptor, before, borrowed: false };
        terminal.make_raw().context("cannot set the terminal up")?;
        if getsid(None) == Ok(Pid::this()) {
            // SAFETY: only numbers are passed.
            Errno::result(unsafe { libc::ioctl(terminal.descriptor.as_raw_fd(), libc::TIOCSCTTY, 0) })
                .context("cannot take the terminal over")?;
        }
        hand_over(&master, socket).with_context(|| format!("cannot hand the terminal over at {}", socket.display()))?;
        Ok(terminal)
    }

    /// Whether the standard streams stay what they were: an engine's terminal stands in their place.
    pub fn is_borrowed(&self) -> bool {
        self.borrowed
    }

    /// Lets every byte through as it is: the terminal in the guest does the editing, the echo and the signals.
    pub fn make_raw(&self) -> nix::Result<()> {
        let mut raw = self.before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&self.descriptor, SetArg::TCSANOW, &raw)
    }

    pub fn size(&self) -> Option<WindowSize> {
        window::of(self.descriptor.as_raw_fd())
    }

    /// Leaves the terminal as it was found.
    pub fn restore(&self) {
        if !self.borrowed {
            return;
        }
        // From the background, this would stop the process; who has the terminal by now is not asked.
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTTOU);
        // A terminal that has been hung up need not be restored.
        let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None);
        let _ = tcsetattr(&self.descriptor, SetArg::TCSANOW, &self.before);
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Opens the other side of a terminal, whichever devpts it is of and whether or not that has a path here.
fn open_slave(master: &PtyMaster) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    // SAFETY: only numbers are passed; the kernel answers a new descriptor or -1.
    let number = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits()) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn hand_over(master: &PtyMaster, socket: &Path) -> Result<()> {
    unix_socket::send(socket, ptsname_r(master)?.as_bytes(), master.as_fd())
}
