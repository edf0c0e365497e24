//! `husk-helper tsc`: how fast the processor's time stamp counter counts. A guest whose processor is emulated reads the host's counter, and finds its rate by
//! comparing it with an emulated timer at boot: on a busy host that can go wrong by a factor, and then all of the guest's clocks do.

use std::arch::x86_64::_rdtsc;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// Long enough for a rate that is right to some millionths.
const BETWEEN: Duration = Duration::from_millis(20);
/// Readings of which the best is taken: one in which nobody came in between.
const READINGS: usize = 32;
/// No processor counts slower or faster than this, in kHz.
const PLAUSIBLE: std::ops::Range<u128> = 100_000..20_000_000;

/// Prints the rate in kHz. Ends with 1 and a line on standard error where the counter does not count as one.
pub fn main() -> Result<ExitCode> {
    let (began, from) = read();
    sleep(BETWEEN);
    let (ended, to) = read();
    let elapsed = ended.duration_since(began).as_nanos().max(1);
    let khz = u128::from(to.wrapping_sub(from)) * 1_000_000 / elapsed;
    ensure!(PLAUSIBLE.contains(&khz), "the processor's time stamp counter counts with {khz} kHz, which cannot be");
    println!("{khz}");
    Ok(ExitCode::SUCCESS)
}

/// The clock and the counter at one moment.
fn read() -> (Instant, u64) {
    let readings = (0..READINGS).map(|_| {
        // SAFETY: every x86-64 processor has the instruction, and Linux lets programs use it.
        let before = unsafe { _rdtsc() };
        let now = Instant::now();
        // SAFETY: likewise.
        let after = unsafe { _rdtsc() };
        (after.wrapping_sub(before), now, before)
    });
    let best = readings.min_by_key(|(width, _, _)| *width);
    best.map_or_else(|| (Instant::now(), 0), |(width, now, before)| (now, before.wrapping_add(width / 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_goes_with_the_clock() {
        let (began, from) = read();
        let (ended, to) = read();
        assert!(ended >= began && to.wrapping_sub(from) < u64::MAX / 2);
    }
}
