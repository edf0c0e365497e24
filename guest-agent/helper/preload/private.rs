//! What QEMU is preloaded with where its guest's RAM is a template's. It is alone in QEMU: no library, nothing of Rust's own beside `core`.

#![no_std]

mod private_memory;

use core::ffi::{c_int, c_long, c_void};
use core::panic::PanicInfo;

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
    unsafe { private_memory::map_either_way(place, length, access, flags, file, offset) }
}

/// # Safety
/// As mmap(2)'s.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap(place: *mut c_void, length: usize, access: c_int, flags: c_int, file: c_int, offset: c_long) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { mmap64(place, length, access, flags, file, offset) }
}

/// Nothing here can panic; the language wants to know nevertheless.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}
