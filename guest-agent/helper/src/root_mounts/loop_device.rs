//! Block devices of files.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;

// <linux/loop.h>
const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// struct loop_info64
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// struct loop_config
#[repr(C)]
struct Configuration {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// How often another program may take the free device first.
const TRIES: usize = 64;

/// Makes a file a block device, which ends when nobody uses it any more. Answers its path, and what keeps it meanwhile.
pub fn attach(path: &Path, read_only: bool) -> Result<(PathBuf, File)> {
    let what = || format!("cannot open {}", path.display());
    // O_NONBLOCK: it may be a FIFO, whose opening would wait for ever.
    let file = OpenOptions::new().read(true).write(!read_only).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = file.with_context(what)?;
    ensure!(file.metadata().with_context(what)?.is_file(), "{} is no file", path.display());
    // SAFETY: zeroes are a valid configuration.
    let mut configuration: Configuration = unsafe { std::mem::zeroed() };
    configuration.fd = file.as_raw_fd() as u32;
    configuration.info.flags = LO_FLAGS_AUTOCLEAR | if read_only { LO_FLAGS_READ_ONLY } else { 0 };

    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control").context("cannot open /dev/loop-control")?;
    for _ in 0..TRIES {
        // SAFETY: it takes no argument.
        let free = Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) }).context("no loop device is free")?;
        let name = PathBuf::from(format!("/dev/loop{free}"));
        let device = OpenOptions::new().read(true).write(!read_only).open(&name);
        let device = device.with_context(|| format!("cannot open {}", name.display()))?;
        // SAFETY: the structure outlives the call, and is the one of the kernel's headers.
        match Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &configuration) }) {
            Ok(_) => return Ok((name, device)),
            Err(Errno::EBUSY) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot set up {}", name.display())),
        }
    }
    bail!("other programs took {TRIES} loop devices first")
}
