//! Signals: taken from a descriptor in the poll loop, never by a handler.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals whose default action belongs to the terminal's job control, and which are therefore never taken: reading from
/// the background stops the process as it would stop any other.
const JOB_CONTROL: [Signal; 2] = [Signal::SIGTTIN, Signal::SIGTTOU];

/// Blocks every signal that can be blocked, but for those of job control, so that they can be taken from a descriptor.
pub fn block_all() -> Result<()> {
    let mut mask = SigSet::all();
    for signal in JOB_CONTROL {
        mask.remove(signal);
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None).context("cannot block signals")
}

/// Blocks the signals that are named, besides those that are blocked already.
pub fn block(signals: &SigSet) -> Result<()> {
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(signals), None).context("cannot block signals")
}

/// A descriptor to take blocked signals from.
pub fn open(signals: &SigSet) -> Result<SignalFd> {
    SignalFd::with_flags(signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).context("cannot make a signal descriptor")
}

/// What a program expects to find at its start: nothing blocked, every action the default one. Rust ignores SIGPIPE, and
/// whoever started the helper may have ignored others.
pub fn restore_defaults() -> Result<()> {
    /// What sigaction takes in the kernel; glibc's hides its own two signals. All zero is the default action.
    const DEFAULT: [u64; 4] = [0; 4];
    for number in 1..=64 {
        if number != libc::SIGKILL && number != libc::SIGSTOP {
            let before = std::ptr::null_mut::<u64>();
            // SAFETY: the structure outlives the call, and is as long as the kernel's on every 64-bit system.
            let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, number, DEFAULT.as_ptr(), before, size_of::<u64>()) };
            Errno::result(result).with_context(|| format!("cannot reset signal {number}"))?;
        }
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).context("cannot unblock signals")
}
