//! A network namespace served to the supervisor as long as a sandbox lives: what is in it, that it changed, questions to its name server,
//! and connections to its loopback addresses. The supervisor speaks on descriptor 3; at its end, this ends, and nothing is left.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Deserialize;
use serde_json::json;

use super::forward::Forward;
use super::resolver::{self, Question};
use super::scan;
use super::watch::Watch;
use crate::capabilities;
use crate::lines::Lines;

const CONTROL: i32 = 3;

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Request {
    Scan,
    Ask { query: String, tcp: bool },
    Forward { socket: PathBuf },
}

#[derive(Deserialize)]
struct Numbered {
    id: u64,
    #[serde(flatten)]
    request: Request,
}

struct Service {
    control: Lines,
    watch: Watch,
    /// Whether the supervisor is to be told of the next change.
    armed: bool,
    questions: Vec<Question>,
    forward: Option<Forward>,
}

/// Serves the current network namespace.
pub fn serve() -> Result<()> {
    // SAFETY: the descriptor is this program's by contract, and nothing else here uses it.
    let control = Lines::new(unsafe { OwnedFd::from_raw_fd(CONTROL) });
    capabilities::keep_for_network()?;
    let mut service = Service { control, watch: Watch::open()?, armed: false, questions: Vec::new(), forward: None };
    while service.turn()? {}
    Ok(())
}

impl Service {
    /// Waits for something to do, and does it. Answers false at the end of the conversation.
    fn turn(&mut self) -> Result<bool> {
        let timeout = self.timeout();
        let mut watched = self.interests();
        match poll(&mut watched, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(true),
            Err(error) => return Err(error).context("cannot wait"),
        }
        let events = watched.iter().map(|one| one.revents().unwrap_or(PollFlags::all())).collect::<Vec<_>>();
        let (fixed, events) = events.split_at(2);
        let (for_questions, for_forward) = events.split_at(self.questions.len());
        if let Some(forward) = &mut self.forward {
            forward.advance(for_forward);
        }
        self.advance_questions(for_questions)?;
        if !fixed[1].is_empty() && self.watch.take()? && self.armed {
            self.armed = false;
            self.control.send(&json!({"event": "changed"}))?;
        }
        Ok(fixed[0].is_empty() || self.obey()?)
    }

    fn interests(&self) -> Vec<PollFd<'_>> {
        let fixed: [BorrowedFd<'_>; 2] = [self.control.as_fd(), self.watch.as_fd()];
        let mut watched = fixed.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).to_vec();
        watched.extend(self.questions.iter().map(|question| PollFd::new(question.as_fd(), question.interest())));
        let forward = self.forward.iter().flat_map(Forward::interests);
        watched.extend(forward.map(|(descriptor, events)| PollFd::new(descriptor, events)));
        watched
    }

    /// Until the first question is given up.
    fn timeout(&self) -> PollTimeout {
        let Some(until) = self.questions.iter().map(|question| question.until).min() else { return PollTimeout::NONE };
        let rest = until.saturating_duration_since(Instant::now()).as_millis() + 1;
        PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX)
    }

    fn advance_questions(&mut self, events: &[PollFlags]) -> Result<()> {
        let now = Instant::now();
        let questions = std::mem::take(&mut self.questions);
        for (mut question, events) in questions.into_iter().zip(events) {
            let result = if events.is_empty() { Ok(None) } else { question.advance() };
            match result {
                Ok(Some(answer)) => self.control.send(&json!({"id": question.id, "answer": to_hex(&answer)}))?,
                Ok(None) if now < question.until => self.questions.push(question),
                Ok(None) => self.refuse(question.id, &anyhow::anyhow!("the name server does not answer"))?,
                Err(error) => self.refuse(question.id, &error)?,
            }
        }
        Ok(())
    }

    fn obey(&mut self) -> Result<bool> {
        let goes_on = self.control.receive()?;
        while let Some(line) = self.control.take() {
            let Numbered { id, request } = serde_json::from_slice(&line).context("cannot understand a request")?;
            match self.carry_out(id, request) {
                Ok(Some(answer)) => self.control.send(&answer)?,
                Ok(None) => {}
                Err(error) => self.refuse(id, &error)?,
            }
        }
        Ok(goes_on)
    }

    fn refuse(&self, id: u64, error: &anyhow::Error) -> Result<()> {
        self.control.send(&json!({"id": id, "error": format!("{error:#}")}))
    }

    fn carry_out(&mut self, id: u64, request: Request) -> Result<Option<serde_json::Value>> {
        match request {
            Request::Scan => {
                // What changes while it is listed is told, too.
                self.armed = true;
                self.watch.take()?;
                Ok(Some(json!({"id": id, "contents": scan::scan()?, "resolver": resolver::is_there()?})))
            }
            Request::Ask { query, tcp } => {
                ensure!(self.questions.len() < resolver::MOST_QUESTIONS, "too many questions at once");
                self.questions.push(Question::ask(id, &from_hex(&query)?, tcp)?);
                Ok(None)
            }
            Request::Forward { socket } => {
                ensure!(self.forward.is_none(), "connections are forwarded already");
                self.forward = Some(Forward::begin(&socket)?);
                // Nothing is left that needs one.
                capabilities::give_up_all()?;
                Ok(Some(json!({"id": id, "ok": true})))
            }
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Result<Vec<u8>> {
    if !text.is_ascii() || text.len() % 2 != 0 {
        bail!("a question is not in hexadecimal digits");
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).context("a question is not in hexadecimal digits"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_hexadecimal_digits() {
        assert_eq!(to_hex(&[0, 0x7f, 0xff]), "007fff");
        assert_eq!(from_hex("007Fff").expect("digits"), [0, 0x7f, 0xff]);
        for text in ["0", "0g", "+1é", "é"] {
            assert!(from_hex(text).is_err(), "{text}");
        }
    }
}
