//! What the supervisor says before the plan.

use anyhow::{Context, Result, bail};

use super::Event;
use super::filled::Filled;
use super::plan::{Operation, Plan, Request};
use crate::lines::Lines;

/// What is said before the plan.
#[derive(Default)]
pub struct Prelude {
    pub remains: Vec<String>,
    pub filled: Option<Filled>,
}

impl Prelude {
    /// Takes the plan, where it has come, and does before that what is asked for before it.
    pub fn take_plan(&mut self, control: &mut Lines) -> Option<Result<Plan>> {
        while let Some(line) = control.take() {
            let Ok(Request { id, operation }) = serde_json::from_slice(&line) else {
                return Some(serde_json::from_slice(&line).context("the plan cannot be understood"));
            };
            let answer = match self.obey(operation) {
                Ok(()) => Event::Done { id, ok: true },
                Err(error) => Event::Failed { id: Some(id), error: format!("{error:#}") },
            };
            let _ = control.send(&answer); // one that takes nothing any more is gone: the next round sees it
        }
        None
    }

    fn obey(&mut self, operation: Operation) -> Result<()> {
        match operation {
            Operation::Remains { program } => self.remains = program,
            Operation::Fill { ram, bytes, sum } => self.filled = Some(Filled::new(&ram, bytes, sum)?),
            _ => bail!("there is no sandbox yet"),
        }
        Ok(())
    }
}
