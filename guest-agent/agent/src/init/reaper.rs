//! PID 1's duty: every child that ends is waited for in one place, and whoever asked for it is told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

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

type Waiters = Arc<Mutex<HashMap<i32, oneshot::Sender<Ended>>>>;

/// Knows who waits for which child.
#[derive(Clone)]
pub struct Reaper {
    waiters: Waiters,
}

impl Reaper {
    /// Answers when the child has ended. Must be called before the child can be waited for: in the same turn of the event loop as its
    /// start, or while its parent is still another process that waits for us.
    pub fn watch(&self, pid: i32) -> oneshot::Receiver<Ended> {
        let (sender, receiver) = oneshot::channel();
        self.waiters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(pid, sender);
        receiver
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
        let waiter = self
            .waiters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&pid);
        if let Some(waiter) = waiter {
            // Whoever waited may have given up; orphans of containers have nobody.
            let _ = waiter.send(Ended {
                end,
                unix_ns: clock::unix_ns(),
            });
        }
    }
}

/// Starts reaping in the background.
pub fn start() -> Result<Reaper> {
    let child_signals = signal(SignalKind::child()).context(|| "watch SIGCHLD")?;
    let reaper = Reaper {
        waiters: Waiters::default(),
    };
    tokio::spawn(run(reaper.clone(), child_signals));
    Ok(reaper)
}

async fn run(reaper: Reaper, mut child_signals: Signal) {
    while child_signals.recv().await.is_some() {
        reaper.reap();
    }
}
