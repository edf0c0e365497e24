//! Patience with those who write bulk output. The kernel has whoever waits for a pipe run as soon as the first of it is there, and each such change costs an emulated
//! processor all that it knows of addresses and code: as much as passing the pipe's bytes on. Who is patient (sched(7), SCHED_BATCH) runs once the writer
//! has filled the pipe, or its turn is over. Meanwhile calls wait for that as well, which is some milliseconds at most, so only bulk output has the agent so.

use std::sync::Mutex;
use std::sync::PoisonError;

use nix::errno::Errno;

use crate::console;

/// How many have the agent patient.
static REASONS: Mutex<usize> = Mutex::new(0);

/// A reason to be patient, for as long as it lives.
pub struct Patience(());

impl Patience {
    /// Has the agent's thread, whose call this is, be patient.
    pub fn begin() -> Self {
        change(|reasons| *reasons += 1);
        Patience(())
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        change(|reasons| *reasons -= 1);
    }
}

/// Has the calling thread run as any other: a child of the agent inherits its patience.
pub fn end() {
    set(libc::SCHED_OTHER);
}

fn change(count: impl FnOnce(&mut usize)) {
    let mut reasons = REASONS.lock().unwrap_or_else(PoisonError::into_inner);
    let was_patient = *reasons > 0;
    count(&mut reasons);
    match (was_patient, *reasons > 0) {
        (false, true) => set(libc::SCHED_BATCH),
        (true, false) => set(libc::SCHED_OTHER),
        _ => {}
    }
}

fn set(policy: libc::c_int) {
    // SAFETY: a structure of integers.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel reads the parameters.
    let result = Errno::result(unsafe { libc::sched_setscheduler(0, policy, &parameters) });
    if let Err(errno) = result {
        console::log(format_args!("set the scheduling policy {policy}: {errno}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lasts_as_long_as_there_is_a_reason() {
        // SAFETY: asks for the calling thread's own.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        assert_eq!(policy(), libc::SCHED_OTHER);
        let (one, other) = (Patience::begin(), Patience::begin());
        assert_eq!(policy(), libc::SCHED_BATCH);
        drop(one);
        assert_eq!(policy(), libc::SCHED_BATCH);
        end();
        assert_eq!(policy(), libc::SCHED_OTHER);
        drop(other);
        assert_eq!(policy(), libc::SCHED_OTHER);
    }
}
