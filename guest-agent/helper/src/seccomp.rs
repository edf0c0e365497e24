//! `husk-helper seccomp`: compiles a seccomp profile of the runtime spec (config-linux.md, "Seccomp") into what the kernel takes. Done on the
//! host, since a processor that is emulated takes a hundred times as long; libseccomp goes through all of its filter for each rule.

mod filter;
mod newest;
mod profile;

use std::fmt::Write as _;
use std::io::{Read, stdin};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use profile::Profile;

/// The longest profile that is read. Docker's own has 20 KB.
const MAX_PROFILE: u64 = 4 * 1024 * 1024;

/// What is printed.
#[derive(Serialize)]
struct Compiled {
    /// Flags of seccomp(2).
    flags: u64,
    /// Instructions, in hexadecimal digits.
    program: String,
}

/// Reads linux.seccomp as JSON on standard input, and prints the filter. Ends with 1 and a line on standard error where there can be none.
pub fn main() -> Result<ExitCode> {
    let mut json = Vec::new();
    stdin().take(MAX_PROFILE + 1).read_to_end(&mut json).context("cannot read the profile")?;
    ensure!(json.len() as u64 <= MAX_PROFILE, "linux.seccomp: expected at most {MAX_PROFILE} bytes");
    let profile: Profile = serde_json::from_slice(&json).context("linux.seccomp")?;
    let compiled = Compiled { flags: filter::flags(&profile)?, program: hexadecimal(&filter::compile(&profile)?) };
    println!("{}", serde_json::to_string(&compiled)?);
    Ok(ExitCode::SUCCESS)
}

/// struct sock_filter of linux/filter.h, one after the other, the way an x86-64 guest has them in its memory.
fn hexadecimal(program: &[libc::sock_filter]) -> String {
    program.iter().fold(String::new(), |mut text, step| {
        let [low, high] = step.code.to_le_bytes();
        for byte in [low, high, step.jt, step.jf].into_iter().chain(step.k.to_le_bytes()) {
            let _ = write!(text, "{byte:02x}"); // a string takes everything
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_written_as_they_are_in_memory() {
        let step = libc::sock_filter { code: 0x0106, jt: 1, jf: 0xff, k: 0x8000_0001 };
        assert_eq!(hexadecimal(&[step, step]), "060101ff01000080060101ff01000080");
    }
}
