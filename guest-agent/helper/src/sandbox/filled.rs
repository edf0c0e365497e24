//! Memory that is filled before there is a plan: a supervisor that stands by has it ready for the sandbox that it will be asked for.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::Path;

use anyhow::{Result, ensure};

use super::open;
use crate::{descriptors, template};

pub struct Filled {
    memory: OwnedFd,
    bytes: u64,
    sum: String,
}

impl Filled {
    /// Memory of so many bytes, with what is in `ram`. Fails where that has another sum.
    pub fn new(ram: &Path, bytes: u64, sum: String) -> Result<Filled> {
        let memory = File::from(open::make_memory(bytes, false)?);
        template::copy(&File::from(open::open_file(ram, false)?), &memory, &sum)?;
        Ok(Filled { memory: memory.into(), bytes, sum })
    }

    /// The same, under a number that is none of these.
    pub fn beside(mut self, taken: impl Iterator<Item = RawFd>) -> Result<Filled> {
        if let Some(highest) = taken.max() {
            self.memory = descriptors::raise(self.memory.as_fd(), highest + 1)?;
        }
        Ok(self)
    }

    /// Gives it as descriptor `fd`. Fails where it is not what the plan has in mind.
    pub fn place(self, fd: RawFd, bytes: u64, sum: &str) -> Result<()> {
        ensure!(
            self.bytes == bytes && self.sum == sum,
            "the memory was filled with {} bytes of {}, not {bytes} of {sum}",
            self.bytes,
            self.sum
        );
        descriptors::place_owned(self.memory, fd)
    }
}
