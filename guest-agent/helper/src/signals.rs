//! Signals: taken from a descriptor in the poll loop, never by a handler.

use anyhow::{Context, Result};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
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

/// What a program expects to find at its start: nothing blocked, every action the default one (Rust ignores SIGPIPE).
pub fn restore_defaults() -> Result<()> {
    for number in Signal::iterator() {
        if number != Signal::SIGKILL && number != Signal::SIGSTOP {
            // SAFETY: the default action is no handler of ours.
            unsafe { signal(number, SigHandler::SigDfl) }.with_context(|| format!("cannot reset {number}"))?;
        }
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).context("cannot unblock signals")
}
