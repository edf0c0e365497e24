//! Devices that the host exchanges without the kernel's knowledge: those of templates, without their drivers ([`parked`]), and a checkpoint's, with
//! everything that is open on them ([`held`]).

mod driver_state;
pub mod held;
mod interrupts;
pub mod parked;
mod pci;

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Context, Failure, Result};

/// The driver of shared folders.
const VIRTIOFS: &str = "/sys/bus/virtio/drivers/virtiofs";

/// The virtio devices that the driver has taken up.
fn bound_devices(driver: &str) -> Result<Vec<String>> {
    Ok(fs::read_dir(driver)
        .context(|| format!("read {driver}"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("virtio"))
        .collect())
}

/// The folder in sysfs of the PCI function which is a virtio device.
fn function_of(device: &str) -> Result<PathBuf> {
    fs::canonicalize(format!("/sys/bus/virtio/devices/{device}"))
        .context(|| format!("find {device}"))?
        .parent()
        .map(Path::to_path_buf)
        .ok_or_else(|| Failure::other(format!("{device} is on no bus")))
}
