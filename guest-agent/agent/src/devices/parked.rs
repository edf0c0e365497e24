//! A template's shared folder and first disk, without their devices.
//!
//! QEMU cannot save a machine that has a virtio-fs device, and a device that is plugged into a clone costs it a sixth of its start: the interpreter
//! of ACPI's byte code, the bus's enumeration, the driver. So the template boots with the devices, the kernel gets to know them, and once they are let
//! go of here, the host takes them away without the kernel's knowledge. A clone finds in the same place what it is to have, as after a reset: its
//! addresses are written again, and the driver takes it up.

use std::fs;
use std::path::PathBuf;

use super::pci::{Configuration, Header, KIND};
use super::{VIRTIOFS, bound_devices, function_of};
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
            Kind::Share => VIRTIOFS,
            Kind::Disk => "/sys/bus/virtio/drivers/virtio_blk",
        }
    }
}

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
    header: Header,
}

impl ParkedDevice {
    /// Lets go of the machine's only device of its kind. Fails where there is none.
    pub fn park(kind: Kind) -> Result<Self> {
        let device = bound_device(kind)?;
        let function = function_of(&device)?;
        fs::write(format!("{}/unbind", kind.driver()), &device)
            .context(|| format!("take the driver off {device}"))?;
        Ok(ParkedDevice {
            kind,
            header: Configuration::open(&function)?.header()?,
            function,
            device,
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
        Configuration::open(&self.function)?.restore_header(&self.header)?;
        fs::write(format!("{}/bind", self.kind.driver()), &self.device)
            .context(|| format!("give {} its driver", self.device))
    }

    /// Whether the same kind of device is there.
    pub fn is_there(&self) -> Result<bool> {
        let header = Configuration::open(&self.function)?.header()?;
        Ok(header[KIND] == self.header[KIND])
    }
}

/// The device that the driver has taken up.
fn bound_device(kind: Kind) -> Result<String> {
    let driver = kind.driver();
    match &bound_devices(driver)?[..] {
        [only] => Ok(only.clone()),
        several => Err(Failure::other(format!(
            "expected one device of {driver}, found {}",
            several.len()
        ))),
    }
}
