//! A server that stands by: a process of a pool (src/shim/standby.ts) that has loaded the shim's program and has a sandbox that waits. It becomes the server of
//! the start that asks it, which tells it all that its child would have by inheritance. Until it is told to serve, nothing of the call has begun, and another
//! server can be started; from then on it is this start that ends it, unless it keeps it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::daemon::{self, Surroundings};
use super::delete::folder_of;
use super::start::remove_stale;
use crate::front::{peer, pool};
use crate::lines::Lines;
use crate::processes;
use crate::programs::Programs;

/// How long one may think about a call: another server would be there by then.
const JUDGING: Duration = Duration::from_secs(1);

/// How long one may take to listen, and to end: longer than any that works.
const SERVING: Duration = Duration::from_secs(5);

/// The longest path that a socket's address holds, without its zero byte.
const LONGEST_PATH: usize = 107;

/// What start asks for: all that its child would have by inheritance.
#[derive(Serialize)]
struct Request {
    words: Vec<String>,
    cwd: String,
    umask: u32,
    environment: Vec<(String, String)>,
    /// The program that it would start, as `Programs::identity` has it: another installation's is none.
    program: String,
    /// In whose cgroups it would be.
    pid: u32,
    /// The folders of those in which it would be besides.
    cgroups: Vec<PathBuf>,
    oom_score: Option<i32>,
}

/// What start says after that.
#[derive(Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Order {
    Serve,
    Keep,
}

/// What one that stands by answers. One that does not suit hangs up.
#[derive(Deserialize, PartialEq, Eq)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Answer {
    Suits,
    Serves,
}

/// A process that would be the call's server.
pub struct Standby {
    conversation: Lines,
    pid: Pid,
    end: OwnedFd,
}

/// One that is.
pub struct Server(Standby);

impl Standby {
    /// Asks those that stand by, one after the other. `script`: the program that would be started. None where none of them suits, for whatever reason.
    pub fn find(script: &Path, words: &[OsString], surroundings: &Surroundings<'_>) -> Option<Standby> {
        let sockets = pool::sockets(&pool::folder()?, pool::is_for_shims);
        // Most hosts have none.
        if sockets.is_empty() {
            return None;
        }
        let request = Request::new(script, words, surroundings)?;
        sockets.iter().find_map(|socket| Standby::ask(socket, &request))
    }

    fn ask(socket: &Path, request: &Request) -> Option<Standby> {
        let socket = crate::unix_socket::dial(socket).ok()?;
        let pid = peer::sharing(&socket, &pool::IN_COMMON)?;
        let end = processes::pidfd(pid).ok()?;
        let mut standby = Standby { conversation: Lines::new(socket), pid, end };
        standby.conversation.send(request).ok()?;
        (standby.answers(JUDGING)? == Answer::Suits).then_some(standby)
    }

    /// Has it listen at `socket`, whose folder the caller holds. None where it does not: it has ended then, and nothing is left of it. Fails where it cannot be
    /// ended.
    pub fn serve(mut self, socket: &Path) -> Result<Option<Server>> {
        // What it may not have, the caller's own child will. Nothing of the call has begun.
        if socket.as_os_str().len() > LONGEST_PATH || share_limits(self.pid).is_err() {
            return Ok(None);
        }
        if self.conversation.send(&Order::Serve).is_ok() && self.answers(SERVING) == Some(Answer::Serves) {
            return Ok(Some(Server(self)));
        }
        Server(self).end(socket)?;
        Ok(None)
    }

    /// Its next answer; None where it hangs up, is silent, or says something else.
    fn answers(&mut self, within: Duration) -> Option<Answer> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(line) = self.conversation.take() {
                return serde_json::from_slice(&line).ok();
            }
            if !readable(self.conversation.as_fd(), deadline).ok()? {
                return None;
            }
            // What came with the end of the conversation counts.
            if !self.conversation.receive().ok()? {
                return serde_json::from_slice(&self.conversation.take()?).ok();
            }
        }
    }
}

impl Server {
    /// Leaves it to itself.
    pub fn keep(self) {
        // Where it has ended by now, containerd finds that out as with any server.
        let _ = self.0.conversation.send(&Order::Keep);
    }

    /// Takes the start back: ends it, with the sandbox that it has, and removes what it made.
    pub fn end(self, socket: &Path) -> Result<()> {
        let Standby { pid, end, .. } = self.0;
        processes::signal(end.as_fd(), Signal::SIGKILL)?;
        let ended = readable(end.as_fd(), Instant::now() + SERVING).with_context(|| format!("cannot wait for process {pid}"))?;
        ensure!(ended, "process {pid}, which stood by, does not end");
        remove_stale(socket)?;
        match fs::remove_dir_all(folder_of(socket)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("cannot remove what a shim that stood by has left"),
            _ => Ok(()),
        }
    }
}

impl Request {
    /// None where something of it is no text.
    fn new(script: &Path, words: &[OsString], surroundings: &Surroundings<'_>) -> Option<Request> {
        let text = |text: &OsString| text.to_str().map(str::to_owned);
        let added = surroundings.variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        Some(Request {
            words: words.iter().map(text).collect::<Option<_>>()?,
            cwd: text(&std::env::current_dir().ok()?.into())?,
            umask: pool::mask(),
            environment: pool::environment()?.into_iter().chain(added).collect(),
            program: Programs::identity(script)?,
            pid: std::process::id(),
            cgroups: surroundings.cgroups.to_vec(),
            oom_score: daemon::oom_score(),
        })
    }
}

/// Gives a process the limits that the caller's child would have. Fails where it may not have them.
fn share_limits(pid: Pid) -> Result<()> {
    for resource in 0..=libc::RLIMIT_RTTIME {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the limit is this function's own.
        Errno::result(unsafe { libc::getrlimit(resource, &mut limit) }).context("cannot read a limit")?;
        if resource == libc::RLIMIT_NOFILE {
            // As Node does when it starts.
            limit.rlim_cur = limit.rlim_max;
        }
        // SAFETY: likewise; the old limit is not asked for.
        let result = unsafe { libc::prlimit(pid.as_raw(), resource, &limit, std::ptr::null_mut()) };
        Errno::result(result).with_context(|| format!("cannot set a limit of process {pid}"))?;
    }
    Ok(())
}

/// Waits until a descriptor can be read, or has ended. False where that takes too long.
fn readable(descriptor: impl AsFd, deadline: Instant) -> nix::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => {}
            outcome => return outcome.map(|ready| ready > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;

    /// The caller's side of a conversation with this process, which `answers` holds.
    fn standby(answers: impl FnOnce(UnixStream) + Send + 'static) -> Standby {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        std::thread::spawn(move || answers(theirs));
        let pid = Pid::this();
        Standby { conversation: Lines::new(ours.into()), pid, end: processes::pidfd(pid).expect("a pidfd") }
    }

    #[test]
    fn one_that_serves_is_told_that_it_is_kept() {
        let (told, tells) = std::sync::mpsc::channel();
        let standby = standby(move |mut socket| {
            let mut lines = BufReader::new(socket.try_clone().expect("a second handle")).lines();
            told.send(lines.next().expect("a line").expect("text")).expect("told");
            socket.write_all(b"{\"event\":\"serves\"}\n").expect("an answer");
            told.send(lines.next().expect("a line").expect("text")).expect("told");
        });
        standby.serve(Path::new("/nonexistent/s")).expect("nothing is to be ended").expect("it serves").keep();
        assert_eq!(tells.iter().collect::<Vec<_>>(), [r#"{"op":"serve"}"#, r#"{"op":"keep"}"#]);
    }

    #[test]
    fn one_that_does_not_serve_is_ended_and_nothing_is_left_of_it() {
        let folder = std::env::temp_dir().join(format!("husk-helper-standby-{}", std::process::id()));
        fs::create_dir(&folder).expect("make the folder");
        let socket = folder.join("s");
        for hangs_up in [true, false] {
            let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("a process");
            let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
            let pid = Pid::from_raw(child.id() as i32);
            let standby = Standby { conversation: Lines::new(ours.into()), pid, end: processes::pidfd(pid).expect("a pidfd") };
            // It listens already, but does not say so.
            drop(std::os::unix::net::UnixListener::bind(&socket).expect("listens"));
            if hangs_up {
                drop(theirs);
            } else {
                theirs.write_all(b"{\"event\":\"suits\"}\n").expect("says what is no answer");
            }
            assert!(standby.serve(&socket).expect("it is ended").is_none());
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().expect("its end")), Some(9));
            assert!(!socket.exists());
        }
        fs::remove_dir(&folder).expect("nothing else is in it");
    }

    #[test]
    fn an_answer_counts_though_its_sender_hangs_up_and_nothing_else_does() {
        let answer = |text: &'static [u8]| standby(move |mut socket| socket.write_all(text).expect("an answer")).answers(SERVING);
        assert!(answer(b"{\"event\":\"suits\"}\n") == Some(Answer::Suits));
        for text in [&b""[..], b"{\"event\":\"suits\"}", b"{}\n", b"nonsense\n"] {
            assert!(answer(text).is_none(), "{}", String::from_utf8_lossy(text));
        }
        let (ours, silent) = UnixStream::pair().expect("a socket pair");
        let pid = Pid::this();
        let mut standby = Standby { conversation: Lines::new(ours.into()), pid, end: processes::pidfd(pid).expect("a pidfd") };
        assert!(standby.answers(Duration::from_millis(10)).is_none());
        drop(silent);
    }
}
