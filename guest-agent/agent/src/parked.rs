//! A template's shared folder and first disk, without their devices.
//!
//! QEMU cannot save a machine that has a virtio-fs device, and a device that is plugged into a clone costs it a sixth of its start: the interpreter
//! of ACPI's byte code, the bus's enumeration, the driver. So the template boots with the devices, the kernel gets to know them, and once they are let
//! go of here, the host takes them away without the kernel's knowledge. A clone finds in the same place what it is to have, as after a reset: its
//! addresses are written again, and the driver takes it up.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Failure, Result};

/// The kinds of devices that are parked, one of each.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Share,
    Disk,
}

impl Kind {
    fn driver(self) -> &'static str {
        match self {
            Kind::Share => "/sys/bus/virtio/drivers/virtiofs",
            Kind::Disk => "/sys/bus/virtio/drivers/virtio_blk",
        }
    }
}

/// The header of a PCI function's configuration space, and what is where in it (PCI Local Bus Specification 3.0, section 6.1).
const HEADER: usize = 64;
const COMMAND: usize = 0x04;
const BASE_ADDRESSES: std::ops::Range<usize> = 0x10..0x28;
const INTERRUPT_LINE: usize = 0x3c;

/// What a template's guest has let go of.
#[derive(Debug, Default)]
pub struct Parked {
    pub share: Option<ParkedDevice>,
    pub disk: Option<ParkedDevice>,
}

impl Parked {
    /// Lets go of both.
    pub fn park() -> Result<Self> {
        Parked::default().park_again()
    }

    /// Lets go of those that have been taken into use.
    pub fn park_again(self) -> Result<Self> {
        let park = |kind| move || ParkedDevice::park(kind);
        Ok(Parked {
            share: Some(self.share.map_or_else(park(Kind::Share), Ok)?),
            disk: Some(self.disk.map_or_else(park(Kind::Disk), Ok)?),
        })
    }
}

/// A device that is known to the kernel, and in nobody's use.
#[derive(Debug)]
pub struct ParkedDevice {
    kind: Kind,
    /// The PCI function's folder in sysfs.
    function: PathBuf,
    /// The virtio device on it.
    device: String,
    header: [u8; HEADER],
}

impl ParkedDevice {
    /// Lets go of the machine's only device of its kind. Fails where there is none.
    pub fn park(kind: Kind) -> Result<Self> {
        let device = bound_device(kind)?;
        let function = fs::canonicalize(format!("/sys/bus/virtio/devices/{device}"))
            .context(|| format!("find {device}"))?
            .parent()
            .map(Path::to_path_buf)
            .ok_or_else(|| Failure::other(format!("{device} is on no bus")))?;
        fs::write(format!("{}/unbind", kind.driver()), &device)
            .context(|| format!("take the driver off {device}"))?;
        let header = read_header(&function)?;
        Ok(ParkedDevice {
            kind,
            function,
            device,
            header,
        })
    }

    /// Takes the device into use that is in its place now. Fails where there is none.
    pub fn wake(self) -> Result<()> {
        if !self.is_there()? {
            return Err(Failure::other(format!(
                "no device is in the template's place for it, {}",
                self.function.display()
            )));
        }
        let config = fs::OpenOptions::new()
            .write(true)
            .open(self.function.join("config"))
            .context(|| "open the device's configuration")?;
        // The command last: with it, the device answers at its addresses.
        for part in [
            BASE_ADDRESSES,
            INTERRUPT_LINE..INTERRUPT_LINE + 1,
            COMMAND..COMMAND + 2,
        ] {
            config
                .write_all_at(&self.header[part.clone()], part.start as u64)
                .context(|| "write the device's configuration")?;
        }
        fs::write(format!("{}/bind", self.kind.driver()), &self.device)
            .context(|| format!("give {} its driver", self.device))
    }

    /// Whether the same kind of device is there: vendor and device id are the header's first words.
    pub fn is_there(&self) -> Result<bool> {
        Ok(read_header(&self.function)?[..COMMAND] == self.header[..COMMAND])
    }
}

/// The device that the driver has taken up.
fn bound_device(kind: Kind) -> Result<String> {
    let driver = kind.driver();
    let mut names = fs::read_dir(driver)
        .context(|| format!("read {driver}"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("virtio"));
    match (names.next(), names.next()) {
        (Some(only), None) => Ok(only),
        (first, _) => Err(Failure::other(format!(
            "expected one device of {driver}, found {}",
            if first.is_none() { "none" } else { "several" }
        ))),
    }
}

fn read_header(function: &Path) -> Result<[u8; HEADER]> {
    let mut header = [0; HEADER];
    fs::File::open(function.join("config"))
        .and_then(|config| config.read_exact_at(&mut header, 0))
        .context(|| format!("read the configuration of {}", function.display()))?;
    Ok(header)
}
