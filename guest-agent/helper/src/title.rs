//! What `ps` shows of a process that stands for another one: that one's words. `docker top` and `crictl` show a container's processes by `ps`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::prctl;

use crate::processes::Stat;

/// How much of a command line is shown, in bytes: it is kept in memory.
const LONGEST: usize = 4096;

/// Where /proc/PID/stat has the memory's addresses, counted from 1; proc_pid_stat(5).
const START_CODE: usize = 26;
const START_DATA: usize = 45;

/// What PR_SET_MM_MAP takes: struct prctl_mm_map of linux/prctl.h.
#[repr(C)]
struct MemoryMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// Gives the calling process the command line `words`, and the first one's last part as its name. Nothing for no words.
pub fn take(words: &[String]) -> Result<()> {
    let Some(first) = words.first() else { return Ok(()) };
    let mut line = words.iter().flat_map(|word| word.bytes().chain([0])).collect::<Vec<_>>();
    if line.len() > LONGEST {
        line.truncate(LONGEST - 1);
        line.push(0);
    }
    let line: &'static [u8] = line.leak();
    let range = line.as_ptr_range();
    let mut map = memory_map()?;
    map.arg_start = range.start as u64;
    map.arg_end = range.end as u64;
    // SAFETY: the kernel reads the map, whose addresses are this process's own and stay so: the line is never freed.
    let done = unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, &raw const map, size_of_val(&map), 0) };
    Errno::result(done).context("cannot change the command line")?;
    let name = Path::new(first).file_name().map_or_else(|| first.as_bytes(), |name| name.as_encoded_bytes());
    // The kernel takes fifteen bytes of it.
    let name = std::ffi::CString::new(name).context("a word holds a NUL")?;
    prctl::set_name(&name).context("cannot change the name")
}

/// The addresses as they are.
fn memory_map() -> Result<MemoryMap> {
    let stat = Stat::of("self")?;
    let field = |number: usize| stat.number(number);
    // SAFETY: an address of 0 asks for the present one.
    let brk = unsafe { libc::syscall(libc::SYS_brk, 0) };
    ensure!(brk > 0, "the end of the data segment is unknown");
    Ok(MemoryMap {
        start_code: field(START_CODE)?,
        end_code: field(START_CODE + 1)?,
        start_data: field(START_DATA)?,
        end_data: field(START_DATA + 1)?,
        start_brk: field(START_DATA + 2)?,
        brk: brk as u64,
        start_stack: field(START_CODE + 2)?,
        arg_start: field(START_DATA + 3)?,
        arg_end: field(START_DATA + 4)?,
        env_start: field(START_DATA + 5)?,
        env_end: field(START_DATA + 6)?,
        auxv: 0,
        auxv_size: 0,
        // None: the program stays.
        exe_fd: u32::MAX,
    })
}
