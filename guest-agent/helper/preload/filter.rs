//! QEMU's seccomp filter, which its copies load. The zygote cannot have it: it makes processes. It is taken as the kernel wants it while there is one thread: to load
//! it, libseccomp allocates, and in a copy, the allocator may be locked for ever by a thread that stood still in it.

use core::ffi::{c_char, c_int, c_void};

use crate::kernel::{self, kernel};

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// The next library's.
const RTLD_NEXT: *mut c_void = -1isize as *mut c_void;

/// struct sock_filter.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

/// struct sock_fprog.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

/// BPF_MAXINSNS.
const MOST: usize = 4096;
static mut INSTRUCTIONS: [Instruction; MOST] = [Instruction { code: 0, if_true: 0, if_false: 0, value: 0 }; MOST];
static mut LENGTH: usize = 0;

/// # Safety
/// As seccomp_load(3)'s.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seccomp_load(filter: *mut c_void) -> c_int {
    // SAFETY: QEMU's main thread, with libseccomp's own function, and memory of ours that is as large as it is said to be.
    unsafe {
        let function = dlsym(RTLD_NEXT, c"seccomp_export_bpf".as_ptr());
        let file = kernel!(kernel::MEMFD_CREATE, c"filter".as_ptr(), kernel::MFD_CLOEXEC) as c_int;
        if function.is_null() || file < 0 {
            return file.min(-1);
        }
        let export: extern "C" fn(*mut c_void, c_int) -> c_int = core::mem::transmute(function);
        let exported = export(filter, file);
        if exported == 0 {
            let size = size_of::<Instruction>();
            let read = kernel!(kernel::PREAD64, file, &raw mut INSTRUCTIONS, MOST * size, 0);
            LENGTH = read.max(0) as usize / size;
        }
        kernel::close(file);
        exported
    }
}

/// In the copy: has the filter in force. Threads that are made from now on have it as well. It must have no_new_privs.
pub fn confine() -> bool {
    const SECCOMP_SET_MODE_FILTER: usize = 1;
    // SAFETY: written once, before there was any copy.
    unsafe {
        let program = Program { length: LENGTH as u16, instructions: (&raw const INSTRUCTIONS).cast() };
        LENGTH > 0 && kernel!(kernel::SECCOMP, SECCOMP_SET_MODE_FILTER, 0, &raw const program) == 0
    }
}
