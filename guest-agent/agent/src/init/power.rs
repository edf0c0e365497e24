//! The end of the machine.

use std::path::Path;

use nix::sys::reboot::{RebootMode, reboot};

use crate::console;

/// Writes back what is dirty and powers the machine off; does not return. Where the kernel has no way to power off (no ACPI), it resets,
/// which ends QEMU too: it runs with -no-reboot.
pub fn off() {
    nix::unistd::sync();
    let mode = if Path::new("/sys/firmware/acpi/tables").exists() {
        RebootMode::RB_POWER_OFF
    } else {
        RebootMode::RB_AUTOBOOT
    };
    let Err(errno) = reboot(mode);
    console::log(format_args!("reboot: {errno}"));
    // PID 1 ends: the kernel panics, and panic=-1 on its command line makes that a reset.
}
