//! System calls without the C library: what stands still in them may stand still anywhere in it, and `errno` is somebody else's.
//! Numbers and constants are x86-64's, from the kernel's headers.

use core::arch::asm;
use core::ffi::c_int;

/// One system call. Answers what the kernel does: a negative number is an error's.
///
/// # Safety
/// As the call's.
pub unsafe fn call(number: usize, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let answer: isize;
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => answer,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    answer
}

/// `call` with its arguments in a row.
macro_rules! kernel {
    ($number:expr $(, $argument:expr)*) => {
        $crate::kernel::call($number, $crate::kernel::six([$($argument as usize),*]))
    };
}
pub(crate) use kernel;

pub const CLOSE: usize = 3;
pub const MMAP: usize = 9;
pub const RT_SIGACTION: usize = 13;
pub const PREAD64: usize = 17;
pub const MADVISE: usize = 28;
pub const GETPID: usize = 39;
pub const SENDTO: usize = 44;
pub const RECVMSG: usize = 47;
pub const GETSOCKOPT: usize = 55;
pub const CLONE: usize = 56;
pub const WAIT4: usize = 61;
pub const KILL: usize = 62;
pub const FCNTL: usize = 72;
pub const CHDIR: usize = 80;
pub const SETSID: usize = 112;
pub const SETGROUPS: usize = 116;
pub const SETRESUID: usize = 117;
pub const SETRESGID: usize = 119;
pub const SETPRIORITY: usize = 141;
pub const PRCTL: usize = 157;
pub const GETTID: usize = 186;
pub const FUTEX: usize = 202;
pub const SCHED_SETAFFINITY: usize = 203;
pub const GETDENTS64: usize = 217;
pub const EXIT_GROUP: usize = 231;
pub const TGKILL: usize = 234;
pub const OPENAT: usize = 257;
pub const READLINKAT: usize = 267;
pub const PPOLL: usize = 271;
pub const ACCEPT4: usize = 288;
pub const EVENTFD2: usize = 290;
pub const DUP3: usize = 292;
pub const SETNS: usize = 308;
pub const SECCOMP: usize = 317;
pub const MEMFD_CREATE: usize = 319;
pub const RSEQ: usize = 334;
pub const PIDFD_OPEN: usize = 434;

pub const EAGAIN: isize = -11;
pub const EINVAL: isize = -22;
pub const ETIMEDOUT: isize = -110;

pub const O_CLOEXEC: usize = 0o2000000;
pub const MFD_CLOEXEC: usize = 1;
pub const O_DIRECTORY: usize = 0o200000;
pub const AT_FDCWD: isize = -100;

/// Arguments, and noughts up to six.
pub fn six<const COUNT: usize>(arguments: [usize; COUNT]) -> [usize; 6] {
    let mut all = [0; 6];
    for (place, argument) in all.iter_mut().zip(arguments) {
        *place = argument;
    }
    all
}

/// struct timespec.
#[repr(C)]
pub struct Time {
    pub seconds: i64,
    pub nanoseconds: i64,
}

/// Closes a descriptor of ours.
pub fn close(number: c_int) {
    // SAFETY: it is ours.
    unsafe { kernel!(CLOSE, number) };
}

/// Waits until `word` is no longer `value`, or until a wake-up without a reason, or `limit`. False where it was the limit.
pub fn wait_on(word: &core::sync::atomic::AtomicU32, value: u32, limit: Option<&Time>) -> bool {
    const FUTEX_WAIT: usize = 0;
    // SAFETY: the word outlives the call.
    let result = unsafe { kernel!(FUTEX, word.as_ptr(), FUTEX_WAIT, value, limit.map_or(core::ptr::null(), |time| time as *const Time)) };
    result != -ETIMEDOUT
}

/// Wakes whoever waits on `word`.
pub fn wake(word: &core::sync::atomic::AtomicU32) {
    const FUTEX_WAKE: usize = 1;
    // SAFETY: the word outlives the call.
    unsafe { kernel!(FUTEX, word.as_ptr(), FUTEX_WAKE, c_int::MAX) };
}
