//! `husk-helper template`: what a template's memory goes through. A template is a booted, paused machine, kept as the file of its RAM and the
//! file of everything else; the copies of that RAM that its clones live in are made here, while their hypervisor starts.
//!
//! - `copy`: into the memory of a clone, page by page, holes and zeroes left out; the copy is checked by the way.
//! - `sum`: what `copy` checks.
//! - `receive`: what a hypervisor writes to a socket, into a file: QEMU 7.2 can save its state nowhere else under confinement.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::io::{copy as copy_stream, stdout};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::ptr::NonNull;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::socket::accept;
use nix::unistd::{Whence, lseek64};

use crate::flags::Flags;

const PAGE: usize = 4096;
const ZEROES: [u8; PAGE] = [0; PAGE];
/// Pages that are summed and written in one go: they stay in the processor's cache in between.
const RUN: usize = 64;

const USAGE: &str = "usage: husk-helper template copy --from FD --to FD --sum HEX | sum --from FD | receive --from FD --to FD";

/// Does what the first word says. Ends with 1 and a line on standard error where it cannot.
pub fn main(words: &[OsString]) -> Result<ExitCode> {
    let (verb, rest) = words.split_first().context(USAGE)?;
    match verb.to_str() {
        Some("copy") => {
            let flags = Flags::parse(rest, &["--from", "--to", "--sum"], &[])?;
            let to = descriptor(&flags, "--to")?;
            let sum = walk(&descriptor(&flags, "--from")?, |offset, bytes| Ok(to.write_all_at(bytes, offset)?))?;
            let expected = flags.text("--sum")?;
            ensure!(format!("{sum:08x}") == expected, "the template's memory is damaged: its sum is {sum:08x}, not {expected}");
        }
        Some("sum") => {
            let flags = Flags::parse(rest, &["--from"], &[])?;
            let sum = walk(&descriptor(&flags, "--from")?, |_, _| Ok(()))?;
            writeln!(stdout(), "{sum:08x}").context("cannot print the sum")?;
        }
        Some("receive") => {
            let flags = Flags::parse(rest, &["--from", "--to"], &[])?;
            receive(descriptor(&flags, "--from")?, descriptor(&flags, "--to")?)?;
        }
        _ => bail!(USAGE),
    }
    Ok(ExitCode::SUCCESS)
}

fn descriptor(flags: &Flags, name: &str) -> Result<File> {
    let number: RawFd = flags.number(name)?;
    ensure!(number >= 0, "{name}: {number} is no descriptor");
    // SAFETY: the descriptor is this program's by contract, and no other flag names it.
    Ok(unsafe { File::from_raw_fd(number) })
}

/// Calls `take` with the pages of the file that are not all zeroes, in order, in runs, and answers the sum of them and of where they are.
fn walk(file: &File, mut take: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<u32> {
    let length = file.metadata().context("cannot look at the template's memory")?.len();
    ensure!(length > 0 && length % PAGE as u64 == 0, "the template's memory has {length} bytes, which is no number of pages");
    let memory = Mapping::of(file, length)?;
    let mut sum = crc32fast::Hasher::new();
    let mut end = 0;
    while let Some(start) = seek(file, end, Whence::SeekData)? {
        end = seek(file, start, Whence::SeekHole)?.unwrap_or(length);
        let pages = memory.bytes().get(start as usize..end as usize).context("the template's memory has changed its size")?;
        let mut first = 0;
        while first < pages.len() {
            let used = pages[first..].chunks_exact(PAGE).take(RUN).take_while(|page| **page != ZEROES).count();
            let run = &pages[first..first + used * PAGE];
            if !run.is_empty() {
                let offset = start + first as u64;
                // Page by page, since a file system may tell of the same data in other pieces another time.
                for (index, page) in run.chunks_exact(PAGE).enumerate() {
                    sum.update(&(offset + (index * PAGE) as u64).to_le_bytes());
                    sum.update(page);
                }
                take(offset, run).context("cannot write the copy")?;
            }
            first += run.len().max(PAGE);
        }
    }
    Ok(sum.finalize())
}

/// The next place of that kind; None: there is none up to the end of the file.
fn seek(file: &File, from: u64, whence: Whence) -> Result<Option<u64>> {
    match lseek64(file, from as i64, whence) {
        Ok(found) => Ok(Some(found as u64)),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error).context("cannot seek in the template's memory"),
    }
}

/// A file mapped for reading: copying out of it costs one copy, where read(2) costs two.
struct Mapping {
    address: NonNull<std::ffi::c_void>,
    length: NonZeroUsize,
}

impl Mapping {
    fn of(file: &File, length: u64) -> Result<Mapping> {
        let length = NonZeroUsize::new(length as usize).context("the template's memory is empty")?;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let address = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file.as_fd(), 0) };
        Ok(Mapping { address: address.context("cannot map the template's memory")?, length })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping lives as long as `self`. Nobody writes to a template; a file that is cut off nevertheless ends this program
        // with SIGBUS, which the supervisor takes for what it is, a template that cannot be used.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr().cast(), self.length.get()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing borrows from it any more. That it cannot be undone is of no consequence.
        let _ = unsafe { munmap(self.address, self.length.get()) };
    }
}

/// Accepts one connection and writes what comes on it to the file.
fn receive(listener: File, mut to: File) -> Result<()> {
    let connection = accept(listener.as_raw_fd()).context("cannot accept the hypervisor")?;
    // SAFETY: accept has just made this descriptor.
    let mut connection = File::from(unsafe { OwnedFd::from_raw_fd(connection) });
    copy_stream(&mut connection, &mut to).context("cannot write the template's state")?;
    to.sync_all().context("cannot write the template's state")
}
