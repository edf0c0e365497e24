//! Capabilities: what processes that stay root are left with.

use anyhow::{Context, Result};
use nix::errno::Errno;

/// What virtiofsd begins with: to serve files of all users, by handle as well, to make nodes, and to confine itself (chroot, dropping the
/// rest from the bounding set). It drops SYS_CHROOT and SETPCAP itself.
const ROOT: [u32; 11] = [CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETGID, SETUID, SETPCAP, SYS_CHROOT, MKNOD, SETFCAP];

const CHOWN: u32 = 0;
const DAC_OVERRIDE: u32 = 1;
const DAC_READ_SEARCH: u32 = 2;
const FOWNER: u32 = 3;
const FSETID: u32 = 4;
const SETGID: u32 = 6;
const SETUID: u32 = 7;
const SETPCAP: u32 = 8;
const NET_ADMIN: u32 = 12;
const SYS_CHROOT: u32 = 18;
const MKNOD: u32 = 27;
const SETFCAP: u32 = 31;

/// The version of capset's structures that has 64 bits (linux/capability.h).
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Leaves the calling process, which stays root, and what it executes with the capabilities of `ROOT`.
pub fn keep_for_root() -> Result<()> {
    keep(&ROOT)
}

/// Leaves the calling process with what changing the rules of its network namespace needs.
pub fn keep_for_network() -> Result<()> {
    keep(&[SETPCAP, NET_ADMIN])
}

/// Leaves the calling process, which stays root, and what it executes without any capability.
pub fn give_up_all() -> Result<()> {
    keep(&[])
}

fn keep(capabilities: &[u32]) -> Result<()> {
    drop_bounding_set(capabilities)?;
    let kept = capabilities.iter().fold(0_u32, |set, capability| set | 1 << capability);
    let header = Header { version: VERSION_3, pid: 0 };
    let sets = [Sets { effective: kept, permitted: kept, inheritable: 0 }, Sets { effective: 0, permitted: 0, inheritable: 0 }];
    // SAFETY: both structures have the layout of version 3 and outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &header, sets.as_ptr()) }).context("cannot set the capabilities")?;
    Ok(())
}

/// Drops every capability from the bounding set but those named, so that no program executed later can have it.
pub fn drop_bounding_set(kept: &[u32]) -> Result<()> {
    for capability in 0..64 {
        if kept.contains(&capability) {
            continue;
        }
        // SAFETY: only numbers are passed.
        match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
            Ok(_) => {}
            // The kernel knows no further capability.
            Err(Errno::EINVAL) => break,
            Err(error) => return Err(error).with_context(|| format!("cannot drop capability {capability}")),
        }
    }
    Ok(())
}
