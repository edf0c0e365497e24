//! A process's standard streams, as seen from the agent's side: pipes, or the master of its pty.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;
use nix::unistd::pipe2;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::output::Output;
use super::stdin::Sink;
use crate::api::OutputKind;
use crate::child::wire::TerminalSize;
use crate::error::{Class, Context, Failure, Result};
use crate::watch::{BOTH, watch};

/// How much standard input's pipe holds. Larger than the default, so that bulk input wakes the agent less often.
const STDIN_ROOM: i32 = 512 * 1024;

/// Which streams the host wants; the others are /dev/null.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// The agent's ends. Each is taken by the call that serves it.
#[derive(Default)]
pub struct Stdio {
    stdin: Mutex<Option<Sink>>,
    stdout: Mutex<Option<Output>>,
    stderr: Mutex<Option<Output>>,
    terminal: Option<Arc<AsyncFd<OwnedFd>>>,
}

impl Stdio {
    /// Pipes for what is wanted: the agent's ends, and the process's standard input, output and error. `room`: how much an output's may hold.
    pub fn pipes(wanted: Wanted, room: usize) -> Result<(Stdio, Vec<OwnedFd>)> {
        let null = || {
            open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
                .context(|| "open /dev/null")
        };
        let mut stdio = Stdio::default();
        let mut theirs = Vec::new();
        if wanted.stdin {
            let (reader, writer) = pipe()?;
            // One of the default size works as well.
            let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(STDIN_ROOM));
            let writer = watch(nonblocking(writer)?, Interest::WRITABLE | Interest::ERROR)
                .context(|| "watch a pipe")?;
            stdio.stdin = Mutex::new(Some(Sink::Pipe(writer)));
            theirs.push(reader);
        } else {
            theirs.push(null()?);
        }
        for (wanted, ours) in [
            (wanted.stdout, &mut stdio.stdout),
            (wanted.stderr, &mut stdio.stderr),
        ] {
            if wanted {
                let (reader, writer) = pipe()?;
                let reader =
                    watch(nonblocking(reader)?, Interest::READABLE).context(|| "watch a pipe")?;
                *ours = Mutex::new(Some(Output::pipe(reader, room)));
                theirs.push(writer);
            } else {
                theirs.push(null()?);
            }
        }
        Ok((stdio, theirs))
    }

    /// The master of a pty: input, output and window size.
    pub fn terminal(master: OwnedFd) -> Result<Stdio> {
        let master = watch(nonblocking(master)?, BOTH).context(|| "watch a terminal")?;
        let master = Arc::new(master);
        Ok(Stdio {
            stdin: Mutex::new(Some(Sink::Terminal(master.clone()))),
            stdout: Mutex::new(Some(Output::terminal(master.clone()))),
            stderr: Mutex::new(None),
            terminal: Some(master),
        })
    }

    /// Takes standard input, for one call at a time.
    pub fn take_stdin(&self) -> Result<Sink> {
        let sink = self
            .stdin
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        sink.ok_or_else(|| {
            Failure::new(
                Class::WrongState,
                "standard input is closed, served by another call, or was not asked for",
            )
        })
    }

    /// Puts standard input back, when a call ended without its end of file.
    pub fn put_stdin_back(&self, sink: Sink) {
        *self.stdin.lock().unwrap_or_else(PoisonError::into_inner) = Some(sink);
    }

    /// Takes an output, for one call in all, unless it is put back.
    pub fn take_output(&self, kind: OutputKind) -> Result<Output> {
        let slot = match kind {
            OutputKind::Stdout => &self.stdout,
            OutputKind::Stderr => &self.stderr,
            OutputKind::Unspecified => {
                return Err(Failure::invalid("output: expected stdout or stderr"));
            }
        };
        let output = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        output.ok_or_else(|| {
            Failure::new(
                Class::WrongState,
                format!(
                    "{}: was read before, or was not asked for",
                    kind.as_str_name()
                ),
            )
        })
    }

    /// Puts an output back, when the session that read it was lost: whoever reads it next goes on where that stopped.
    pub fn put_output_back(&self, kind: OutputKind, output: Output) {
        let slot = match kind {
            OutputKind::Stderr => &self.stderr,
            OutputKind::Stdout | OutputKind::Unspecified => &self.stdout,
        };
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(output);
    }

    /// Sets the window size of the terminal.
    pub fn resize(&self, size: TerminalSize) -> Result<()> {
        let terminal = self.terminal.as_ref();
        let terminal = terminal
            .ok_or_else(|| Failure::new(Class::WrongState, "the process has no terminal"))?;
        crate::child::set_terminal_size(terminal.get_ref().as_fd(), size)
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe2(OFlag::O_CLOEXEC).context(|| "make a pipe")
}

fn nonblocking(fd: OwnedFd) -> Result<OwnedFd> {
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context(|| "make a stream non-blocking")?;
    Ok(fd)
}
