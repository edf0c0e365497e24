//! PID 1's duty: every child that ends is waited for in one place, and whoever asked for it is told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::clock;
use crate::error::{Context, Result};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Exited(u8),
    Killed(i32),
}

/// How a process ended, and when: nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub end: End,
    pub unix_ns: u64,
}

#[derive(Default)]
struct Watched {
    waiters: HashMap<i32, oneshot::Sender<Ended>>,
    /// How many expect a child whose PID they do not know yet.
    expecting: usize,
    /// The ends of children that nobody waits for, while somebody expects one.
    unclaimed: HashMap<i32, Ended>,
}

/// Knows who waits for which child.
#[derive(Clone, Default)]
pub struct Reaper {
    watched: Arc<Mutex<Watched>>,
}

/// Somebody expects a child: its end is kept until its PID is known.
pub struct Expectation<'a> {
    reaper: &'a Reaper,
}

impl Expectation<'_> {
    /// Answers when the child has ended, which it may have already.
    pub fn watch(&self, pid: i32) -> oneshot::Receiver<Ended> {
        let mut watched = self.reaper.lock();
        let (sender, receiver) = oneshot::channel();
        match watched.unclaimed.remove(&pid) {
            // The receiver is here.
            Some(ended) => drop(sender.send(ended)),
            None => drop(watched.waiters.insert(pid, sender)),
        }
        receiver
    }
}

impl Drop for Expectation<'_> {
    fn drop(&mut self) {
        let mut watched = self.reaper.lock();
        watched.expecting -= 1;
        if watched.expecting == 0 {
            watched.unclaimed.clear();
        }
    }
}

impl Reaper {
    /// Answers when the child has ended. Must be called in the same turn of the event loop as its start.
    pub fn watch(&self, pid: i32) -> oneshot::Receiver<Ended> {
        let (sender, receiver) = oneshot::channel();
        self.lock().waiters.insert(pid, sender);
        receiver
    }

    /// For who will hear of a child from elsewhere, and perhaps after its end. All that are left to us meanwhile are our own, few: a container's orphans have
    /// the first process of its PID namespace.
    pub fn expect(&self) -> Expectation<'_> {
        self.lock().expecting += 1;
        Expectation { reaper: self }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reap(&self) {
        loop {
            let mut status = 0;
            // The plain call, since nix has no name for a death by a real-time signal.
            // SAFETY: `status` outlives the call.
            match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) } {
                -1 if Errno::last() == Errno::EINTR => {}
                -1 | 0 => return,
                pid if libc::WIFSIGNALED(status) => {
                    self.tell(pid, End::Killed(libc::WTERMSIG(status)))
                }
                pid => self.tell(pid, End::Exited(libc::WEXITSTATUS(status) as u8)),
            }
        }
    }

    fn tell(&self, pid: i32, end: End) {
        let ended = Ended {
            end,
            unix_ns: clock::unix_ns(),
        };
        let mut watched = self.lock();
        if let Some(waiter) = watched.waiters.remove(&pid) {
            // Whoever waited may have given up.
            let _ = waiter.send(ended);
        } else if watched.expecting > 0 {
            watched.unclaimed.insert(pid, ended);
        }
    }
}

/// Starts reaping in the background.
pub fn start() -> Result<Reaper> {
    let child_signals = signal(SignalKind::child()).context(|| "watch SIGCHLD")?;
    let reaper = Reaper::default();
    tokio::spawn(run(reaper.clone(), child_signals));
    Ok(reaper)
}

async fn run(reaper: Reaper, mut child_signals: Signal) {
    while child_signals.recv().await.is_some() {
        reaper.reap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_child_that_is_expected_is_kept_until_its_pid_is_known() {
        let reaper = Reaper::default();
        let expectation = reaper.expect();
        reaper.tell(7, End::Exited(3));
        reaper.tell(8, End::Exited(4));
        let ended = expectation.watch(7).try_recv().expect("an end");
        assert_eq!(ended.end, End::Exited(3));
        let mut later = expectation.watch(9);
        assert!(later.try_recv().is_err());
        reaper.tell(9, End::Killed(9));
        assert_eq!(later.try_recv().expect("an end").end, End::Killed(9));
        // The other one was nobody's.
        drop(expectation);
        assert!(reaper.expect().watch(8).try_recv().is_err());
        reaper.tell(10, End::Exited(0));
        assert!(reaper.expect().watch(10).try_recv().is_err());
    }
}
