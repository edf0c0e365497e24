//! A template's memory, which all of its clones that map it privately have in common: a memfd, sealed as soon as it is whole, so that nobody can change it any
//! more, not even who has it open for writing. It lives as long as one of the clones; nobody else keeps it.
//!
//! ```text
//! first clone ── makes it, from the template's file ── seals it ── writes the record: PID, start time, descriptor
//! next clone ─── reads the record ── opens /proc/PID/fd/DESCRIPTOR ── looks whether that is it ── has it
//! ```
//! Whatever is wrong with the record or with what it names costs a copy, and a new record. Two at once may make one each: the last one's record stays.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;
use serde::{Deserialize, Serialize};

use super::plan::TemplateMemory;
use crate::processes::Stat;
use crate::template;

/// Who has it: a process, told from any other that has or had its PID, and the descriptor.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Holder {
    pid: u32,
    /// Field 22 of /proc/PID/stat.
    start: u64,
    fd: RawFd,
}

/// Answers the memory of a living clone, or makes it. The descriptor is closed at execve.
pub fn obtain(wanted: &TemplateMemory, bytes: u64) -> Result<OwnedFd> {
    if let Ok(holder) = read(&wanted.record)
        && let Ok(found) = open(&holder, &wanted.name, bytes)
    {
        return Ok(found);
    }
    let made = make(wanted, bytes)?;
    if let Err(error) = write(&wanted.record, &made) {
        // A folder that is for reading only, or a /proc of other processes: what this clone has is its own.
        eprintln!("husk: the template's memory is not shared with other sandboxes: {error:#}");
    }
    Ok(made)
}

/// Makes the memory. It is sealed only where it is whole.
fn make(wanted: &TemplateMemory, bytes: u64) -> Result<OwnedFd> {
    let memory = memfd_create(wanted.name.as_str(), MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING);
    let memory = memory.context("cannot make a memory file")?;
    ftruncate(&memory, i64::try_from(bytes)?).with_context(|| format!("cannot make a memory file of {bytes} bytes"))?;
    let ram = File::open(&wanted.ram).with_context(|| format!("cannot open {}", wanted.ram.display()))?;
    ensure!(ram.metadata()?.len() == bytes, "the template's memory is damaged: it has not {bytes} bytes");
    let memory = File::from(memory);
    template::copy(&ram, &memory, &wanted.sum)?;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(all_seals())).context("cannot seal the template's memory")?;
    Ok(memory.into())
}

fn all_seals() -> SealFlag {
    SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

/// Opens what the holder has, where it is a memory of that name and size that nobody can change.
fn open(holder: &Holder, name: &str, bytes: u64) -> Result<OwnedFd> {
    let path = format!("/proc/{}/fd/{}", holder.pid, holder.fd);
    // First the name: opening a device, which another process may have there by now, could do something.
    let target = fs::read_link(&path)?;
    ensure!(target == Path::new(&format!("/memfd:{name} (deleted)")), "{path} is {}", target.display());
    let memory = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(&path)?;
    ensure!(start_of(holder.pid)? == holder.start, "process {} is another one", holder.pid);
    let metadata = memory.metadata()?;
    ensure!(metadata.len() == bytes, "{path} has {} bytes, not {bytes}", metadata.len());
    ensure!(metadata.uid() == nix::unistd::geteuid().as_raw(), "{path} was made by user {}", metadata.uid());
    let seals = SealFlag::from_bits_truncate(fcntl(&memory, FcntlArg::F_GET_SEALS)?);
    ensure!(seals.contains(all_seals()), "{path} can be changed");
    Ok(memory.into())
}

fn read(record: &Path) -> Result<Holder> {
    Ok(serde_json::from_slice(&fs::read(record)?)?)
}

/// Says that this process has the memory, by one rename.
fn write(record: &Path, memory: &OwnedFd) -> Result<()> {
    let pid = std::process::id();
    if fs::read_link("/proc/self")? != Path::new(&pid.to_string()) {
        bail!("/proc shows other processes");
    }
    let holder = Holder { pid, start: start_of(pid)?, fd: memory.as_raw_fd() };
    let draft = record.with_extension(pid.to_string());
    fs::write(&draft, serde_json::to_vec(&holder)?).with_context(|| format!("cannot write {}", draft.display()))?;
    fs::rename(&draft, record).with_context(|| format!("cannot write {}", record.display()))
}

fn start_of(pid: u32) -> Result<u64> {
    const START: usize = 22;
    Stat::of(pid)?.number(START)
}
