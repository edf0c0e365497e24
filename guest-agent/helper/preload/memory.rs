//! The guest's memory of the zygote, which its copies have in common: a memfd that nobody can write to once the zygote's machine stands still, of which each
//! copy has a private mapping; or memory of a copy's own, in its place.

use core::ffi::{c_int, c_long, c_void};

use crate::kernel::{self, kernel};
use crate::private_memory;

/// The mapping of the RAM.
static mut PLACE: usize = 0;
static mut LENGTH: usize = 0;
static mut ACCESS: c_int = 0;
static mut FILE: c_int = -1;

/// Remembers the mapping of the RAM, the largest that is shared and can be written to.
pub fn remember(place: *mut c_void, length: usize, access: c_int, file: c_int) {
    // SAFETY: the main thread maps the RAM, before it listens.
    unsafe {
        if length > LENGTH {
            (PLACE, LENGTH, ACCESS, FILE) = (place as usize, length, access, file);
        }
    }
}

/// Maps the RAM privately, so that nothing writes to its file any more, which is sealed then. The machine stands still.
pub fn seal() -> Result<(), isize> {
    const MAP_FIXED: c_int = 0x10;
    const F_ADD_SEALS: usize = 1033;
    const ALL: usize = 1 | 2 | 4 | 8; // F_SEAL_SEAL, SHRINK, GROW, WRITE
    // SAFETY: the mapping is QEMU's RAM, in whose place the same content comes.
    unsafe {
        if FILE < 0 {
            return Err(kernel::EINVAL);
        }
        let mapped = private_memory::map_privately(PLACE as *mut c_void, LENGTH, ACCESS, MAP_FIXED, FILE, 0 as c_long);
        if mapped as usize != PLACE {
            return Err(kernel::EINVAL);
        }
        let sealed = kernel!(kernel::FCNTL, FILE, F_ADD_SEALS, ALL);
        if sealed < 0 { Err(sealed) } else { Ok(()) }
    }
}

/// Puts the memory in `file` in the RAM's place, and `file` in the place of what QEMU tells others its RAM is.
pub fn replace(file: c_int) -> Result<(), isize> {
    const MAP_SHARED: usize = 1;
    const MAP_FIXED: usize = 0x10;
    // SAFETY: as in `seal`; the content comes before the machine goes on.
    unsafe {
        if FILE < 0 {
            return Err(kernel::EINVAL);
        }
        let mapped = kernel!(kernel::MMAP, PLACE, LENGTH, ACCESS, MAP_SHARED | MAP_FIXED, file, 0);
        if mapped < 0 && mapped > -4096 {
            return Err(mapped);
        }
        let placed = kernel!(kernel::DUP3, file, FILE, kernel::O_CLOEXEC);
        if placed < 0 { Err(placed) } else { Ok(()) }
    }
}
