//! A PCI function's configuration space, by sysfs, and the way through it to a virtio device's registers.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::{Context, Failure, Result};

/// Its header (PCI Local Bus Specification 3.0, section 6.1).
pub type Header = [u8; 64];

/// What tells in a header which kind of device it is: vendor and device id.
pub const KIND: Range<usize> = 0x00..0x04;
const COMMAND: Range<usize> = 0x04..0x06;
const BASE_ADDRESSES: Range<usize> = 0x10..0x28;
const INTERRUPT_LINE: Range<usize> = 0x3c..0x3d;
const STATUS: u64 = 0x06;
const STATUS_HAS_CAPABILITIES: u32 = 1 << 4;
const FIRST_CAPABILITY: u64 = 0x34;

/// The identifiers of its capabilities (section H of the same).
pub const VENDOR_SPECIFIC: u32 = 0x09;
pub const MSI_X: u32 = 0x11;

/// There are no more in its 256 bytes.
const MOST_CAPABILITIES: usize = 48;

/// The configuration space, open for reading and writing.
pub struct Configuration(File);

impl Configuration {
    /// `function`: its folder in sysfs.
    pub fn open(function: &Path) -> Result<Self> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(function.join("config"))
            .map(Configuration)
            .context(|| format!("open the configuration of {}", function.display()))
    }

    /// Reads 1, 2 or 4 bytes, in one access.
    pub fn read(&self, at: u64, size: usize) -> Result<u32> {
        let mut bytes = [0; 4];
        self.0
            .read_exact_at(&mut bytes[..size], at)
            .context(|| format!("read the device's configuration at {at:#x}"))?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Writes 1, 2 or 4 bytes, in one access.
    pub fn write(&self, at: u64, size: usize, value: u32) -> Result<()> {
        self.write_all(at, &value.to_le_bytes()[..size])
    }

    pub fn header(&self) -> Result<Header> {
        let mut header = [0; size_of::<Header>()];
        self.0
            .read_exact_at(&mut header, 0)
            .context(|| "read the device's configuration at 0x0")?;
        Ok(header)
    }

    /// Makes the header, as it is after a reset, what it was.
    pub fn restore_header(&self, header: &Header) -> Result<()> {
        // The command last: with it, the device answers at its addresses.
        for part in [BASE_ADDRESSES, INTERRUPT_LINE, COMMAND] {
            self.write_all(part.start as u64, &header[part])?;
        }
        Ok(())
    }

    /// Writes what is as long as it may be, in accesses of the kernel's choice.
    fn write_all(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.0
            .write_all_at(bytes, at)
            .context(|| format!("write the device's configuration at {at:#x}"))
    }

    /// Where its capabilities of that identifier are.
    pub fn capabilities(&self, wanted: u32) -> Result<Vec<u64>> {
        let mut found = Vec::new();
        if self.read(STATUS, 2)? & STATUS_HAS_CAPABILITIES == 0 {
            return Ok(found);
        }
        let mut at = u64::from(self.read(FIRST_CAPABILITY, 1)? & !3);
        for _ in 0..MOST_CAPABILITIES {
            if at == 0 {
                return Ok(found);
            }
            if self.read(at, 1)? == wanted {
                found.push(at);
            }
            at = u64::from(self.read(at + 1, 1)? & !3);
        }
        Err(Failure::other(
            "the device's list of capabilities has no end",
        ))
    }
}

/// The kinds of a virtio device's structures (Virtual I/O Device 1.2, section 4.1.4).
pub const COMMON: u32 = 1;
pub const NOTIFICATIONS: u32 = 2;
const WINDOW: u32 = 5;

/// Where one of them is: in which of the function's memory regions, and from where on.
#[derive(Clone, Copy)]
pub struct Structure {
    region: u32,
    offset: u32,
    /// Where its capability is.
    pub capability: u64,
}

/// The way to a virtio device's registers through its configuration space (section 4.1.4.9), which works whoever has claimed the memory regions.
pub struct Window<'a> {
    configuration: &'a Configuration,
    capability: u64,
}

impl<'a> Window<'a> {
    pub fn open(configuration: &'a Configuration) -> Result<Self> {
        let capability = structure(configuration, WINDOW)?.capability;
        Ok(Window {
            configuration,
            capability,
        })
    }

    /// Finds a structure of the device's. Fails where it has none.
    pub fn find(&self, kind: u32) -> Result<Structure> {
        structure(self.configuration, kind)
    }

    /// Reads 1, 2 or 4 bytes of `structure`, from `at` on.
    pub fn read(&self, structure: Structure, at: u32, size: usize) -> Result<u32> {
        self.point(structure, at, size)?;
        self.configuration.read(self.capability + DATA, size)
    }

    /// Writes 1, 2 or 4 bytes of `structure`, from `at` on.
    pub fn write(&self, structure: Structure, at: u32, size: usize, value: u32) -> Result<()> {
        self.point(structure, at, size)?;
        self.configuration
            .write(self.capability + DATA, size, value)
    }

    fn point(&self, structure: Structure, at: u32, size: usize) -> Result<()> {
        let Structure { region, offset, .. } = structure;
        let [own, length] = [offset + at, size as u32];
        self.configuration
            .write(self.capability + REGION, 1, region)?;
        self.configuration.write(self.capability + OFFSET, 4, own)?;
        self.configuration
            .write(self.capability + LENGTH, 4, length)
    }
}

/// The fields of a structure's capability.
const STRUCTURE_KIND: u64 = 3;
const REGION: u64 = 4;
const OFFSET: u64 = 8;
const LENGTH: u64 = 12;
const DATA: u64 = 16;
/// Of that of the notifications alone.
pub const NOTIFICATION_MULTIPLIER: u64 = 16;

fn structure(configuration: &Configuration, kind: u32) -> Result<Structure> {
    for capability in configuration.capabilities(VENDOR_SPECIFIC)? {
        if configuration.read(capability + STRUCTURE_KIND, 1)? == kind {
            return Ok(Structure {
                region: configuration.read(capability + REGION, 1)?,
                offset: configuration.read(capability + OFFSET, 4)?,
                capability,
            });
        }
    }
    Err(Failure::other(format!(
        "the device has no virtio structure of kind {kind}"
    )))
}
