//! The outer process once its sandbox has ended.

use std::process::ExitCode;

use anyhow::{Context, Result};
use nix::sys::signalfd::SignalFd;
use nix::unistd::{Pid, execv};

use super::plan::{Operation, Request};
use super::{Event, listen, request_id};
use crate::lines::Lines;
use crate::{descriptors, processes, signals};

/// The outer process of a sandbox that has ended: it waits for the supervisor to give back what remains, or to die before that.
pub struct Heir {
    pub supervisor: Pid,
    pub control: Lines,
    pub signals: SignalFd,
    pub remains: Vec<String>,
}

impl Heir {
    /// Ends with `status`, once nothing remains.
    pub fn serve(mut self, status: u8) -> Result<ExitCode> {
        if self.remains.is_empty() {
            return Ok(ExitCode::from(status));
        }
        // Its end tells that nobody is left to write on it.
        descriptors::silence(&[2])?;
        let _ = self.control.send(&Event::Ended { status }); // one that takes nothing any more is gone
        loop {
            let lives = listen(&mut self.control, &self.signals, self.supervisor)?;
            // What it said last counts as well.
            while let Some(line) = self.control.take() {
                let answer = match serde_json::from_slice(&line) {
                    Ok(Request { id, operation: Operation::Remains { program } }) => {
                        self.remains = program;
                        Event::Done { id, ok: true }
                    }
                    _ => Event::Failed { id: request_id(&line), error: "the sandbox has ended".to_owned() },
                };
                let _ = self.control.send(&answer);
            }
            if self.remains.is_empty() {
                return Ok(ExitCode::from(status));
            }
            if !lives {
                return become_program(&self.remains);
            }
        }
    }
}

/// Becomes the program that sees to what remains, where there is one.
pub fn become_program(remains: &[String]) -> Result<ExitCode> {
    let Some(program) = remains.first() else {
        return Ok(ExitCode::SUCCESS);
    };
    // Whoever read what is said here is gone.
    descriptors::silence(&[0, 1, 2])?;
    signals::restore_defaults()?;
    let arguments = remains.iter().map(processes::argument).collect::<Result<Vec<_>>>()?;
    let Err(error) = execv(&arguments[0], &arguments);
    Err(error).with_context(|| format!("cannot execute {program}"))
}
