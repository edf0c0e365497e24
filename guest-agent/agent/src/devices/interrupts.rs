//! Where a PCI function's interrupts go, which the kernel writes once and never reads again (PCI Local Bus Specification 3.0, section 6.8.2: MSI-X).

use std::fs::OpenOptions;
use std::num::NonZeroUsize;
use std::path::Path;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::pci::{Configuration, MSI_X};
use crate::error::{Context, Failure, Result};

/// The fields of the capability.
const CONTROL: u64 = 2;
const TABLE: u64 = 4;
/// How many entries the table has, less one.
const CONTROL_LAST_ENTRY: u32 = 0x7ff;
/// In which memory region the table is; the rest of the field is where in it.
const TABLE_REGION: u32 = 7;

const WORDS_OF_ENTRY: usize = 4;
/// Regions are mapped by pages.
const PAGE: usize = 4096;

/// All of them.
pub struct Interrupts {
    control: u32,
    table: Vec<u32>,
}

impl Interrupts {
    pub fn save(function: &Path, configuration: &Configuration) -> Result<Self> {
        let place = Place::find(configuration)?;
        let mapped = place.map(function)?;
        Ok(Interrupts {
            control: configuration.read(place.capability + CONTROL, 2)?,
            table: (0..place.words).map(|word| mapped.read(word)).collect(),
        })
    }

    /// The function answers at its addresses.
    pub fn restore(&self, function: &Path, configuration: &Configuration) -> Result<()> {
        let place = Place::find(configuration)?;
        if place.words != self.table.len() {
            return Err(Failure::other(
                "the new device has another number of interrupts than the old one",
            ));
        }
        configuration.write(place.capability + CONTROL, 2, self.control)?;
        let mapped = place.map(function)?;
        for (word, &value) in self.table.iter().enumerate() {
            mapped.write(word, value);
        }
        Ok(())
    }
}

struct Place {
    capability: u64,
    region: u32,
    offset: usize,
    words: usize,
}

impl Place {
    fn find(configuration: &Configuration) -> Result<Self> {
        let [capability] = configuration.capabilities(MSI_X)?[..] else {
            return Err(Failure::other("the device has no MSI-X"));
        };
        let control = configuration.read(capability + CONTROL, 2)?;
        let table = configuration.read(capability + TABLE, 4)?;
        Ok(Place {
            capability,
            region: table & TABLE_REGION,
            offset: (table & !TABLE_REGION) as usize,
            words: ((control & CONTROL_LAST_ENTRY) + 1) as usize * WORDS_OF_ENTRY,
        })
    }

    fn map(&self, function: &Path) -> Result<Mapped> {
        let path = function.join(format!("resource{}", self.region));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .context(|| format!("open {}", path.display()))?;
        let end = self.offset + self.words * size_of::<u32>();
        let length = NonZeroUsize::new(end.next_multiple_of(PAGE))
            .ok_or_else(|| Failure::other("the table of interrupts is empty"))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at an address of the kernel's choice; the kernel refuses one that is longer than the region.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, &file, 0) }
            .context(|| format!("map {}", path.display()))?;
        Ok(Mapped {
            start,
            length,
            offset: self.offset,
            words: self.words,
        })
    }
}

/// The table.
struct Mapped {
    start: NonNull<std::ffi::c_void>,
    length: NonZeroUsize,
    offset: usize,
    words: usize,
}

impl Mapped {
    fn read(&self, word: usize) -> u32 {
        // SAFETY: as in `address`; a register, of which each read counts.
        unsafe { self.address(word).read_volatile() }
    }

    fn write(&self, word: usize, value: u32) {
        // SAFETY: as in `address`; a register, of which each write counts.
        unsafe { self.address(word).write_volatile(value) }
    }

    fn address(&self, word: usize) -> *mut u32 {
        assert!(word < self.words);
        // SAFETY: the table is within the mapping, which `map` has made as long as that; the specification aligns it to 8 bytes.
        unsafe {
            self.start
                .cast::<u8>()
                .add(self.offset)
                .cast::<u32>()
                .add(word)
        }
        .as_ptr()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nothing refers to it any more.
        let unmapped = unsafe { munmap(self.start, self.length.get()) };
        unmapped.expect("a mapping of our own can be taken away");
    }
}
