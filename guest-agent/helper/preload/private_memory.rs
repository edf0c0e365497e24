//! What QEMU is preloaded with (`LD_PRELOAD`, ld.so(8)) where its guest's RAM is a template's, which all clones have in common: a memfd that is sealed
//! against writing. The kernel refuses a shared mapping of it that can be written to; here it becomes a private one.
//!
//! QEMU can map a file privately by itself (`share=off`), but that is not enough:
//! - The kernel fills a hole of a memfd as soon as a private mapping of it is written to: each page that a guest uses would be there twice. So the holes are
//!   anonymous memory here, and only what the template has something in is mapped from the memfd.
//! - QEMU would have to be told that the RAM is its own, and would then write all of it into the state of a checkpoint.
//!
//! It is alone in QEMU: no library, nothing of Rust's own beside `core`.

use core::ffi::{c_int, c_long, c_void};

unsafe extern "C" {
    /// System calls by their numbers, in every C library.
    fn syscall(number: c_long, ...) -> c_long;
    fn __errno_location() -> *mut c_int;
}

// x86-64's, from the kernel's headers.
const SYS_LSEEK: c_long = 8;
const SYS_MMAP: c_long = 9;
const SYS_FCNTL: c_long = 72;
const SYS_PRCTL: c_long = 157;
const PROT_WRITE: c_int = 2;
const MAP_SHARED: c_int = 1;
const MAP_PRIVATE: c_int = 2;
const MAP_FIXED: c_int = 0x10;
const MAP_ANONYMOUS: c_int = 0x20;
const MAP_NORESERVE: c_int = 0x4000;
const SEEK_DATA: c_int = 3;
const SEEK_HOLE: c_int = 4;
const F_GET_SEALS: c_int = 1034;
const F_SEAL_WRITE: c_long = 8;
const PR_SET_THP_DISABLE: c_int = 41;
const ENXIO: c_int = 6;
const FAILED: *mut c_void = usize::MAX as *mut c_void;

/// Holes that are shorter than this are mapped from the file as well: each piece costs the kernel a mapping, of which there cannot be any number.
const SHORTEST_HOLE: c_long = 16 * 4096;

/// What mmap(2) does, but that the mapping is private where it would be refused.
///
/// # Safety
/// As mmap(2)'s.
pub unsafe fn map_either_way(place: *mut c_void, length: usize, access: c_int, flags: c_int, file: c_int, offset: c_long) -> *mut c_void {
    // SAFETY: the caller's promise, and system calls that only answer a number.
    unsafe {
        if is_shared(access, flags) && is_sealed(file) {
            return map_privately(place, length, access, flags & MAP_FIXED, file, offset);
        }
        map(place, length, access, flags, file, offset)
    }
}

/// Whether it is a mapping of a file that others are to see written.
pub fn is_shared(access: c_int, flags: c_int) -> bool {
    flags & MAP_SHARED != 0 && flags & MAP_ANONYMOUS == 0 && access & PROT_WRITE != 0
}

unsafe fn map(place: *mut c_void, length: usize, access: c_int, flags: c_int, file: c_int, offset: c_long) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { syscall(SYS_MMAP, place, length, access, flags, file, offset) as *mut c_void }
}

unsafe fn is_sealed(file: c_int) -> bool {
    // SAFETY: whatever the number, it only answers.
    let seals = unsafe { syscall(SYS_FCNTL, file, F_GET_SEALS) };
    seals >= 0 && seals & F_SEAL_WRITE != 0
}

/// Nothing of what it maps is left out: where a piece cannot be mapped, all fails, and errno says why.
///
/// # Safety
/// As mmap(2)'s.
pub unsafe fn map_privately(place: *mut c_void, length: usize, access: c_int, fixed: c_int, file: c_int, offset: c_long) -> *mut c_void {
    let own = MAP_PRIVATE | MAP_NORESERVE;
    // SAFETY: the caller's promise for the whole; the pieces lie in what has just been mapped.
    unsafe {
        // Huge pages, which QEMU asks for, would make each first touch of a clone 2 MiB.
        syscall(SYS_PRCTL, PR_SET_THP_DISABLE, 1 as c_long, 0 as c_long, 0 as c_long, 0 as c_long);
        let start = map(place, length, access, own | MAP_ANONYMOUS | fixed, -1, 0);
        if start == FAILED {
            return FAILED;
        }
        let limit = offset + length as c_long;
        let mut next = syscall(SYS_LSEEK, file, offset, SEEK_DATA);
        while next >= 0 && next < limit {
            let begin = next;
            let mut end = begin;
            while next >= 0 && next < limit && next - end < SHORTEST_HOLE {
                end = syscall(SYS_LSEEK, file, next, SEEK_HOLE);
                if end < 0 {
                    return FAILED;
                }
                next = syscall(SYS_LSEEK, file, end, SEEK_DATA);
            }
            let end = if end < limit { end } else { limit };
            let piece = start.byte_add((begin - offset) as usize);
            if map(piece, (end - begin) as usize, access, own | MAP_FIXED, file, begin) == FAILED {
                return FAILED;
            }
        }
        // That there is no more is the only good reason to stop.
        if next < 0 && *__errno_location() != ENXIO {
            return FAILED;
        }
        start
    }
}
