//! The guest's clocks and its random generator.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};

use crate::error::{Context, Failure, Result};

const NANOSECONDS: u64 = 1_000_000_000;

fn read_ns(clock: ClockId) -> u64 {
    // Reading these clocks fails only where they do not exist.
    clock_gettime(clock).map_or(0, |time| {
        time.tv_sec() as u64 * NANOSECONDS + time.tv_nsec() as u64
    })
}

/// Nanoseconds since the machine booted, time asleep included.
pub fn boot_ns() -> u64 {
    read_ns(ClockId::CLOCK_BOOTTIME)
}

/// Nanoseconds since 1970.
pub fn unix_ns() -> u64 {
    read_ns(ClockId::CLOCK_REALTIME)
}

/// Sets the wall clock to that many nanoseconds since 1970.
pub fn set_unix_ns(ns: u64) -> Result<()> {
    let time = TimeSpec::new((ns / NANOSECONDS) as i64, (ns % NANOSECONDS) as i64);
    clock_settime(ClockId::CLOCK_REALTIME, time).context(|| format!("set the clock to {ns} ns"))
}

nix::ioctl_write_ptr_bad!(
    /// Adds bytes to the random pool, and credits them.
    add_entropy,
    nix::request_code_write!(b'R', 0x03, 2 * size_of::<i32>()),
    EntropyHeader
);
nix::ioctl_none_bad!(
    /// Makes the generator take a new key from the pool at once.
    reseed_generator,
    nix::request_code_none!(b'R', 0x07)
);

/// The most bytes of a seed.
const MAX_SEED: usize = 512;

/// struct rand_pool_info of linux/random.h, with room for the longest seed.
#[repr(C)]
pub struct EntropyHeader {
    entropy_bits: i32,
    size: i32,
    bytes: [u8; MAX_SEED],
}

/// Feeds 32 to 512 bytes of the host to the guest's random generator and makes it use them: a guest that was cloned from a template must
/// not draw the numbers that its siblings draw.
pub fn seed_random(seed: &[u8]) -> Result<()> {
    if !(32..=MAX_SEED).contains(&seed.len()) {
        return Err(Failure::invalid(format!(
            "random_seed: expected 32 to {MAX_SEED} bytes, got {}",
            seed.len()
        )));
    }
    let mut header = EntropyHeader {
        entropy_bits: seed.len() as i32 * 8,
        size: seed.len() as i32,
        bytes: [0; MAX_SEED],
    };
    header.bytes[..seed.len()].copy_from_slice(seed);
    let device = OpenOptions::new()
        .write(true)
        .open("/dev/urandom")
        .context(|| "open /dev/urandom")?;
    // SAFETY: the header says how many of its bytes are used, and it outlives the call.
    unsafe { add_entropy(device.as_raw_fd(), &header) }.context(|| "add entropy")?;
    // SAFETY: no argument.
    unsafe { reseed_generator(device.as_raw_fd()) }
        .context(|| "reseed the random generator")
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_32_to_512_bytes() {
        let message = |seed: &[u8]| seed_random(seed).map_err(|failure| failure.message);
        assert_eq!(
            message(&[0; 31]),
            Err("random_seed: expected 32 to 512 bytes, got 31".into())
        );
        assert_eq!(
            message(&[0; 513]),
            Err("random_seed: expected 32 to 512 bytes, got 513".into())
        );
    }
}
