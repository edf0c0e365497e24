//! System calls that are newer than a seccomp profile.
//!
//! A profile that denies by default would answer them with its own error, and C libraries fall back to older calls only where the answer
//! is ENOSYS. So, as runc does, whatever is newer than the newest call that the profile names is answered with ENOSYS, by a few
//! instructions before the filter.

use libc::{BPF_ABS, BPF_JEQ, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};
use libseccomp::{ScmpArch, ScmpSyscall};

use super::profile::Profile;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
/// Set in the numbers of the x32 ABI, which comes under the audit architecture of x86-64.
const X32_BIT: u32 = 0x4000_0000;
const RETURN_ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// The newest call that a profile names, in each of its architectures.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Newest {
    pub x86_64: Option<u32>,
    pub x86: Option<u32>,
}

/// Whether what the profile does not name is denied, with another error than ENOSYS.
pub fn wants_stub(profile: &Profile) -> bool {
    let allows = ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"];
    let is_enosys = profile.default_errno_ret == Some(libc::ENOSYS as u32);
    !allows.contains(&profile.default_action.as_str()) && !is_enosys
}

/// Looks the newest calls up.
pub fn newest_of(profile: &Profile) -> Newest {
    let names = || profile.syscalls.iter().flat_map(|rule| &rule.names);
    let newest = |arch| {
        let numbers = names().filter_map(|name| ScmpSyscall::from_name_by_arch(name, arch).ok());
        // Calls that an architecture does not have are negative.
        numbers.filter_map(|call| u32::try_from(i32::from(call)).ok()).filter(|number| number & X32_BIT == 0).max()
    };
    let has_x86 = profile.architectures.iter().any(|name| name == "SCMP_ARCH_X86");
    Newest { x86_64: newest(ScmpArch::X8664), x86: has_x86.then(|| newest(ScmpArch::X86)).flatten() }
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | BPF_K | code) as u16, jt, jf, k }
}

/// Puts the instructions before the filter.
pub fn prepend_stub(newest: &Newest, filter: &[sock_filter]) -> Vec<sock_filter> {
    let mut program = vec![statement(BPF_LD | BPF_W | BPF_ABS, ARCHITECTURE)];
    for (architecture, newest) in [(AUDIT_ARCH_X86_64, newest.x86_64), (AUDIT_ARCH_I386, newest.x86)] {
        let Some(newest) = newest else { continue };
        // Another architecture: past these five. Else, numbers above the newest, but for those of x32, end here.
        program.push(jump(BPF_JEQ, architecture, 0, 5));
        program.push(statement(BPF_LD | BPF_W | BPF_ABS, NUMBER));
        program.push(jump(BPF_JGT, X32_BIT - 1, 2, 0));
        program.push(jump(BPF_JGT, newest, 0, 1));
        program.push(statement(BPF_RET | BPF_K, RETURN_ENOSYS));
        program.push(statement(BPF_LD | BPF_W | BPF_ABS, ARCHITECTURE));
    }
    program.extend_from_slice(filter);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program answers to a call; the filter behind the stub is one instruction that answers 7.
    fn answer(newest: &Newest, architecture: u32, number: u32) -> u32 {
        let program = prepend_stub(newest, &[statement(BPF_RET | BPF_K, 7)]);
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            let code = u32::from(step.code);
            if code == BPF_RET | BPF_K {
                return step.k;
            } else if code == BPF_LD | BPF_W | BPF_ABS {
                accumulator = if step.k == NUMBER { number } else { architecture };
            } else {
                let holds = if code & BPF_JGT != 0 { accumulator > step.k } else { accumulator == step.k };
                at += usize::from(if holds { step.jt } else { step.jf });
            }
        }
    }

    #[test]
    fn what_is_newer_than_the_profile_is_not_there() {
        let newest = Newest { x86_64: Some(439), x86: Some(400) };
        assert_eq!(answer(&newest, AUDIT_ARCH_X86_64, 439), 7);
        assert_eq!(answer(&newest, AUDIT_ARCH_X86_64, 440), RETURN_ENOSYS);
        assert_eq!(answer(&newest, AUDIT_ARCH_X86_64, X32_BIT | 500), 7);
        assert_eq!(answer(&newest, AUDIT_ARCH_I386, 400), 7);
        assert_eq!(answer(&newest, AUDIT_ARCH_I386, 439), RETURN_ENOSYS);
        assert_eq!(answer(&newest, 0x1234, 9999), 7);
    }

    #[test]
    fn the_newest_call_of_a_profile() {
        let json =
            br#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read", "faccessat2", "moon"], "action": "SCMP_ACT_ALLOW"}]}"#;
        let profile: Profile = serde_json::from_slice(json).expect("a profile");
        assert_eq!(newest_of(&profile), Newest { x86_64: Some(439), x86: None });
        assert!(wants_stub(&profile));
        assert!(!wants_stub(&Profile { default_action: "SCMP_ACT_ALLOW".into(), ..Profile::default() }));
    }
}
