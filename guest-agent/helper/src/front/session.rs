//! A session: front starts the program that serves it (the supervisor, say), and does what that says until it may end.

use std::convert::Infallible;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Pid, setsid};
use serde::{Deserialize, Serialize};

use super::arguments::Call;
use super::tail::Tail;
use crate::lines::Lines;
use crate::processes::{self, End};
use crate::stand_in::{HUSK_FAILED, Outcome, StandIn};
use crate::window::WindowSize;
use crate::{descriptors, signals, window, words};

/// The descriptor of the conversation in the program that serves the session.
const CONTROL: i32 = 3;

/// What front says first.
#[derive(Serialize)]
#[serde(tag = "op", rename = "hello")]
struct Hello {
    pid: u32,
    terminal: Terminals,
    size: Option<WindowSize>,
}

/// Which of the caller's standard streams are terminals.
#[derive(Serialize)]
struct Terminals {
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Order {
    Attach {
        socket: PathBuf,
        token: String,
        #[serde(default)]
        detach: bool,
    },
    Fail {
        message: String,
        status: i32,
    },
    Print {
        text: String,
        #[serde(default)]
        stream: Output,
    },
    Exit {
        status: i32,
    },
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Output {
    #[default]
    Stdout,
    Stderr,
}

struct Session {
    control: Lines,
    tail: Tail,
    child: Pid,
    child_end: OwnedFd,
    signals: SignalFd,
}

/// Serves a call to its end. Answers the exit status, unless the process ends by a signal.
pub fn run(call: &Call<'_>) -> Result<ExitCode> {
    let session = Session::start(call)?;
    session.say(&Hello {
        pid: std::process::id(),
        terminal: Terminals { stdin: window::is_terminal(0), stdout: window::is_terminal(1), stderr: window::is_terminal(2) },
        size: window::of_standard_streams(),
    });
    session.serve()
}

impl Session {
    fn start(call: &Call<'_>) -> Result<Session> {
        // What ends front before it is a stand-in is passed on; what else a container may want to have waits until there is one.
        let passed = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT]);
        signals::block_all()?;
        // What the caller left open is not the supervisor's, nor a stand-in's that outlives the call.
        descriptors::close_all_but(CONTROL, &[])?;
        let (control, theirs) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).context("cannot make a socket pair")?;
        let (tail, stderr) = Tail::new()?;
        let Some(child) = processes::fork()? else {
            let Err(error) = execute(call, &theirs, &stderr);
            // Standard error is the pipe by now, if anything is: front tells the user.
            words::say(&format!("{error:#}\n"));
            std::process::exit(HUSK_FAILED)
        };
        let child_end = processes::pidfd(child)?;
        Ok(Session { control: Lines::new(control), tail, child, child_end, signals: signals::open(&passed)? })
    }

    fn serve(mut self) -> Result<ExitCode> {
        loop {
            let events = self.wait()?;
            if events.signal {
                self.pass_on_signal()?;
            }
            if events.stderr {
                self.tail.drain()?;
            }
            let open = !events.message || self.control.receive()?;
            while let Some(line) = self.control.take() {
                if let Some(code) = self.obey(&line)? {
                    return Ok(code);
                }
            }
            if events.child || !open {
                return self.no_last_word();
            }
        }
    }

    fn wait(&self) -> Result<Events> {
        let pipe = self.tail.descriptor();
        let [message, signal, child, stderr] =
            readable([Some(self.control.as_fd()), Some(self.signals.as_fd()), Some(self.child_end.as_fd()), pipe])?;
        Ok(Events { message, signal, child, stderr })
    }

    /// Tells the program that serves the session. One that is gone shows at the end of the conversation, which is read in any case.
    fn say(&self, message: &impl Serialize) {
        let _ = self.control.send(message);
    }

    fn pass_on_signal(&self) -> Result<()> {
        if let Some(signal) = self.signals.read_signal().context("cannot read a signal")? {
            let signal = Signal::try_from(signal.ssi_signo as i32).context("an unknown signal came")?;
            kill(self.child, signal).with_context(|| format!("cannot pass on {signal}"))?;
        }
        Ok(())
    }

    /// Carries out an order. Answers the exit status where it is the last one.
    fn obey(&mut self, line: &[u8]) -> Result<Option<ExitCode>> {
        match serde_json::from_slice(line) {
            Ok(Order::Attach { socket, token, detach: false }) => return self.become_stand_in(StandIn::dial(&socket, token)?).map(Some),
            Ok(Order::Attach { socket, token, detach: true }) => fork_stand_in(StandIn::dial(&socket, token)?)?,
            Ok(Order::Fail { message, status }) => {
                words::complain(message);
                self.wait_for_child()?;
                return Ok(Some(exit_code(status)));
            }
            Ok(Order::Print { text, stream: Output::Stdout }) => io::stdout().write_all(text.as_bytes()).context("cannot print")?,
            Ok(Order::Print { text, stream: Output::Stderr }) => io::stderr().write_all(text.as_bytes()).context("cannot print")?,
            Ok(Order::Exit { status }) => return Ok(Some(exit_code(status))),
            Err(error) => self.say(&serde_json::json!({"error": error.to_string()})),
        }
        Ok(None)
    }

    fn become_stand_in(&mut self, stand_in: StandIn) -> Result<ExitCode> {
        match stand_in.run(Some(&mut self.tail))? {
            Outcome::Ended(end) => {
                self.wait_for_child()?;
                processes::end_like(end)
            }
            Outcome::Failed { message, status } => {
                words::complain(message);
                self.wait_for_child()?;
                Ok(exit_code(status))
            }
            Outcome::Lost => {
                self.tail.drain()?;
                let said = self.tail.text().map_or(String::new(), |text| format!(": {text}"));
                words::complain(format_args!("the sandbox ended: its supervisor is gone{said}"));
                processes::end_like(End::Signal(Signal::SIGKILL as i32))
            }
        }
    }

    /// Waits until the program that serves the session has ended, so that nothing of it is left when this one ends. Signals
    /// have their default actions meanwhile: whoever does not want to wait need not.
    fn wait_for_child(&mut self) -> Result<End> {
        signals::restore_defaults()?;
        loop {
            let [ended, _] = readable([Some(self.child_end.as_fd()), self.tail.descriptor()])?;
            self.tail.drain()?;
            if ended {
                return processes::wait(self.child);
            }
        }
    }

    fn no_last_word(mut self) -> Result<ExitCode> {
        let end = self.wait_for_child()?;
        self.tail.drain()?;
        let how = match end {
            End::Code(code) => format!("ended with status {code}"),
            End::Signal(number) => format!("was killed by {}", Signal::try_from(number).map_or("a signal", Signal::as_str)),
        };
        match self.tail.text() {
            Some(text) => bail!("{text}"),
            None => bail!("the supervisor {how} before it said what became of the call"),
        }
    }
}

struct Events {
    message: bool,
    signal: bool,
    child: bool,
    stderr: bool,
}

/// Waits until something can be read from one of the descriptors, or has come to its end. Answers which.
fn readable<const N: usize>(descriptors: [Option<BorrowedFd<'_>>; N]) -> Result<[bool; N]> {
    let mut watched = descriptors.iter().flatten().map(|descriptor| PollFd::new(*descriptor, PollFlags::POLLIN)).collect::<Vec<_>>();
    while let Err(error) = poll(&mut watched, PollTimeout::NONE) {
        if error != Errno::EINTR {
            return Err(error).context("cannot wait for events");
        }
    }
    let mut watched = watched.iter();
    Ok(descriptors.map(|descriptor| descriptor.and_then(|_| watched.next()).is_some_and(|one| one.any().unwrap_or(true))))
}

/// In the child: becomes the program that serves the session.
fn execute(call: &Call<'_>, control: &OwnedFd, stderr: &OwnedFd) -> Result<Infallible> {
    // A session of its own: what the terminal sends to the caller's process group is front's to pass on.
    setsid().context("cannot make a session")?;
    descriptors::silence(&[0])?;
    for number in [1, 2] {
        descriptors::place(stderr.as_fd(), number)?;
    }
    descriptors::place(descriptors::raise(control.as_fd(), CONTROL + 1)?.as_fd(), CONTROL)?;
    descriptors::close_at_exec_from(CONTROL + 1)?;
    signals::restore_defaults()?;
    call.programs.execute(&[], call.script(), call.words)
}

/// Forks the stand-in, a child of the caller's or of whoever reaps for it as soon as front has ended.
fn fork_stand_in(stand_in: StandIn) -> Result<()> {
    if processes::fork()?.is_some() {
        return Ok(());
    }
    stand_in.run_in_background()
}

fn exit_code(status: i32) -> ExitCode {
    ExitCode::from((status & 0xff) as u8)
}
