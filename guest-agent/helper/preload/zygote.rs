//! What a zygote's QEMU is preloaded with: it makes copies of the process, whose machine stands still, with all that it has translated. A copy's guest has not
//! to have its code translated again, which under emulation is most of what a start costs.
//!
//! QEMU is stock. Its main thread waits in ppoll(2), and is here then: the one place at which it holds no lock and is in the middle of nothing.

#![no_std]

mod filter;
mod fork;
mod kernel;
mod memory;
mod own;
mod private_memory;
mod threads;

use core::ffi::{c_char, c_int, c_long, c_void};
use core::panic::PanicInfo;

use kernel::kernel;

unsafe extern "C" {
    fn getenv(name: *const c_char) -> *const c_char;
}

/// struct pollfd.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Polled {
    pub descriptor: c_int,
    pub wanted: i16,
    pub answered: i16,
}
const POLLIN: i16 = 1;
const MOST_POLLED: usize = 2048;

/// The socket on which copies are asked for; negative: none are made, which is so in a copy.
static mut LISTENER: c_int = -1;
static mut MAIN_THREAD: isize = 0;

/// As a constructor: run by the dynamic linker before QEMU's `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

extern "C" fn begin() {
    // SAFETY: one thread, and a C string of the environment's.
    unsafe {
        let text = getenv(c"HUSK_ZYGOTE".as_ptr());
        if text.is_null() || !threads::prepare() {
            return;
        }
        let mut number = 0;
        let mut place = text;
        while *place >= b'0' as c_char && *place <= b'9' as c_char {
            number = number * 10 + c_int::from(*place - b'0' as c_char);
            place = place.add(1);
        }
        MAIN_THREAD = kernel!(kernel::GETTID);
        LISTENER = number;
    }
}

/// In the copy.
fn stop_serving() {
    // SAFETY: its only thread.
    unsafe { LISTENER = -1 };
}

/// # Safety
/// As mmap(2)'s.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap64(
    place: *mut c_void,
    length: usize,
    access: c_int,
    flags: c_int,
    file: c_int,
    offset: c_long,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe {
        let mapped = private_memory::map_either_way(place, length, access, flags, file, offset);
        if mapped as isize != -1 && LISTENER >= 0 && private_memory::is_shared(access, flags) {
            memory::remember(mapped, length, access, file);
        }
        mapped
    }
}

/// # Safety
/// As mmap(2)'s.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap(place: *mut c_void, length: usize, access: c_int, flags: c_int, file: c_int, offset: c_long) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { mmap64(place, length, access, flags, file, offset) }
}

/// QEMU keeps its RAM out of forks.
///
/// # Safety
/// As madvise(2)'s.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn madvise(place: *mut c_void, length: usize, advice: c_int) -> c_int {
    const MADV_DONTFORK: c_int = 10;
    if advice == MADV_DONTFORK {
        return 0;
    }
    // SAFETY: the caller's promise. An advice that is not taken is QEMU's to shrug at.
    unsafe { if kernel!(kernel::MADVISE, place, length, advice) < 0 { -1 } else { 0 } }
}

/// # Safety
/// As ppoll(2)'s.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ppoll(polled: *mut Polled, count: usize, limit: *const kernel::Time, mask: *const c_void) -> c_int {
    // SAFETY: the caller's promise; the table below is the main thread's.
    unsafe {
        if LISTENER < 0 || kernel!(kernel::GETTID) != MAIN_THREAD || count + 1 + fork::MOST_COPIES > MOST_POLLED {
            return wait(polled, count, limit, mask);
        }
        static mut TABLE: [Polled; MOST_POLLED] = [Polled { descriptor: -1, wanted: 0, answered: 0 }; MOST_POLLED];
        for index in 0..count {
            TABLE[index] = *polled.add(index);
        }
        TABLE[count] = Polled { descriptor: LISTENER, wanted: POLLIN, answered: 0 };
        let mut all = count + 1;
        for pidfd in fork::pidfds() {
            TABLE[all] = Polled { descriptor: pidfd, wanted: POLLIN, answered: 0 };
            all += 1;
        }
        let answer = wait((&raw mut TABLE).cast(), all, limit, mask);
        if answer <= 0 {
            return answer;
        }
        let mut own = 0;
        for index in 0..count {
            (*polled.add(index)).answered = TABLE[index].answered;
            own += c_int::from(TABLE[index].answered != 0);
        }
        if answer > own {
            let asked = TABLE[count].answered != 0;
            fork::reap(|pidfd| (count + 1..all).any(|index| TABLE[index].descriptor == pidfd && TABLE[index].answered != 0));
            if asked {
                fork::serve(LISTENER);
            }
        }
        own
    }
}

unsafe fn wait(polled: *mut Polled, count: usize, limit: *const kernel::Time, mask: *const c_void) -> c_int {
    unsafe extern "C" {
        fn __errno_location() -> *mut c_int;
    }
    // SAFETY: the caller's promise. The kernel writes what is left of the limit, which is the caller's constant.
    unsafe {
        let mut left = kernel::Time { seconds: 0, nanoseconds: 0 };
        let limit = if limit.is_null() {
            core::ptr::null_mut()
        } else {
            left.seconds = (*limit).seconds;
            left.nanoseconds = (*limit).nanoseconds;
            &raw mut left
        };
        let answer = kernel!(kernel::PPOLL, polled, count, limit, mask, 8);
        if answer < 0 {
            *__errno_location() = -answer as c_int;
            return -1;
        }
        answer as c_int
    }
}

/// Nothing here can panic that the compiler could not rule out; the language wants to know nevertheless.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: ends the process, from which nothing returns.
    unsafe { kernel!(kernel::EXIT_GROUP, 122) };
    loop {}
}

/// `core` is compiled for unwinding, and names this; nothing unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
