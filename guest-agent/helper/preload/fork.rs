//! A request for a copy of this QEMU, and what becomes of the copy.
//!
//! ```text
//! husk-helper ── Request, namespaces and files ──▶ zygote          (one connection a copy, SOCK_SEQPACKET)
//!             ◀── Answer: the copy's PID, or what failed ──
//!             ◀── Ended: the copy's wait status ──
//! ```
//! The zygote runs as root and outside of any sandbox, and has met no tenant; only the copy does, once it has given all of that up.

use core::ffi::{c_int, c_void};

use crate::kernel::{self, kernel};
use crate::{memory, own, threads};

/// The namespaces that come before the files, in this order. The mount namespace comes last: after it, paths are the sandbox's.
pub const NAMESPACES: usize = 6;
const CLONE_NEWPID: usize = 0x2000_0000;
/// Children of any kind (wait4(2)).
const WALL: usize = 0x4000_0000;
/// How many files a copy can be given.
pub const MOST_FILES: usize = 32;

/// What is asked for.
#[repr(C)]
pub struct Request {
    version: u32,
    /// A copy; or that the machine stands still for good, and its memory is to be sealed.
    pub kind: u32,
    pub uid: u32,
    pub gid: u32,
    /// How many files there are.
    files: u32,
    /// Which of them is the copy's memory; `u32::MAX`: it has the zygote's, mapped privately.
    pub memory: u32,
    /// The asker's priority, and the processors that it may use: a copy does not have its zygote's.
    pub nice: i32,
    reserved: u32,
    pub processors: [u64; 16],
    /// The number under which the copy has each.
    pub numbers: [i32; MOST_FILES],
}
const VERSION: u32 = 1;
const COPY: u32 = 0;
const SEAL: u32 = 1;

/// What is answered, twice: `kind` 0 with the PID, or with what failed and errno; `kind` 1 with the wait status.
#[repr(C)]
pub struct Answer {
    pub kind: u32,
    pub pid: i32,
    pub failed: u32,
    pub value: i32,
}

/// What failed, as the helper names it.
#[derive(Clone, Copy)]
pub enum Step {
    Request = 1,
    Threads,
    PidNamespace,
    Fork,
    Pidfd,
    Descriptors,
    Memory,
    Namespaces,
    User,
    Confinement,
    ThreadsAgain,
}

/// A copy that lives, and who wants to know of its end.
#[derive(Clone, Copy)]
struct Copy {
    pidfd: c_int,
    pid: c_int,
    connection: c_int,
}

pub const MOST_COPIES: usize = 1000;
static mut COPIES: [Copy; MOST_COPIES] = [Copy { pidfd: -1, pid: 0, connection: -1 }; MOST_COPIES];
static mut LIVING: usize = 0;

/// struct iovec, msghdr, cmsghdr.
#[repr(C)]
struct Vector {
    base: *mut c_void,
    length: usize,
}
#[repr(C)]
struct Message {
    name: usize,
    name_length: u32,
    vectors: *mut Vector,
    vector_count: usize,
    control: *mut c_void,
    control_length: usize,
    flags: c_int,
}
const MOST_PASSED: usize = NAMESPACES + MOST_FILES;
#[repr(C, align(8))]
struct Control {
    length: usize,
    level: c_int,
    kind: c_int,
    descriptors: [c_int; MOST_PASSED],
}
const CONTROL_HEADER: usize = 16;

/// The PID descriptors of the copies that live, for whoever waits.
pub fn pidfds() -> impl Iterator<Item = c_int> {
    // SAFETY: the main thread's alone, as all of this.
    (0..unsafe { LIVING }).map(|index| unsafe { COPIES[index].pidfd })
}

/// Tells of the ends of copies whose PID descriptors say that they have ended.
pub fn reap(ended: impl Fn(c_int) -> bool) {
    const WNOHANG: usize = 1;
    // SAFETY: the table is this thread's; system calls with memory of ours.
    unsafe {
        let mut index = 0;
        while index < LIVING {
            let copy = COPIES[index];
            let mut status: c_int = 0;
            if !ended(copy.pidfd) || kernel!(kernel::WAIT4, copy.pid, &raw mut status, WNOHANG | WALL, 0) != copy.pid as isize {
                index += 1;
                continue;
            }
            answer(copy.connection, Answer { kind: 1, pid: copy.pid, failed: 0, value: status });
            kernel::close(copy.connection);
            kernel::close(copy.pidfd);
            LIVING -= 1;
            COPIES[index] = COPIES[LIVING];
        }
    }
}

pub fn answer(connection: c_int, answer: Answer) {
    const MSG_NOSIGNAL: usize = 0x4000;
    const MSG_DONTWAIT: usize = 0x40;
    // Whoever does not listen any more is gone.
    // SAFETY: memory of ours.
    unsafe { kernel!(kernel::SENDTO, connection, &raw const answer, size_of::<Answer>(), MSG_NOSIGNAL | MSG_DONTWAIT, 0, 0) };
}

/// In a copy: gives up what it has of the others.
pub fn forget_others() {
    // SAFETY: the copy's only thread.
    unsafe {
        for index in 0..LIVING {
            kernel::close(COPIES[index].pidfd);
            kernel::close(COPIES[index].connection);
        }
        LIVING = 0;
    }
}

/// Accepts one connection on `listener` and carries its request out. Answers true in the copy.
pub fn serve(listener: c_int) -> bool {
    // SAFETY: a connection of ours.
    unsafe {
        let connection = kernel!(kernel::ACCEPT4, listener, 0, 0, kernel::O_CLOEXEC) as c_int;
        if connection < 0 {
            return false;
        }
        let mut descriptors = [-1; MOST_PASSED];
        let outcome = match receive(connection, &mut descriptors) {
            Ok(request) if request.kind == SEAL => memory::seal().map(|()| Some(0)).map_err(|error| (Step::Memory, error)),
            Ok(request) => copy(connection, listener, &request, &descriptors),
            Err(error) => Err((Step::Request, error)),
        };
        let outcome = match outcome {
            Ok(Some(pid)) => Ok(pid),
            Ok(None) => return true,
            Err(failure) => Err(failure),
        };
        for descriptor in descriptors {
            if descriptor >= 0 {
                kernel::close(descriptor);
            }
        }
        match outcome {
            Ok(pid) => {
                answer(connection, Answer { kind: 0, pid, failed: 0, value: 0 });
                if pid == 0 {
                    kernel::close(connection);
                }
            }
            Err((step, error)) => {
                answer(connection, Answer { kind: 0, pid: 0, failed: step as u32, value: -error as i32 });
                kernel::close(connection);
            }
        }
        false
    }
}

unsafe fn receive(connection: c_int, descriptors: &mut [c_int; MOST_PASSED]) -> Result<Request, isize> {
    const SOL_SOCKET: c_int = 1;
    const SO_PEERCRED: usize = 17;
    const SCM_RIGHTS: c_int = 1;
    const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;
    const POLLIN: i16 = 1;
    // SAFETY: memory of ours, as large as it is said to be.
    unsafe {
        let mut peer = [0i32; 3]; // struct ucred: PID, user, group
        let mut length: u32 = 12;
        let known = kernel!(kernel::GETSOCKOPT, connection, SOL_SOCKET, SO_PEERCRED, &raw mut peer, &raw mut length);
        if known < 0 || peer[1] != 0 {
            return Err(kernel::EINVAL);
        }
        // Whoever dials asks at once: one that does not must not hold up the others.
        let limit = kernel::Time { seconds: 1, nanoseconds: 0 };
        let mut waiting = super::Polled { descriptor: connection, wanted: POLLIN, answered: 0 };
        if kernel!(kernel::PPOLL, &raw mut waiting, 1, &raw const limit, 0, 8) != 1 {
            return Err(kernel::ETIMEDOUT);
        }
        let mut request: Request = core::mem::zeroed();
        let mut control: Control = core::mem::zeroed();
        let mut vector = Vector { base: (&raw mut request).cast(), length: size_of::<Request>() };
        let mut message = Message {
            name: 0,
            name_length: 0,
            vectors: &mut vector,
            vector_count: 1,
            control: (&raw mut control).cast(),
            control_length: size_of::<Control>(),
            flags: 0,
        };
        let received = kernel!(kernel::RECVMSG, connection, &raw mut message, MSG_CMSG_CLOEXEC);
        if received < 0 {
            return Err(received);
        }
        let mut count = 0;
        if message.control_length >= CONTROL_HEADER && control.level == SOL_SOCKET && control.kind == SCM_RIGHTS {
            count = (control.length - CONTROL_HEADER) / size_of::<c_int>();
            descriptors[..count].copy_from_slice(&control.descriptors[..count]);
        }
        let files = request.files as usize;
        let is_whole =
            received as usize == size_of::<Request>() && request.version == VERSION && message.flags & !(MSG_CMSG_CLOEXEC as c_int) == 0;
        let wanted = if request.kind == COPY { NAMESPACES + files } else { 0 };
        if !is_whole || files > MOST_FILES || count != wanted || (request.memory != u32::MAX && request.memory as usize >= files) {
            return Err(kernel::EINVAL);
        }
        Ok(request)
    }
}

/// Makes the copy. Answers its PID; nothing in the copy itself.
unsafe fn copy(
    connection: c_int,
    listener: c_int,
    request: &Request,
    descriptors: &[c_int; MOST_PASSED],
) -> Result<Option<c_int>, (Step, isize)> {
    const SIGCHLD: usize = 17;
    let (namespaces, files) = descriptors.split_at(NAMESPACES);
    let files = &files[..request.files as usize];
    // SAFETY: all other threads stand still while there are two of this one.
    unsafe {
        if LIVING == MOST_COPIES {
            return Err((Step::Fork, kernel::EAGAIN));
        }
        let namespace = kernel!(kernel::OPENAT, kernel::AT_FDCWD, c"/proc/self/ns/pid".as_ptr(), kernel::O_CLOEXEC) as c_int;
        if namespace < 0 {
            return Err((Step::PidNamespace, namespace as isize));
        }
        if !threads::hold() {
            kernel::close(namespace);
            return Err((Step::Threads, kernel::ETIMEDOUT));
        }
        let entered = kernel!(kernel::SETNS, namespaces[0], CLONE_NEWPID);
        let pid = if entered < 0 { entered } else { kernel!(kernel::CLONE, SIGCHLD, 0, 0, 0, 0) };
        if pid == 0 {
            // Whatever fails here is told by the end, with the step as its status.
            match own::become_own(connection, listener, namespace, request, namespaces, files) {
                Ok(()) => return Ok(None),
                Err((step, error)) => {
                    answer(connection, Answer { kind: 2, pid: 0, failed: step as u32, value: -error as i32 });
                    kernel!(kernel::EXIT_GROUP, 120);
                    unreachable();
                }
            }
        }
        let left = kernel!(kernel::SETNS, namespace, CLONE_NEWPID);
        threads::release();
        kernel::close(namespace);
        if pid < 0 {
            return Err((if entered < 0 { Step::PidNamespace } else { Step::Fork }, pid));
        }
        if left < 0 {
            kernel!(kernel::EXIT_GROUP, 121); // its next copy would be in a tenant's namespace
        }
        let pidfd = kernel!(kernel::PIDFD_OPEN, pid, 0);
        if pidfd < 0 {
            const SIGKILL: usize = 9;
            kernel!(kernel::KILL, pid, SIGKILL);
            kernel!(kernel::WAIT4, pid, 0, WALL, 0);
            return Err((Step::Pidfd, pidfd));
        }
        COPIES[LIVING] = Copy { pidfd: pidfd as c_int, pid: pid as c_int, connection };
        LIVING += 1;
        Ok(Some(pid as c_int))
    }
}

fn unreachable() -> ! {
    loop {}
}
