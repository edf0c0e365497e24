//! `husk-helper template`: what a template's memory goes through. A template is a booted, paused machine, kept as the file of its RAM and the
//! file of everything else; the copies of that RAM that its clones live in are made here, while their hypervisor starts.
//!
//! - `copy`: into the memory of a clone, page by page, holes and zeroes left out; the copy is checked by the way.
//! - `sum`: what `copy` checks.
//! - `save`: the memory of a paused machine, or its disk, into a file, for a checkpoint; `--packed`: what is in use alone, one piece after the other;
//!   `--process`: as that process has it, which maps the file privately. `resident`: how much that is.
//! - `unpack`: what was saved packed, back into memory; checked by the way.
//! - `seal`: tells a zygote's hypervisor that its machine stands still for good.
//! - `receive`: what a hypervisor writes to a socket, into a file: QEMU 7.2 can save its state nowhere else under confinement.

mod private_memory;

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::io::{copy as copy_stream, stdout};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::ptr::NonNull;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::socket::accept;
use nix::unistd::{Whence, lseek64};

use crate::flags::Flags;
use private_memory::PrivateMemory;

const PAGE: usize = 4096;
const ZEROES: [u8; PAGE] = [0; PAGE];
/// Pages that are summed and written in one go: they stay in the processor's cache in between.
const RUN: usize = 64;

const USAGE: &str = "usage: husk-helper template copy --from FD --to FD --sum HEX | sum --from FD | \
     save --from FD --to FD [--packed] [--give-back | --process PID] | resident --from FD --process PID | \
     unpack --from FD --to FD --sum HEX | seal --socket PATH | receive --from FD --to FD";

/// Does what the first word says. Ends with 1 and a line on standard error where it cannot.
pub fn main(words: &[OsString]) -> Result<ExitCode> {
    let (verb, rest) = words.split_first().context(USAGE)?;
    match verb.to_str() {
        Some("copy") => {
            let flags = Flags::parse(rest, &["--from", "--to", "--sum"], &[])?;
            copy(&descriptor(&flags, "--from")?, &descriptor(&flags, "--to")?, flags.text("--sum")?)?;
        }
        Some("unpack") => {
            let flags = Flags::parse(rest, &["--from", "--to", "--sum"], &[])?;
            check_sum(unpack(&descriptor(&flags, "--from")?, &descriptor(&flags, "--to")?)?, flags.text("--sum")?)?;
        }
        Some("seal") => {
            let flags = Flags::parse(rest, &["--socket"], &[])?;
            crate::sandbox::seal_zygote(Path::new(flags.text("--socket")?))?;
        }
        Some("sum") => {
            let flags = Flags::parse(rest, &["--from"], &[])?;
            let sum = walk(&descriptor(&flags, "--from")?, &mut |_, _| Ok(()), |_, _| Ok(()))?;
            writeln!(stdout(), "{sum:08x}").context("cannot print the sum")?;
        }
        Some("save") => {
            let flags = Flags::parse(rest, &["--from", "--to", "--process"], &["--packed", "--give-back"])?;
            let (from, to, packed) = (descriptor(&flags, "--from")?, descriptor(&flags, "--to")?, flags.is_set("--packed"));
            let (sum, bytes) = if flags.is_set("--process") {
                let memory = PrivateMemory::of(flags.number("--process")?, &from)?;
                save(&to, from.metadata()?.len(), packed, |take| memory.walk(take))?
            } else {
                let give_back = flags.is_set("--give-back");
                save(&to, from.metadata()?.len(), packed, |take| {
                    walk(&from, take, |offset, length| if give_back { punch(&from, offset, length) } else { Ok(()) })
                })?
            };
            writeln!(stdout(), "{sum:08x} {bytes}").context("cannot print the sum")?;
        }
        Some("resident") => {
            let flags = Flags::parse(rest, &["--from", "--process"], &[])?;
            let bytes = PrivateMemory::of(flags.number("--process")?, &descriptor(&flags, "--from")?)?.resident()?;
            writeln!(stdout(), "{bytes}").context("cannot print how much there is")?;
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

/// Copies the pages that are not all zeroes. Fails where their sum is another one.
pub fn copy(from: &File, to: &File, sum: &str) -> Result<()> {
    let length = from.metadata().context("cannot look at the template's memory")?.len();
    ensure!(length > 0 && length % PAGE as u64 == 0, "the template's memory has {length} bytes, which is no number of pages");
    check_sum(walk(from, &mut |offset, bytes| Ok(to.write_all_at(bytes, offset)?), |_, _| Ok(()))?, sum)
}

fn check_sum(sum: u32, expected: &str) -> Result<()> {
    ensure!(format!("{sum:08x}") == expected, "the template's memory is damaged: its sum is {sum:08x}, not {expected}");
    Ok(())
}

/// What stands before each piece of a packed file: where it belongs, and how long it is, both little-endian.
const PIECE_HEADER: usize = 16;

/// Writes what `walk` passes on, out of a memory of `length` bytes, and answers its sum and how many bytes were written. `packed`: without the holes between.
fn save(mut to: &File, length: u64, packed: bool, walk: impl FnOnce(&mut Take<'_>) -> Result<u32>) -> Result<(u32, u64)> {
    if !packed {
        to.set_len(length).context("cannot make the file as large")?;
    }
    let mut written = 0;
    let sum = walk(&mut |offset, bytes| {
        written += bytes.len() as u64;
        if !packed {
            return Ok(to.write_all_at(bytes, offset)?);
        }
        written += PIECE_HEADER as u64;
        to.write_all(&[offset.to_le_bytes(), (bytes.len() as u64).to_le_bytes()].concat())?;
        Ok(to.write_all(bytes)?)
    })?;
    Ok((sum, written))
}

/// Is given pages that are not all zeroes, and where they are.
type Take<'a> = dyn FnMut(u64, &[u8]) -> Result<()> + 'a;

fn punch(file: &File, offset: u64, length: u64) -> Result<()> {
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(fallocate(file, hole, offset as i64, length as i64)?)
}

/// Calls `take` with the pages of the file that are not all zeroes, in order, in runs, and answers the sum of them and of where they are; `skip` with
/// where pages of zeroes are that are no hole. The last page of a file may be shorter than the others.
fn walk(file: &File, take: &mut Take<'_>, mut skip: impl FnMut(u64, u64) -> Result<()>) -> Result<u32> {
    let length = file.metadata().context("cannot look at the template's memory")?.len();
    let memory = Mapping::of(file, length)?;
    let mut sum = crc32fast::Hasher::new();
    let mut end = 0;
    while let Some(start) = seek(file, end, Whence::SeekData)? {
        end = seek(file, start, Whence::SeekHole)?.unwrap_or(length);
        let pages = memory.bytes().get(start as usize..end as usize).context("the template's memory has changed its size")?;
        sort(start, pages, &mut sum, take, &mut skip)?;
    }
    Ok(sum.finalize())
}

/// Passes on the pages at `start` as `walk` does.
fn sort(
    start: u64,
    pages: &[u8],
    sum: &mut crc32fast::Hasher,
    take: &mut Take<'_>,
    skip: &mut impl FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    let mut first = 0;
    while first < pages.len() {
        let offset = start + first as u64;
        let rest = &pages[first..];
        let count = |zeroes: bool| rest.chunks(PAGE).take(RUN).take_while(|page| is_zero(page) == zeroes).count() * PAGE;
        let run = &rest[..count(false).min(rest.len())];
        let mut step = run.len();
        if run.is_empty() {
            step = count(true).min(rest.len());
            skip(offset, step as u64).context("cannot give memory back")?;
        } else {
            add_to_sum(sum, offset, run);
            take(offset, run).context("cannot write the copy")?;
        }
        first += step;
    }
    Ok(())
}

/// Writes the pieces of a packed file to where they belong, and answers the sum that they had as `walk` has it. The file comes from anybody.
fn unpack(from: &File, to: &File) -> Result<u32> {
    let (length, size) = (from.metadata()?.len(), to.metadata()?.len());
    let packed = Mapping::of(from, length)?;
    let mut rest = packed.bytes();
    let mut sum = crc32fast::Hasher::new();
    while let Some((header, behind)) = rest.split_first_chunk::<PIECE_HEADER>() {
        let [offset, count] = [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|index| header[at + index])));
        let fits = offset % PAGE as u64 == 0 && offset.checked_add(count).is_some_and(|end| end <= size) && count <= behind.len() as u64;
        ensure!(fits && count > 0, "the saved memory is damaged: {count} bytes at {offset} are not possible");
        let (bytes, next) = behind.split_at(count as usize);
        add_to_sum(&mut sum, offset, bytes);
        to.write_all_at(bytes, offset).context("cannot write the copy")?;
        rest = next;
    }
    ensure!(rest.is_empty(), "the saved memory is damaged: it is cut off");
    Ok(sum.finalize())
}

/// Page by page, since a file system may tell of the same data in other pieces another time.
fn add_to_sum(sum: &mut crc32fast::Hasher, offset: u64, bytes: &[u8]) {
    for (index, page) in bytes.chunks(PAGE).enumerate() {
        sum.update(&(offset + (index * PAGE) as u64).to_le_bytes());
        sum.update(page);
    }
}

fn is_zero(page: &[u8]) -> bool {
    *page == ZEROES[..page.len()]
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
