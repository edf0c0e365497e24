//! The outer process's own conversation with QEMU, by which QEMU is given files while it runs: a descriptor travels with the words that ask for it, over a
//! unix socket, and Node has no way to send one (<https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html>, `add-fd`).
//!
//! The monitor greets, and says nothing else of its own accord until it has been asked something once. From then on it tells of events, as to everybody: they
//! are the supervisor's business, which hears of them as well, and are read here so that they do not pile up in QEMU.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::lines::Lines;
use crate::processes;

/// How long an answer may take: a millisecond is usual. QEMU is not to be trusted once its guest has run.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Monitor {
    lines: Lines,
    /// Whether the monitor takes commands: it asks for a first one, which says what the client can do.
    is_open: bool,
}

/// What QEMU says: a greeting, an event, or an answer, which alone is of interest.
#[derive(Deserialize)]
struct Said {
    #[serde(rename = "return")]
    answer: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

impl Monitor {
    /// A conversation, and QEMU's end of it.
    pub fn pair() -> Result<(Monitor, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
            .context("cannot make the socket pair of QEMU's second monitor")?;
        Ok((Monitor { lines: Lines::new(ours), is_open: false }, theirs))
    }

    /// Has QEMU keep `file` in the set of descriptors number `set`.
    pub fn add_file(&mut self, set: u32, file: BorrowedFd<'_>) -> Result<()> {
        if !self.is_open {
            // The copy of a QEMU whose monitor was open refuses, since its own is.
            self.ask(&json!({"execute": "qmp_capabilities"}), &[])?;
            self.is_open = true;
        }
        match self.ask(&json!({"execute": "add-fd", "arguments": {"fdset-id": set}}), &[file.as_raw_fd()])? {
            Some(Refusal { desc }) => bail!("QEMU refuses: {}", desc.escape_debug()),
            None => Ok(()),
        }
    }

    /// Takes in what is said without having been asked. Answers false where QEMU has hung up.
    pub fn hear(&mut self) -> bool {
        let goes_on = self.lines.receive().unwrap_or(false);
        while self.lines.take().is_some() {}
        goes_on
    }

    /// Answers what QEMU says against it.
    fn ask(&mut self, command: &Value, descriptors: &[RawFd]) -> Result<Option<Refusal>> {
        let words = command.to_string();
        let rights = [ControlMessage::ScmRights(descriptors)];
        let rights: &[_] = if descriptors.is_empty() { &[] } else { &rights };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let sent =
            processes::retry(|| sendmsg::<()>(self.lines.as_fd().as_raw_fd(), &[IoSlice::new(words.as_bytes())], rights, flags, None));
        ensure!(sent.context("cannot ask QEMU")? == words.len(), "QEMU does not take what it is asked");
        let until = Instant::now() + PATIENCE;
        let mut goes_on = true;
        loop {
            while let Some(line) = self.lines.take() {
                let said: Said = serde_json::from_slice(&line).context("QEMU's answer cannot be understood")?;
                match said {
                    Said { error: Some(refusal), .. } => return Ok(Some(refusal)),
                    Said { answer: Some(_), .. } => return Ok(None),
                    Said { .. } => {}
                }
            }
            // What was said before the end counts.
            ensure!(goes_on, "QEMU has hung up");
            let left = until.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "QEMU does not answer within {} s", PATIENCE.as_secs());
            let limit = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            let mut watched = [PollFd::new(self.lines.as_fd(), PollFlags::POLLIN)];
            processes::retry(|| poll(&mut watched, limit)).context("cannot wait for QEMU")?;
            goes_on = self.lines.receive()?;
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lines.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::thread;

    /// A monitor behind which `answers` are given, one for each command; answers what it was asked.
    fn with(answers: &'static [&'static str]) -> (Monitor, thread::JoinHandle<Vec<String>>) {
        let (monitor, theirs) = Monitor::pair().expect("a pair");
        let mut qemu = UnixStream::from(theirs);
        let serve = move || {
            qemu.write_all(b"{\"QMP\": {}}\r\n").expect("greets");
            let mut asked = Vec::new();
            for answer in answers {
                let mut block = [0; 256];
                let length = qemu.read(&mut block).expect("is asked");
                asked.push(String::from_utf8_lossy(&block[..length]).into_owned());
                qemu.write_all(answer.as_bytes()).expect("answers");
            }
            asked
        };
        (monitor, thread::spawn(serve))
    }

    fn file() -> File {
        File::open("/dev/null").expect("a file")
    }

    #[test]
    fn it_is_opened_once_and_events_are_no_answers() {
        let (mut monitor, qemu) =
            with(&["{\"return\": {}}\r\n", "{\"event\": \"STOP\"}\r\n{\"return\": {\"fd\": 9}}\r\n", "{\"return\": {\"fd\": 10}}\r\n"]);
        for set in [201, 202] {
            monitor.add_file(set, file().as_fd()).expect("takes it");
        }
        let asked = qemu.join().expect("QEMU");
        assert_eq!(asked[0], r#"{"execute":"qmp_capabilities"}"#);
        assert_eq!(asked[1], r#"{"arguments":{"fdset-id":201},"execute":"add-fd"}"#);
        assert_eq!(asked[2], r#"{"arguments":{"fdset-id":202},"execute":"add-fd"}"#);
    }

    #[test]
    fn a_refusal_and_an_end_are_told() {
        let (mut monitor, qemu) = with(&["{\"return\": {}}\r\n", "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\\nfd\"}}\r\n"]);
        assert_eq!(monitor.add_file(1, file().as_fd()).expect_err("refused").to_string(), r"QEMU refuses: no\nfd");
        qemu.join().expect("QEMU");
        while monitor.hear() {
            thread::yield_now();
        }
        let error = monitor.add_file(1, file().as_fd()).expect_err("gone");
        assert_eq!(format!("{error:#}"), "cannot ask QEMU: EPIPE: Broken pipe");
    }
}
