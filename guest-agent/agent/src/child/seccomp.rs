//! The seccomp filter.

use crate::error::{Context, Failure, Result};
use crate::spec::Seccomp;
use crate::sys;

/// The bytes of struct sock_filter.
const INSTRUCTION: usize = 8;

/// Puts the filter in force; it then holds for the program too.
pub fn load(seccomp: &Seccomp) -> Result<()> {
    let program = decode(&seccomp.program)?;
    sys::load_seccomp(&program, seccomp.flags.into()).context(|| "linux.seccomp: load the filter")
}

/// Refuses what is no program, before anything is made.
pub fn check(seccomp: &Seccomp) -> Result<()> {
    decode(&seccomp.program).map(drop)
}

fn decode(program: &str) -> Result<Vec<libc::sock_filter>> {
    let bytes = program.as_bytes().chunks(2).map(byte);
    let bytes: Option<Vec<u8>> = bytes.collect();
    let bytes = bytes.filter(|bytes| !bytes.is_empty() && bytes.len() % INSTRUCTION == 0);
    let bytes = bytes.ok_or_else(|| {
        Failure::invalid("linux.seccomp.program: expected instructions in hexadecimal digits")
    })?;
    Ok(bytes.chunks_exact(INSTRUCTION).map(instruction).collect())
}

fn instruction(bytes: &[u8]) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::from_le_bytes([bytes[0], bytes[1]]),
        jt: bytes[2],
        jf: bytes[3],
        k: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    }
}

fn byte(digits: &[u8]) -> Option<u8> {
    let &[high, low] = digits else { return None };
    Some(nibble(high)? << 4 | nibble(low)?)
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_its_instructions() {
        let program = decode("06000000efbead0bff00010200000080").expect("a program");
        let steps: Vec<_> = program
            .iter()
            .map(|step| (step.code, step.jt, step.jf, step.k))
            .collect();
        assert_eq!(steps, [(6, 0, 0, 0x0bad_beef), (255, 1, 2, 0x8000_0000)]);
    }

    #[test]
    fn anything_else_is_refused() {
        for program in [
            "",
            "06",
            "0600000000000",
            "060000000000000x",
            "0600000000000000ff",
        ] {
            assert!(decode(program).is_err(), "{program}");
        }
    }
}
