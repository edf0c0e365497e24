//! A session: front starts the program that serves it (the supervisor, say), or dials one that runs, and does what that says until it may end.

use std::convert::Infallible;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use nix::poll::PollTimeout;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Pid, setsid};
use serde::{Deserialize, Serialize};

use super::arguments::{Call, SUPERVISOR};
use super::tail::Tail;
use super::{pool, supervisor};
use crate::lines::Lines;
use crate::processes::{self, End};
use crate::programs::http2_flags;
use crate::stand_in::{self, HUSK_FAILED, StandIn};
use crate::window::WindowSize;
use crate::{descriptors, signals, window, words};

/// How long a supervisor may take to begin to say a container's state, in milliseconds: it is never busy for so long.
const STATE_PATIENCE: u16 = 500;

/// The descriptor of the conversation in the program that serves the session.
const CONTROL: i32 = 3;

/// What front says first.
#[derive(Serialize)]
#[serde(tag = "op", rename = "hello")]
pub struct Hello {
    pid: u32,
    terminal: Terminals,
    size: Option<WindowSize>,
}

impl Hello {
    pub fn of_this_process() -> Self {
        Hello {
            pid: std::process::id(),
            terminal: Terminals { stdin: window::is_terminal(0), stdout: window::is_terminal(1), stderr: window::is_terminal(2) },
            size: window::of_standard_streams(),
        }
    }
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
    /// A running supervisor's: the call is not for it. `shape`: of the pool's sandboxes that it is for, where there are any.
    Decline {
        #[serde(default)]
        shape: Option<String>,
    },
    /// A running supervisor's: it begins with the call, so nobody else may.
    Take,
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
    server: Server,
    /// None: they have their actions.
    signals: Option<SignalFd>,
    /// How long nothing may be said before the first order.
    patience: PollTimeout,
    /// Whether an order was carried out: then there is no beginning again.
    begun: bool,
}

/// The program that serves the session.
enum Server {
    /// Front has started it.
    Child { pid: Pid, end: OwnedFd, tail: Tail },
    /// A container's supervisor, which has more to do than this session.
    Supervisor,
    /// It was taken from the pool for this session. By a pidfd, for as long as its end may be all that is heard of it.
    Pooled(OwnedFd),
}

impl Server {
    /// What becomes readable at its end, where that is front's business.
    fn end(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Server::Child { end, .. } | Server::Pooled(end) => Some(end.as_fd()),
            Server::Supervisor => None,
        }
    }

    fn tail(&self) -> Option<&Tail> {
        if let Server::Child { tail, .. } = self { Some(tail) } else { None }
    }

    fn tail_mut(&mut self) -> Option<&mut Tail> {
        if let Server::Child { tail, .. } = self { Some(tail) } else { None }
    }
}

/// How a session ends for front.
enum Outcome {
    Code(ExitCode),
    /// Whoever was asked said nothing.
    Silent,
    /// Whoever was asked said that it is not for it, and maybe whose it is.
    Declined(Option<String>),
}

/// Serves a call to its end. Answers the exit status, unless the process ends by a signal.
pub fn run(call: &Call<'_>) -> Result<ExitCode> {
    // What the caller left open is not the supervisor's, nor a stand-in's that outlives the call.
    descriptors::close_all_but(CONTROL, &call.descriptors())?;
    if let Some(supervisor) = supervisor::ask(call)
        && let Outcome::Code(code) = Session::with(supervisor, Server::Supervisor)?.serve()?
    {
        return Ok(code);
    }
    let mut pool = pool::Pool::of(call);
    while let Some((supervisor, end)) = pool.as_mut().and_then(pool::Pool::next) {
        match Session::with(supervisor, Server::Pooled(end))?.serve()? {
            Outcome::Code(code) => return Ok(code),
            Outcome::Declined(shape) => pool = pool.and_then(|pool| pool.of_shape(shape?)),
            Outcome::Silent => {}
        }
    }
    let session = Session::start(call)?;
    session.say(&Hello::of_this_process());
    match session.serve()? {
        Outcome::Code(code) => Ok(code),
        Outcome::Declined(_) | Outcome::Silent => bail!("the program that serves the call declined it"),
    }
}

/// Has the container's supervisor serve a call that makes no process. None where it does not, and has done nothing: the process is as it was, for whoever is to
/// serve it then. A state is on disk as well, where the supervisor stands still.
pub fn ask(call: &Call<'_>) -> Result<Option<ExitCode>> {
    let Some(supervisor) = supervisor::ask(call) else { return Ok(None) };
    let patience = if call.verb() == Some("state") { PollTimeout::from(STATE_PATIENCE) } else { PollTimeout::NONE };
    let session = Session { control: supervisor, server: Server::Supervisor, signals: None, patience, begun: false };
    Ok(if let Outcome::Code(code) = session.serve()? { Some(code) } else { None })
}

/// What ends front before it is a stand-in is taken; what else a container may want to have waits until there is one.
fn take_signals() -> Result<SignalFd> {
    signals::block_all()?;
    signals::open(&SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT]))
}

impl Session {
    fn start(call: &Call<'_>) -> Result<Session> {
        let signals = Some(take_signals()?);
        let (control, theirs) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).context("cannot make a socket pair")?;
        let (tail, stderr) = Tail::new()?;
        let Some(child) = processes::fork()? else {
            let Err(error) = execute(call, &theirs, &stderr);
            // Standard error is the pipe by now, if anything is: front tells the user.
            words::say(&format!("{error:#}\n"));
            std::process::exit(HUSK_FAILED)
        };
        let server = Server::Child { pid: child, end: processes::pidfd(child)?, tail };
        Ok(Session { control: Lines::new(control), server, signals, patience: PollTimeout::NONE, begun: false })
    }

    /// The session with a supervisor that runs.
    fn with(control: Lines, server: Server) -> Result<Session> {
        Ok(Session { control, server, signals: Some(take_signals()?), patience: PollTimeout::NONE, begun: false })
    }

    fn serve(mut self) -> Result<Outcome> {
        loop {
            let Some(events) = self.wait()? else { return Ok(Outcome::Silent) };
            if events.signal {
                self.pass_on_signal()?;
            }
            if let (true, Some(tail)) = (events.stderr, self.server.tail_mut()) {
                tail.drain()?;
            }
            let open = !events.message || self.control.receive()?;
            while let Some(line) = self.control.take() {
                if let Some(outcome) = self.obey(&line)? {
                    return Ok(outcome);
                }
            }
            if events.end || !open {
                return self.no_last_word();
            }
        }
    }

    /// None: nothing was said for too long.
    fn wait(&self) -> Result<Option<Events>> {
        let pipe = self.server.tail().and_then(Tail::descriptor);
        let patience = if self.begun { PollTimeout::NONE } else { self.patience };
        let watched = [Some(self.control.as_fd()), self.signals.as_ref().map(AsFd::as_fd), self.server.end(), pipe];
        Ok(descriptors::readable(watched, patience)?.map(|[message, signal, end, stderr]| Events { message, signal, end, stderr }))
    }

    /// Tells the program that serves the session. One that is gone shows at the end of the conversation, which is read in any case.
    fn say(&self, message: &impl Serialize) {
        let _ = self.control.send(message);
    }

    fn pass_on_signal(&self) -> Result<()> {
        let Some(signals) = &self.signals else { return Ok(()) };
        if let Some(signal) = signals.read_signal().context("cannot read a signal")? {
            let signal = Signal::try_from(signal.ssi_signo as i32).context("an unknown signal came")?;
            match &self.server {
                Server::Child { pid, .. } => kill(*pid, signal).with_context(|| format!("cannot pass on {signal}"))?,
                Server::Pooled(end) if self.begun => processes::signal(end.as_fd(), signal)?,
                // Nobody else's: the supervisor sees the conversation's end.
                Server::Pooled(_) | Server::Supervisor => processes::end_like(End::Signal(signal as i32)),
            }
        }
        Ok(())
    }

    /// Carries out an order. Answers the exit status where it is the last one.
    fn obey(&mut self, line: &[u8]) -> Result<Option<Outcome>> {
        let order = serde_json::from_slice(line);
        let first = !std::mem::replace(&mut self.begun, true);
        match order {
            Ok(Order::Attach { socket, token, detach: false }) => {
                return self.become_stand_in(StandIn::dial(&socket, token)?).map(|code| Some(Outcome::Code(code)));
            }
            Ok(Order::Attach { socket, token, detach: true }) => fork_stand_in(StandIn::dial(&socket, token)?)?,
            Ok(Order::Fail { message, status }) => {
                words::complain(message);
                self.wait_for_server()?;
                return Ok(Some(Outcome::Code(exit_code(status))));
            }
            Ok(Order::Print { text, stream: Output::Stdout }) => io::stdout().write_all(text.as_bytes()).context("cannot print")?,
            Ok(Order::Print { text, stream: Output::Stderr }) => io::stderr().write_all(text.as_bytes()).context("cannot print")?,
            Ok(Order::Exit { status }) => return Ok(Some(Outcome::Code(exit_code(status)))),
            Ok(Order::Decline { shape }) if first => return Ok(Some(Outcome::Declined(shape))),
            Ok(Order::Decline { .. }) => bail!("the supervisor declined what it had begun"),
            Ok(Order::Take) => {}
            Err(error) => self.say(&serde_json::json!({"error": error.to_string()})),
        }
        Ok(None)
    }

    fn become_stand_in(&mut self, stand_in: StandIn) -> Result<ExitCode> {
        match stand_in.run(self.server.tail_mut())? {
            stand_in::Outcome::Ended { end, stays } => {
                self.wait_unless(stays)?;
                processes::end_like(end)
            }
            stand_in::Outcome::Failed { message, status, stays } => {
                words::complain(message);
                self.wait_unless(stays)?;
                Ok(exit_code(status))
            }
            stand_in::Outcome::Lost => {
                let said = self.last_words()?.map_or(String::new(), |text| format!(": {text}"));
                words::complain(format_args!("the sandbox ended: its supervisor is gone{said}"));
                processes::end_like(End::Signal(Signal::SIGKILL as i32))
            }
        }
    }

    /// Waits for the child, unless that stays for other containers. What was taken from the pool has nothing left to do but to end, and is the pool's child.
    fn wait_unless(&mut self, stays: bool) -> Result<()> {
        if !stays && matches!(self.server, Server::Child { .. }) {
            self.wait_for_server()?;
        }
        Ok(())
    }

    /// Waits until the program that serves the session has ended, so that nothing of it is left when this one ends. Signals
    /// have their default actions meanwhile: whoever does not want to wait need not.
    fn wait_for_server(&mut self) -> Result<Option<End>> {
        if self.server.end().is_none() {
            return Ok(None);
        }
        signals::restore_defaults()?;
        loop {
            let watched = [self.server.end(), self.server.tail().and_then(Tail::descriptor)];
            let Some([ended, _]) = descriptors::readable(watched, PollTimeout::NONE)? else { continue };
            if let Some(tail) = self.server.tail_mut() {
                tail.drain()?;
            }
            match &self.server {
                Server::Child { pid, .. } if ended => return processes::wait(*pid).map(Some),
                // How it ended is told to its parent alone.
                _ if ended => return Ok(None),
                _ => {}
            }
        }
    }

    /// The end of what the child wrote on its standard error.
    fn last_words(&mut self) -> Result<Option<String>> {
        let Some(tail) = self.server.tail_mut() else { return Ok(None) };
        tail.drain()?;
        Ok(tail.text())
    }

    fn no_last_word(mut self) -> Result<Outcome> {
        if !self.begun && !matches!(self.server, Server::Child { .. }) {
            return Ok(Outcome::Silent);
        }
        let how = match self.wait_for_server()? {
            None => "is gone".to_owned(),
            Some(End::Code(code)) => format!("ended with status {code}"),
            Some(End::Signal(number)) => format!("was killed by {}", Signal::try_from(number).map_or("a signal", Signal::as_str)),
        };
        match self.last_words()? {
            Some(text) => bail!("{text}"),
            None => bail!("the supervisor {how} before it said what became of the call"),
        }
    }
}

struct Events {
    message: bool,
    signal: bool,
    end: bool,
    stderr: bool,
}

/// In the child: becomes the program that serves the session.
fn execute(call: &Call<'_>, control: &OwnedFd, stderr: &OwnedFd) -> Result<Infallible> {
    // A session of its own: what the terminal sends to the caller's process group is front's to pass on.
    setsid().context("cannot make a session")?;
    processes::unbind();
    descriptors::silence(&[0])?;
    for number in [1, 2] {
        descriptors::place(stderr.as_fd(), number)?;
    }
    descriptors::place(descriptors::raise(control.as_fd(), CONTROL + 1)?.as_fd(), CONTROL)?;
    descriptors::close_at_exec_from(CONTROL + 1)?;
    signals::restore_defaults()?;
    let flags = if call.script() == SUPERVISOR { http2_flags() } else { &[] };
    call.programs.execute(flags, call.script(), call.words)
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
