//! Standing still, and going on in a copy of the process. fork(2) copies memory and one thread. The other threads are told by a signal to stand still, in its
//! handler; in the copy, each is made again with the same stack and thread-local memory, where it stood, and returns from the handler as if nothing had been.

use core::arch::global_asm;
use core::ffi::c_int;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::kernel::{self, Time, kernel};

/// A thread that stands still.
#[repr(C)]
struct Slot {
    /// Its stack, below what the handler saved. The first field: the assembly below knows.
    stack: usize,
    /// Its thread-local memory, at which its `struct pthread` is as well.
    local: usize,
    tid: c_int,
    /// As long as ROUND is that, it stands.
    round: u32,
}

const MOST: usize = 64;
static mut SLOTS: [Slot; MOST] = [const { Slot { stack: 0, local: 0, tid: 0, round: 0 } }; MOST];
/// How many slots have been given to threads.
static mut USED: usize = 0;
/// How many threads stand still.
static STANDING: AtomicU32 = AtomicU32::new(0);
/// Changes when all may go on.
static ROUND: AtomicU32 = AtomicU32::new(0);

/// Where the C library keeps a thread's number in its `struct pthread`: found in the main thread, since no header says it.
static mut TID_OFFSET: usize = 0;
/// Where the C library has the main thread's area of restartable sequences, relative to the thread's own memory (rseq(2)).
static mut RSEQ_OFFSET: isize = 0;
static mut RSEQ_SIZE: usize = 0;

/// QEMU blocks all signals in its threads but for those that the processor's faults are, of which it does not expect this one.
const SIGFPE: usize = 8;
/// Where a signal comes from that a thread of the process sent (siginfo_t.si_code).
const SI_TKILL: c_int = -6;

unsafe extern "C" {
    /// The handler, in assembly: what it has on the stack must be known, and it returns twice.
    fn husk_zygote_handler();
    /// clone(2) for the thread of a slot, at whose place the new one goes on.
    fn husk_zygote_spawn(flags: usize, stack: usize, parent_tid: usize, child_tid: usize, local: usize, slot: *mut Slot) -> isize;
    fn husk_zygote_restorer();
    static __rseq_offset: isize;
    static __rseq_size: u32;
}

global_asm!(
    ".global husk_zygote_handler",
    ".hidden husk_zygote_handler",
    "husk_zygote_handler:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "sub rsp, 8",
    "mov rdi, rsi", // siginfo_t
    "mov rsi, rsp",
    "mov rdx, fs:[0]", // the thread's own memory begins with its address
    "call {enter}",
    "test rax, rax",
    "jz 2f",
    "mov rdi, rax",
    "call {stand}",
    "2:",
    "add rsp, 8",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".global husk_zygote_spawn",
    ".hidden husk_zygote_spawn",
    "husk_zygote_spawn:",
    "push r12",
    "mov r12, r9",
    "mov r10, rcx",
    "mov eax, {clone}",
    "syscall",
    "test rax, rax",
    "jz 3f",
    "pop r12",
    "ret",
    "3:", // the new thread, on the stack of the one whose place it takes
    "mov rdi, r12",
    "call {resume}",
    "jmp 2b",
    ".global husk_zygote_restorer",
    ".hidden husk_zygote_restorer",
    "husk_zygote_restorer:",
    "mov eax, 15", // rt_sigreturn
    "syscall",
    enter = sym enter,
    stand = sym stand,
    resume = sym resume,
    clone = const kernel::CLONE,
);

/// struct kernel_sigaction.
#[repr(C)]
struct Action {
    handler: usize,
    flags: usize,
    restorer: usize,
    mask: u64,
}

/// Finds out what the C library does not tell, and takes the signal. To be called by the main thread, before there are others. Answers whether it may be relied on.
pub fn prepare() -> bool {
    // SAFETY: reads the main thread's own memory, of which a `struct pthread` has more than is looked at; and plain system calls.
    unsafe {
        let local = local();
        let tid = kernel!(kernel::GETTID) as u32;
        let mut found = 0;
        // The number is behind the header of the thread control block, in the first words of what is the C library's own.
        for offset in (0x200..0x400).step_by(4) {
            if core::ptr::read_volatile((local + offset) as *const u32) == tid {
                TID_OFFSET = offset;
                found += 1;
            }
        }
        RSEQ_OFFSET = __rseq_offset;
        RSEQ_SIZE = __rseq_size as usize;
        const SA_SIGINFO: usize = 4;
        const SA_RESTORER: usize = 0x0400_0000;
        const SA_RESTART: usize = 0x1000_0000;
        let action = Action {
            handler: husk_zygote_handler as *const () as usize,
            flags: SA_SIGINFO | SA_RESTORER | SA_RESTART,
            restorer: husk_zygote_restorer as *const () as usize,
            mask: u64::MAX,
        };
        found == 1 && kernel!(kernel::RT_SIGACTION, SIGFPE, &raw const action, 0, 8) == 0
    }
}

fn local() -> usize {
    let local: usize;
    // SAFETY: x86-64's thread control block begins with its own address.
    unsafe { core::arch::asm!("mov {}, fs:[0]", out(reg) local, options(nostack, readonly)) };
    local
}

/// In the handler: the slot of the calling thread, or null where it was not we who sent the signal.
unsafe extern "C" fn enter(info: *const c_int, stack: usize, local: usize) -> *mut Slot {
    // SAFETY: siginfo_t, of which these two words are in all signals; slots are written before their threads are told.
    unsafe {
        let tid = kernel!(kernel::GETTID) as c_int;
        if *info.add(2) == SI_TKILL {
            for index in 0..USED {
                let slot = (&raw mut SLOTS[index]).as_mut().unwrap_unchecked();
                if slot.tid == tid {
                    slot.stack = stack;
                    slot.local = local;
                    return slot;
                }
            }
            return core::ptr::null_mut();
        }
        // A real fault: the default action, as soon as the instruction is tried again.
        let default = Action { handler: 0, flags: 0, restorer: 0, mask: 0 };
        kernel!(kernel::RT_SIGACTION, SIGFPE, &raw const default, 0, 8);
        core::ptr::null_mut()
    }
}

/// In the handler: until all may go on, which may be so by now where the thread comes late.
unsafe extern "C" fn stand(slot: *const Slot) {
    // SAFETY: the thread's own, as `enter` has found it.
    let round = unsafe { (*slot).round };
    if ROUND.load(Ordering::Acquire) != round {
        return;
    }
    STANDING.fetch_add(1, Ordering::Release);
    kernel::wake(&STANDING);
    while ROUND.load(Ordering::Acquire) == round {
        kernel::wait_on(&ROUND, round, None);
    }
}

/// In the copy of a thread: what the kernel keeps for a thread, and does not copy.
unsafe extern "C" fn resume(slot: *mut Slot) {
    const RSEQ_SIGNATURE: usize = 0x5305_3053;
    // SAFETY: the area is the thread's own, where the C library has one.
    unsafe {
        if RSEQ_SIZE != 0 {
            // struct rseq has 32 bytes at least; what is not active in it is ignored.
            let area = (*slot).local.wrapping_add_signed(RSEQ_OFFSET);
            core::ptr::write_volatile((area + 4) as *mut i32, -1);
            kernel!(kernel::RSEQ, area, RSEQ_SIZE.max(32), 0, RSEQ_SIGNATURE);
        }
    }
}

/// Has all other threads of the process stand still. False where a second goes by without one more that does; then all go on.
pub fn hold() -> bool {
    // SAFETY: slots are written by this thread alone until their threads have been told.
    unsafe {
        USED = 0;
        STANDING.store(0, Ordering::Release);
        // A thread may make another one before it is told: until a look finds none.
        loop {
            let before = USED;
            if !tell_new_threads() {
                release();
                return false;
            }
            if USED == before {
                return true;
            }
            let limit = Time { seconds: 1, nanoseconds: 0 };
            loop {
                let standing = STANDING.load(Ordering::Acquire);
                if standing as usize == USED {
                    break;
                }
                // A thread counts itself before it wakes us: its waking may come when we wait for the next one.
                let woken = kernel::wait_on(&STANDING, standing, Some(&limit));
                if !woken && STANDING.load(Ordering::Acquire) == standing {
                    release();
                    return false;
                }
            }
        }
    }
}

/// Lets all go on that `hold` has stopped.
pub fn release() {
    ROUND.fetch_add(1, Ordering::Release);
    kernel::wake(&ROUND);
}

unsafe fn tell_new_threads() -> bool {
    // SAFETY: a folder that is opened, read and closed here; its records as getdents64(2) has them.
    unsafe {
        let folder = kernel!(kernel::OPENAT, kernel::AT_FDCWD, c"/proc/self/task".as_ptr(), kernel::O_DIRECTORY | kernel::O_CLOEXEC);
        if folder < 0 {
            return false;
        }
        let own = kernel!(kernel::GETTID) as c_int;
        let process = kernel!(kernel::GETPID);
        let mut complete = true;
        let mut buffer = [0u64; 512];
        loop {
            let length = kernel!(kernel::GETDENTS64, folder, buffer.as_mut_ptr(), 4096);
            if length <= 0 {
                complete &= length == 0;
                break;
            }
            let (start, mut offset) = (buffer.as_ptr() as *const u8, 0);
            while offset < length as usize {
                let record = start.add(offset);
                offset += core::ptr::read_unaligned(record.add(16) as *const u16) as usize;
                let Some(tid) = number(record.add(19)) else { continue };
                if tid == own || (0..USED).any(|index| SLOTS[index].tid == tid) {
                    continue;
                }
                if USED == MOST {
                    complete = false;
                    continue;
                }
                SLOTS[USED] = Slot { stack: 0, local: 0, tid, round: ROUND.load(Ordering::Acquire) };
                USED += 1;
                if kernel!(kernel::TGKILL, process, tid, SIGFPE) < 0 {
                    USED -= 1; // it has ended
                }
            }
        }
        kernel::close(folder as c_int);
        complete
    }
}

/// The decimal number at `text`; nothing where it is none.
unsafe fn number(text: *const u8) -> Option<c_int> {
    let mut value: c_int = 0;
    let mut place = text;
    // SAFETY: a C string.
    unsafe {
        while *place != 0 {
            let digit = (*place).wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            value = value.wrapping_mul(10).wrapping_add(c_int::from(digit));
            place = place.add(1);
        }
    }
    (place != text).then_some(value)
}

/// In the copy: makes the threads again that stood still when it was made. False where one could not be made: the copy is of no use then.
pub fn make_again() -> bool {
    // What the C library makes a thread with, and QEMU's seccomp filter knows.
    const FLAGS: usize = 0x0000_0100 // CLONE_VM
        | 0x0000_0200 // CLONE_FS
        | 0x0000_0400 // CLONE_FILES
        | 0x0000_0800 // CLONE_SIGHAND
        | 0x0001_0000 // CLONE_THREAD
        | 0x0004_0000 // CLONE_SYSVSEM
        | 0x0008_0000 // CLONE_SETTLS
        | 0x0010_0000 // CLONE_PARENT_SETTID
        | 0x0020_0000; // CLONE_CHILD_CLEARTID
    // SAFETY: the memory is a copy of one in which these threads stood still, so nobody else is on their stacks.
    unsafe {
        // The main thread, which is the copy's only one so far, has another number as well.
        core::ptr::write_volatile((local() + TID_OFFSET) as *mut c_int, kernel!(kernel::GETTID) as c_int);
        for index in 0..USED {
            let slot = &raw mut SLOTS[index];
            let tid = (*slot).local + TID_OFFSET;
            if husk_zygote_spawn(FLAGS, (*slot).stack, tid, tid, (*slot).local, slot) < 0 {
                return false;
            }
        }
    }
    true
}
