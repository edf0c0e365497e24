//! A program that is not started, but copied from a zygote that runs it already (preload/fork.rs, which has the other half of the conversation).

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, sendmsg, setsockopt};
use nix::unistd::Pid;

use super::plan::{CopyOf, Process, User};
use crate::processes::{self, End};

/// The namespaces of this process that the copy enters, in the order in which it is given them.
const NAMESPACES: [&str; 6] = ["pid", "net", "ipc", "uts", "cgroup", "mnt"];
const MOST_FILES: usize = 32;
const VERSION: u32 = 1;
const NO_FILE: u32 = u32::MAX;

/// What a zygote is asked for.
#[derive(Clone, Copy)]
pub enum Kind {
    Copy = 0,
    /// Its machine stands still for good: its memory can be sealed.
    Seal = 1,
}

/// How long the answer to a request may take, in milliseconds: a few is usual.
const PATIENCE_MS: u16 = 10_000;

/// What failed, by its number.
const STEPS: [&str; 12] = [
    "nothing",
    "understand the request",
    "have all threads stand still",
    "enter the PID namespace",
    "fork",
    "watch the copy",
    "give it its descriptors",
    "give it its memory",
    "enter its namespaces",
    "become its user",
    "confine it",
    "make its threads again",
];

#[derive(Debug, PartialEq)]
struct Answer {
    kind: u32,
    pid: i32,
    failed: u32,
    value: i32,
}

const FROM_ZYGOTE: u32 = 0;
const ENDED: u32 = 1;
const FROM_COPY: u32 = 2;

/// A copy that runs.
pub struct Copied {
    pub pid: Pid,
    pub name: String,
    /// On which its end is told; none where the zygote has ended: then there is only the PID to watch.
    connection: Option<OwnedFd>,
    pidfd: OwnedFd,
}

impl Copied {
    /// What becomes readable when the copy ends, or its zygote does.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_ref().map_or(self.pidfd.as_fd(), |connection| connection.as_fd())
    }

    /// How it ended: nothing as long as it runs, an end without a code where nobody knows.
    pub fn ended(&mut self) -> Result<Option<Option<End>>> {
        let Some(connection) = &self.connection else {
            return Ok(is_readable(self.pidfd.as_fd(), PollTimeout::ZERO)?.then_some(None));
        };
        match receive(connection)? {
            Some((Answer { kind: ENDED, value, .. }, _)) => Ok(Some(end_of(value))),
            Some((answer, _)) => bail!("the zygote said {answer:?} of {}", self.name),
            None => {
                self.connection = None;
                Ok(None)
            }
        }
    }
}

/// Has a copy made for `process`, in the namespaces of this one. What keeps it from being made is the error.
pub fn make(process: &Process, of: &CopyOf, user: User) -> Result<Copied> {
    let what = || format!("cannot copy {}", process.name);
    // SAFETY: the plan gave the number to this program, and nothing else here uses it.
    let connection = unsafe { OwnedFd::from_raw_fd(of.from) };
    setsockopt(&connection, PassCred, &true).with_context(what)?;
    let namespaces = NAMESPACES
        .iter()
        .map(|name| {
            File::open(format!("/proc/self/ns/{name}")).map(OwnedFd::from).with_context(|| format!("cannot open the namespace {name}"))
        })
        .collect::<Result<Vec<_>>>()
        .with_context(what)?;
    // What it says of itself is said as this process says it.
    let kept = std::iter::once(2).chain(process.fds.iter().copied()).map(|number| (number, number));
    let (own, numbers): (Vec<RawFd>, Vec<RawFd>) = kept.chain(of.places.iter().copied()).unzip();
    let memory = of.memory.and_then(|wanted| own.iter().position(|number| *number == wanted));
    let descriptors: Vec<RawFd> = namespaces.iter().map(|namespace| namespace.as_raw_fd()).chain(own).collect();
    send(&connection, &request(Kind::Copy, user, &numbers, memory)?, &descriptors).with_context(what)?;
    let pid = await_copy(&connection).with_context(what)?;
    let pidfd = processes::pidfd(pid).with_context(what)?;
    Ok(Copied { pid, name: process.name.clone(), connection: Some(connection), pidfd })
}

/// Tells the zygote behind `connection` that its machine stands still for good.
pub fn seal(connection: &OwnedFd) -> Result<()> {
    send(connection, &request(Kind::Seal, User { uid: 0, gid: 0 }, &[], None)?, &[])?;
    ensure!(is_readable(connection.as_fd(), PollTimeout::from(PATIENCE_MS))?, "the zygote does not answer");
    match receive(connection)? {
        Some((answer, _)) => check(&answer),
        None => bail!("the zygote has hung up"),
    }
}

/// Waits for both that the zygote has made the copy, and that the copy is its own. Answers its PID in this process's namespace.
fn await_copy(connection: &OwnedFd) -> Result<Pid> {
    let (mut made, mut own) = (false, None);
    loop {
        if let (true, Some(pid)) = (made, own) {
            return Ok(pid);
        }
        ensure!(is_readable(connection.as_fd(), PollTimeout::from(PATIENCE_MS))?, "the zygote does not answer");
        let (answer, sender) = receive(connection)?.context("the zygote has hung up")?;
        check(&answer)?;
        match answer.kind {
            FROM_ZYGOTE => made = true,
            FROM_COPY => own = Some(Pid::from_raw(sender)),
            _ => bail!("the copy ended at once ({:?})", end_of(answer.value)),
        }
    }
}

fn check(answer: &Answer) -> Result<()> {
    if answer.failed == 0 {
        return Ok(());
    }
    let step = STEPS.get(answer.failed as usize).unwrap_or(&"do something unknown");
    Err(std::io::Error::from_raw_os_error(answer.value)).with_context(|| format!("the zygote cannot {step}"))
}

fn end_of(status: i32) -> Option<End> {
    if libc::WIFSIGNALED(status) {
        Some(End::Signal(libc::WTERMSIG(status)))
    } else {
        libc::WIFEXITED(status).then(|| End::Code(libc::WEXITSTATUS(status)))
    }
}

/// The words of a request: see `Request` of preload/fork.rs.
fn request(kind: Kind, user: User, numbers: &[RawFd], memory: Option<usize>) -> Result<Vec<u8>> {
    ensure!(numbers.len() <= MOST_FILES, "{} descriptors are more than {MOST_FILES}", numbers.len());
    let memory = memory.map_or(Ok(NO_FILE), u32::try_from)?;
    let mut words = vec![VERSION, kind as u32, user.uid, user.gid, u32::try_from(numbers.len())?, memory];
    words.extend([own_priority() as u32, 0]);
    let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    bytes.extend(own_processors()?);
    bytes.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
    bytes.resize(HEADER + MOST_FILES * size_of::<RawFd>(), 0);
    Ok(bytes)
}

/// What is before the numbers in a request.
const HEADER: usize = 32 + PROCESSORS;
/// The bytes of a set of processors.
const PROCESSORS: usize = 128;

fn own_priority() -> i32 {
    // SAFETY: only numbers are passed. -1 is a priority as well as an error's, of which there is none for oneself.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

fn own_processors() -> Result<[u8; PROCESSORS]> {
    let mut set = [0; PROCESSORS];
    // SAFETY: memory of ours, as large as it is said to be.
    let result = unsafe { libc::sched_getaffinity(0, PROCESSORS, set.as_mut_ptr().cast()) };
    Errno::result(result).context("cannot see which processors there are to be used")?;
    Ok(set)
}

fn send(connection: &OwnedFd, bytes: &[u8], descriptors: &[RawFd]) -> Result<()> {
    let rights = [ControlMessage::ScmRights(descriptors)];
    let rights: &[_] = if descriptors.is_empty() { &[] } else { &rights };
    sendmsg::<()>(connection.as_raw_fd(), &[IoSlice::new(bytes)], rights, MsgFlags::MSG_NOSIGNAL, None).context("cannot ask the zygote")?;
    Ok(())
}

fn is_readable(descriptor: BorrowedFd<'_>, limit: PollTimeout) -> Result<bool> {
    let mut watched = [PollFd::new(descriptor, PollFlags::POLLIN)];
    processes::retry(|| poll(&mut watched, limit)).context("cannot wait for the zygote").map(|count| count > 0)
}

/// The next answer and its sender's PID; nothing where the other end is gone.
fn receive(connection: &OwnedFd) -> Result<Option<(Answer, i32)>> {
    let mut bytes = [0; 16];
    let mut extras = nix::cmsg_space!(UnixCredentials);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let message = match recvmsg::<()>(connection.as_raw_fd(), &mut parts, Some(&mut extras), MsgFlags::MSG_CMSG_CLOEXEC) {
        Ok(message) => message,
        Err(Errno::ECONNRESET) => return Ok(None),
        Err(error) => return Err(error).context("cannot hear the zygote"),
    };
    let length = message.bytes;
    let sender = message.cmsgs().context("the zygote's answer is cut")?.find_map(|extra| match extra {
        ControlMessageOwned::ScmCredentials(credentials) => Some(credentials.pid()),
        _ => None,
    });
    if length == 0 {
        return Ok(None);
    }
    ensure!(length == bytes.len(), "the zygote's answer has {length} bytes");
    let word = |index: usize| u32::from_ne_bytes([bytes[index], bytes[index + 1], bytes[index + 2], bytes[index + 3]]);
    Ok(Some((Answer { kind: word(0), pid: word(4) as i32, failed: word(8), value: word(12) as i32 }, sender.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("a socket pair")
    }

    fn answer(words: [u32; 4]) -> Vec<u8> {
        words.into_iter().flat_map(u32::to_ne_bytes).collect()
    }

    #[test]
    fn what_the_zygote_cannot_do_is_named() {
        let (ours, theirs) = pair();
        send(&theirs, &answer([FROM_ZYGOTE, 0, 2, libc::ETIMEDOUT as u32]), &[]).expect("answers");
        let error = seal(&ours).expect_err("refused");
        assert!(format!("{error:#}").starts_with("the zygote cannot have all threads stand still: Connection timed out"), "{error:#}");
    }

    #[test]
    fn a_zygote_that_hangs_up_or_babbles_is_told() {
        let (ours, theirs) = pair();
        send(&theirs, &[1, 2, 3], &[]).expect("babbles");
        assert_eq!(await_copy(&ours).expect_err("refused").to_string(), "the zygote's answer has 3 bytes");
        drop(theirs);
        assert_eq!(await_copy(&ours).expect_err("refused").to_string(), "the zygote has hung up");
    }

    #[test]
    fn a_copy_is_there_when_both_have_said_so_in_any_order() {
        for order in [[FROM_ZYGOTE, FROM_COPY], [FROM_COPY, FROM_ZYGOTE]] {
            let (ours, theirs) = pair();
            setsockopt(&ours, PassCred, &true).expect("credentials");
            for kind in order {
                send(&theirs, &answer([kind, 7, 0, 0]), &[]).expect("says");
            }
            assert_eq!(await_copy(&ours).expect("is there"), Pid::this());
        }
    }

    #[test]
    fn an_end_is_told_as_wait_has_it() {
        assert_eq!(end_of(3 << 8), Some(End::Code(3)));
        assert_eq!(end_of(9), Some(End::Signal(9)));
    }
}
