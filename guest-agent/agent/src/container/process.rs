//! A process of a container that the host knows by name.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use nix::errno::Errno;
use tokio::sync::watch;

use super::control::Control;
use super::stdio::Stdio;
use super::{launch, young};
use crate::api;
use crate::child::wire::TerminalSize;
use crate::error::{Class, Context, Failure, Result};
use crate::init::reaper::{End, Ended};

/// How a process ended, and whether for want of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessEnd {
    pub ended: Ended,
    pub oom_killed: bool,
}

impl From<ProcessEnd> for api::WaitProcessResponse {
    fn from(end: ProcessEnd) -> Self {
        let outcome = match end.ended.end {
            End::Exited(code) => api::wait_process_response::End::ExitCode(code.into()),
            End::Killed(signal) => api::wait_process_response::End::Signal(signal as u32),
        };
        api::WaitProcessResponse {
            end: Some(outcome),
            oom_killed: end.oom_killed,
            ended_unix_ns: end.ended.unix_ns,
            is_last: false,
        }
    }
}

/// A process: created, started, ended.
pub struct Process {
    pub id: String,
    /// In the agent's PID namespace.
    pub pid: i32,
    pub stdio: Stdio,
    /// Until the start: the way to say "start".
    control: Mutex<Option<Control>>,
    /// When a start was asked for.
    started: OnceLock<Instant>,
    end: watch::Receiver<Option<ProcessEnd>>,
}

impl Process {
    /// A process that waits for its start.
    pub fn new(
        id: &str,
        pid: i32,
        stdio: Stdio,
        control: Control,
        end: watch::Receiver<Option<ProcessEnd>>,
    ) -> Arc<Self> {
        let control = Mutex::new(Some(control));
        Arc::new(Process {
            id: id.to_owned(),
            pid,
            stdio,
            control,
            started: OnceLock::new(),
            end,
        })
    }

    /// Lets the process execute its program; fails where it could not.
    pub async fn start(&self) -> Result<()> {
        let control = self
            .control
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(control) = control else {
            return Err(Failure::new(
                Class::WrongState,
                format!("process {:?} was started before", self.id),
            ));
        };
        let _ = self.started.set(Instant::now()); // the control was there, so nobody has before
        launch::start(control).await
    }

    /// Whether a start was asked for.
    pub fn is_started(&self) -> bool {
        self.started.get().is_some()
    }

    /// How it ended, if it did.
    pub fn end(&self) -> Option<ProcessEnd> {
        *self.end.borrow()
    }

    /// Answers when it has ended.
    pub async fn wait(&self) -> ProcessEnd {
        let mut end = self.end.clone();
        let known = end.wait_for(Option::is_some).await.map(|end| *end);
        // The sender speaks before it goes; were it gone without a word, the process would be lost, and killed is what that means.
        known.ok().flatten().unwrap_or(ProcessEnd {
            ended: Ended {
                end: End::Killed(libc::SIGKILL),
                unix_ns: 0,
            },
            oom_killed: false,
        })
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        // Its number is its own until it was waited for, and that happens on this thread too.
        if self.end().is_some() {
            return Err(Failure::new(
                Class::WrongState,
                format!("process {:?} has ended", self.id),
            ));
        }
        kill(self.pid, signal)
    }

    /// Sends a signal to the first process of a PID namespace: see `young`.
    pub async fn signal_first(&self, signal: i32) -> Result<()> {
        if let (Some(&started), None) = (self.started.get(), self.end()) {
            young::wait_for_handler(self.pid, signal, started).await;
            if self.end().is_some() {
                return Ok(()); // it was there when it was sent
            }
        }
        self.signal(signal)
    }

    /// Changes the size of its terminal.
    pub fn resize(&self, size: TerminalSize) -> Result<()> {
        self.stdio.resize(size)
    }
}

/// kill(2); a process that is gone is no error. Takes real-time signals, which nix has no names for.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    if pid <= 1 {
        return Err(Failure::invalid(format!(
            "no container has a process {pid}"
        )));
    }
    // SAFETY: plain numbers.
    match Errno::result(unsafe { libc::kill(pid, signal) }) {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).context(|| format!("send signal {signal} to process {pid}")),
    }
}
