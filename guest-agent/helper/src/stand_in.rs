//! The stand-in: the process on the host whose PID stands for a process in the guest. It carries the standard streams that it
//! inherited, passes signals on, and ends as that process did.

mod messages;
mod own_proc;
mod place;
mod streams;
mod terminal;

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::unistd::{Pid, getsid, setsid};

use crate::flags::Flags;
use crate::front::Tail;
use crate::lines::Lines;
use crate::processes::End;
use crate::{descriptors, processes, signals, unix_socket, words};
use messages::{Attach, Order, Report};
use streams::Streams;
use terminal::Terminal;

/// How a stand-in comes to its end.
pub enum Outcome {
    /// The process that it stands for ended so. `stays`: the supervisor does not end with it.
    Ended { end: End, stays: bool },
    /// Husk failed.
    Failed { message: String, status: i32, stays: bool },
    /// The supervisor is gone without having said how the process ended.
    Lost,
}

/// The exit status of a stand-in that husk itself failed.
pub const HUSK_FAILED: i32 = 125;

/// `husk-helper stand-in --socket PATH --token T`: a stand-in from the start, without standard streams.
pub fn main(arguments: &[OsString]) -> Result<ExitCode> {
    let flags = Flags::parse(arguments, &["--socket", "--token"], &[])?;
    let stand_in = StandIn::dial(Path::new(flags.text("--socket")?), flags.text("--token")?.to_owned())?;
    descriptors::silence(&[0, 1, 2])?;
    stand_in.run_in_background()
}

pub struct StandIn {
    socket: PathBuf,
    token: String,
    control: Lines,
    /// Opened while there is a /dev to find it in.
    null: OwnedFd,
    foreground: bool,
}

impl StandIn {
    /// Connects to the supervisor's socket.
    pub fn dial(socket: &Path, token: String) -> Result<StandIn> {
        let control = Lines::new(unix_socket::dial(socket)?);
        Ok(StandIn { socket: socket.to_owned(), token, control, null: descriptors::open_null()?, foreground: true })
    }

    /// For a process that shall be nothing but the stand-in: leaves the caller's session, stands in, and ends as it must.
    pub fn run_in_background(self) -> ! {
        match self.detach().and_then(|stand_in| stand_in.run(None)) {
            Ok(Outcome::Ended { end, .. }) => processes::end_like(end),
            Ok(Outcome::Failed { message, status, .. }) => {
                words::complain(message);
                processes::end_like(End::Code(status))
            }
            Ok(Outcome::Lost) => processes::end_like(End::Signal(Signal::SIGKILL as i32)),
            Err(error) => {
                words::complain(format_args!("{error:#}"));
                processes::end_like(End::Code(HUSK_FAILED))
            }
        }
    }

    /// Leaves the caller's session, and closes what is not the stand-in's.
    fn detach(mut self) -> Result<StandIn> {
        // Whoever started this process may have done so.
        if getsid(None) != Ok(Pid::this()) {
            setsid().context("cannot make a session")?;
        }
        descriptors::close_all_but(3, &[self.control.as_fd().as_raw_fd(), self.null.as_raw_fd()])?;
        self.foreground = false;
        Ok(self)
    }

    /// Stands in until the supervisor lets go. `tail`: what else is to be read meanwhile.
    pub fn run(self, tail: Option<&mut Tail>) -> Result<Outcome> {
        signals::block_all()?;
        // A child's end is nobody's business here.
        let mut taken = SigSet::all();
        taken.remove(Signal::SIGCHLD);
        let signals = signals::open(&taken)?;
        self.control.send(&Attach::control(&self.token, std::process::id()))?;
        let streams = Streams::new(self.null, self.foreground);
        let mut running = Running {
            socket: self.socket,
            token: self.token,
            control: self.control,
            foreground: self.foreground,
            signals,
            streams,
            terminal: None,
            outcome: None,
        };
        let outcome = running.serve(tail);
        if let Some(terminal) = running.terminal {
            terminal.restore();
        }
        outcome
    }
}

struct Running {
    socket: PathBuf,
    token: String,
    control: Lines,
    foreground: bool,
    signals: SignalFd,
    streams: Streams,
    terminal: Option<Terminal>,
    /// Known as soon as the supervisor has said it, or is gone: all that is left is to write the output.
    outcome: Option<Outcome>,
}

impl Running {
    fn serve(&mut self, mut tail: Option<&mut Tail>) -> Result<Outcome> {
        loop {
            match self.outcome.take() {
                Some(outcome @ Outcome::Ended { .. }) if !self.streams.outputs_are_done() => self.outcome = Some(outcome),
                Some(outcome) => return Ok(outcome),
                None => {}
            }
            let events = self.wait(tail.as_deref())?;
            self.streams.advance(&events.streams)?;
            if let (true, Some(tail)) = (events.stderr, tail.as_deref_mut()) {
                tail.drain()?;
            }
            if events.signal && self.take_signal()? {
                return Ok(self.outcome.take().unwrap_or(Outcome::Lost));
            }
            if events.control {
                self.converse()?;
            }
        }
    }

    fn wait(&self, tail: Option<&Tail>) -> Result<Events> {
        // After the last word, nothing more is expected but its end.

        let mut watched = Vec::with_capacity(9);
        watched.push(PollFd::new(self.signals.as_fd(), PollFlags::POLLIN));
        if self.outcome.is_none() {
            watched.push(PollFd::new(self.control.as_fd(), PollFlags::POLLIN));
        }
        let first_stream = watched.len();
        watched.extend(self.streams.interests().map(|(descriptor, events)| PollFd::new(descriptor, events)));
        let last_stream = watched.len();
        watched.extend(tail.and_then(Tail::descriptor).map(|pipe| PollFd::new(pipe, PollFlags::POLLIN)));
        while let Err(error) = poll(&mut watched, PollTimeout::NONE) {
            if error != Errno::EINTR {
                return Err(error).context("cannot wait for events");
            }
        }
        let happened = |index: usize| watched.get(index).is_some_and(|descriptor| descriptor.any().unwrap_or(true));
        Ok(Events {
            signal: happened(0),
            control: self.outcome.is_none() && happened(1),
            streams: watched[first_stream..last_stream].iter().map(|descriptor| descriptor.revents().unwrap_or(PollFlags::all())).collect(),
            stderr: happened(last_stream),
        })
    }

    /// Takes one signal. Answers whether the user has no patience left: output that nobody takes keeps the stand-in at its end.
    fn take_signal(&mut self) -> Result<bool> {
        let Some(taken) = self.signals.read_signal().context("cannot read a signal")? else { return Ok(false) };
        let number = taken.ssi_signo as i32;
        if self.outcome.is_some() {
            return Ok([libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT].contains(&number));
        }
        if let (libc::SIGWINCH | libc::SIGCONT, Some(terminal)) = (number, &self.terminal) {
            // Whoever had stopped this process may have changed the terminal's mode meanwhile. The same signal comes when the terminal is
            // hung up, whose mode is nobody's concern any more.
            let hung_up = number == libc::SIGCONT && terminal.make_raw().is_err();
            if let (false, Some(size)) = (hung_up, terminal.size()) {
                self.say(&Report::Resize { size });
            }
        }
        // A broken pipe shows where it was written to.
        if ![libc::SIGWINCH, libc::SIGPIPE].contains(&number) {
            self.say(&Report::Signal { signal: number });
        }
        Ok(false)
    }

    fn converse(&mut self) -> Result<()> {
        let open = self.control.receive()?;
        while let Some(line) = self.control.take() {
            match serde_json::from_slice(&line) {
                Ok(Order::Place(place)) => match place::put(&place, &self.socket, &self.token, self.foreground, &mut self.streams) {
                    Ok(terminal) => {
                        let size = terminal.as_ref().and_then(Terminal::size);
                        self.terminal = terminal;
                        if !place.signals {
                            signals::restore_defaults()?;
                        }
                        self.say(&Report::Placed { size });
                    }
                    Err(error) => self.say(&Report::Failed { message: format!("{error:#}") }),
                },
                Ok(Order::Exit { code: Some(code), stays, .. }) => self.end(Outcome::Ended { end: End::Code(code), stays }),
                Ok(Order::Exit { signal: Some(signal), stays, .. }) => self.end(Outcome::Ended { end: End::Signal(signal), stays }),
                Ok(Order::Exit { .. }) => self.say(&Report::Failed { message: "exit without a code or a signal".into() }),
                Ok(Order::Fail { message, status, stays }) => self.end(Outcome::Failed { message, status, stays }),
                Ok(Order::Say { text }) => words::say(&text),
                Err(error) => self.say(&Report::Failed { message: error.to_string() }),
            }
        }
        if !open && self.outcome.is_none() {
            // What the supervisor had sent before it died is written as far as that needs no waiting.
            self.streams.flush()?;
            self.end(Outcome::Lost);
        }
        Ok(())
    }

    fn end(&mut self, outcome: Outcome) {
        self.streams.drop_input();
        self.outcome.get_or_insert(outcome);
    }

    /// Tells the supervisor. One that is gone shows at the end of the conversation, which is read in any case.
    fn say(&self, report: &Report) {
        let _ = self.control.send(report);
    }
}

/// What there is to do.
struct Events {
    signal: bool,
    control: bool,
    streams: Vec<PollFlags>,
    stderr: bool,
}
