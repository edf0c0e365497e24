//! Processes: forking, pidfds, waiting, ending.

use std::ffi::{CString, OsStr};
use std::fmt::Display;
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{self, ForkResult, Pid};

/// Forks. Answers the child's PID to the parent, `None` to the child. The helper has one thread, so the child may do anything.
pub fn fork() -> Result<Option<Pid>> {
    // SAFETY: there is only this thread.
    match unsafe { unistd::fork() }.context("cannot fork")? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Lets this process, and all that it starts, run on each processor that its cpuset has, whatever its caller is bound to: a service manager that keeps
/// engines to a few processors does not mean their containers. As runc has it; and what stays is their cgroup's business.
pub fn unbind() {
    let mut all = CpuSet::new();
    for number in 0..CpuSet::count() {
        // Within the set's bounds, by its own word.
        let _ = all.set(number);
    }
    // Where that is forbidden, the caller's processors are those that there are.
    let _ = sched_setaffinity(Pid::from_raw(0), &all);
}

/// A descriptor that becomes readable when the process ends.
pub fn pidfd(pid: Pid) -> Result<OwnedFd> {
    // SAFETY: only numbers are passed; the kernel answers a new descriptor (close-on-exec) or -1.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let number = Errno::result(result).with_context(|| format!("cannot watch process {pid}"))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number as libc::c_int) })
}

/// Sends a signal to the process of a pidfd. One that has ended needs none.
pub fn signal(pidfd: BorrowedFd<'_>, signal: Signal) -> Result<()> {
    let (pidfd, number) = (pidfd.as_raw_fd(), signal as libc::c_int);
    // SAFETY: only numbers are passed, and no further information.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, number, std::ptr::null::<libc::siginfo_t>(), 0) };
    match Errno::result(result) {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot pass on {signal}")),
    }
}

/// Makes a call again as long as signals interrupt it.
pub fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Code(i32),
    Signal(i32),
}

impl End {
    /// The end that a wait status tells; `None` where the process only stopped or went on.
    pub fn of(status: WaitStatus) -> Option<(Pid, End)> {
        match status {
            WaitStatus::Exited(pid, code) => Some((pid, End::Code(code))),
            WaitStatus::Signaled(pid, signal, _) => Some((pid, End::Signal(signal as i32))),
            _ => None,
        }
    }

    /// The exit status that shells give to such an end.
    pub fn status(self) -> i32 {
        match self {
            End::Code(code) => code,
            End::Signal(number) => 128 + number,
        }
    }
}

/// Waits for a child to end.
pub fn wait(pid: Pid) -> Result<End> {
    loop {
        match waitpid(pid, None) {
            Ok(status) => {
                if let Some((_, end)) = End::of(status) {
                    return Ok(end);
                }
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot wait for process {pid}")),
        }
    }
}

/// Ends the calling process in the way another one ended: by the same code, or by the same signal, without a core file.
pub fn end_like(end: End) -> ! {
    if let End::Signal(number) = end {
        die_by(number);
    }
    std::process::exit(end.status() & 0xff)
}

/// Returns only where the signal does not kill, as when the process is PID 1 of a PID namespace.
fn die_by(number: i32) {
    let Ok(signal) = Signal::try_from(number) else { return };
    let mut mask = SigSet::empty();
    mask.add(signal);
    // Each error here only means that the process ends by 128 + the signal's number instead.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // SAFETY: the default action is no handler of ours. SIGKILL has no other.
    let _ = unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) };
    let _ = nix::sys::signal::kill(Pid::this(), signal);
    let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&mask), None);
}

/// What the kernel says of a process in /proc/PID/stat (proc_pid_stat(5)).
pub struct Stat(String);

impl Stat {
    /// `process`: a PID, or "self".
    pub fn of(process: impl Display) -> Result<Stat> {
        let path = format!("/proc/{process}/stat");
        Ok(Stat(fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?))
    }

    /// The number in a field, counted from 1, after the second: that one, a name, may hold anything.
    pub fn number(&self, field: usize) -> Result<u64> {
        let (_, fields) = self.0.rsplit_once(") ").context("a process's state cannot be understood")?;
        let text = fields.split_ascii_whitespace().nth(field - 3).with_context(|| format!("a process's state has no field {field}"))?;
        text.parse().with_context(|| format!("field {field} of a process's state is no number: {text}"))
    }
}

/// A string as execve takes it.
pub fn argument(text: impl AsRef<OsStr>) -> Result<CString> {
    CString::new(text.as_ref().as_bytes()).with_context(|| format!("an argument has a zero byte: {:?}", text.as_ref()))
}
