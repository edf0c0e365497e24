//! From a seccomp profile to a filter.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::newest;
use super::profile::{Profile, SyscallArgument};

const EPERM: u32 = libc::EPERM as u32;

/// The profile's filter as the kernel takes it. What cannot be carried out is an error that names it.
pub fn compile(profile: &Profile) -> Result<Vec<libc::sock_filter>> {
    let program = export(&build(profile)?).context("linux.seccomp: cannot make the filter")?;
    if !newest::wants_stub(profile) {
        return Ok(program);
    }
    Ok(newest::prepend_stub(&newest::newest_of(profile), &program))
}

/// The profile's flags, as seccomp(2) has them.
pub fn flags(profile: &Profile) -> Result<u64> {
    profile.flags.iter().try_fold(0, |flags, name| {
        let flag = flag(name).with_context(|| format!("linux.seccomp.flags: unknown value {name:?}"))?;
        Ok(flags | flag)
    })
}

/// The filter as the kernel takes it.
fn export(filter: &ScmpFilterContext) -> io::Result<Vec<libc::sock_filter>> {
    let mut file = File::from(memfd_create(c"seccomp", MFdFlags::MFD_CLOEXEC)?);
    filter.export_bpf(&file).map_err(io::Error::other)?;
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes
        .chunks_exact(8)
        .map(|step| libc::sock_filter {
            code: u16::from_ne_bytes([step[0], step[1]]),
            jt: step[2],
            jf: step[3],
            k: u32::from_ne_bytes([step[4], step[5], step[6], step[7]]),
        })
        .collect())
}

fn build(profile: &Profile) -> Result<ScmpFilterContext> {
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let mut filter = ScmpFilterContext::new(default).context("linux.seccomp: begin a filter")?;
    for name in &profile.architectures {
        let arch = ScmpArch::from_str(name).ok().with_context(|| format!("linux.seccomp.architectures: unknown value {name:?}"))?;
        filter.add_arch(arch).with_context(|| format!("linux.seccomp.architectures: {name}"))?;
    }
    for rule in &profile.syscalls {
        let action = action(&rule.action, rule.errno_ret)?;
        if action == default {
            // libseccomp refuses rules that say what is so anyway.
            continue;
        }
        for name in &rule.names {
            add_rule(&mut filter, name, action, &rule.args)?;
        }
    }
    Ok(filter)
}

/// A flag of seccomp(2) by the spec's name.
fn flag(name: &str) -> Option<u64> {
    Some(match name {
        "SECCOMP_FILTER_FLAG_TSYNC" => libc::SECCOMP_FILTER_FLAG_TSYNC,
        "SECCOMP_FILTER_FLAG_LOG" => libc::SECCOMP_FILTER_FLAG_LOG,
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        // Is of effect only together with a listener, which there is none of, and the kernel refuses it without.
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => 0,
        _ => return None,
    })
}

/// One system call by name; names that this architecture does not have are passed over, as runc does.
fn add_rule(filter: &mut ScmpFilterContext, name: &str, action: ScmpAction, arguments: &[SyscallArgument]) -> Result<()> {
    let Ok(syscall) = ScmpSyscall::from_name(name) else {
        return Ok(());
    };
    let what = || format!("linux.seccomp: rule for {name}");
    let compares = arguments.iter().map(compare).collect::<Result<Vec<_>>>()?;
    let repeated = arguments.iter().enumerate().any(|(at, one)| arguments[..at].iter().any(|other| other.index == one.index));
    if compares.is_empty() {
        filter.add_rule(action, syscall).map(drop).with_context(what)
    } else if repeated {
        // A filter's rule compares each argument once. As runc: then the conditions are alternatives.
        for compare in compares {
            filter.add_rule_conditional(action, syscall, &[compare]).with_context(what)?;
        }
        Ok(())
    } else {
        filter.add_rule_conditional(action, syscall, &compares).map(drop).with_context(what)
    }
}

fn compare(argument: &SyscallArgument) -> Result<ScmpArgCompare> {
    let operator = match argument.op.as_str() {
        "SCMP_CMP_NE" => ScmpCompareOp::NotEqual,
        "SCMP_CMP_LT" => ScmpCompareOp::Less,
        "SCMP_CMP_LE" => ScmpCompareOp::LessOrEqual,
        "SCMP_CMP_EQ" => ScmpCompareOp::Equal,
        "SCMP_CMP_GE" => ScmpCompareOp::GreaterEqual,
        "SCMP_CMP_GT" => ScmpCompareOp::Greater,
        "SCMP_CMP_MASKED_EQ" => ScmpCompareOp::MaskedEqual(argument.value),
        other => {
            bail!("linux.seccomp: unknown operator {other:?}");
        }
    };
    if argument.index > 5 {
        bail!("linux.seccomp: argument {}: expected 0 to 5", argument.index);
    }
    let datum = if argument.op == "SCMP_CMP_MASKED_EQ" { argument.value_two } else { argument.value };
    Ok(ScmpArgCompare::new(argument.index, operator, datum))
}

fn action(name: &str, errno: Option<u32>) -> Result<ScmpAction> {
    let number = errno.unwrap_or(EPERM);
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => ScmpAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => ScmpAction::KillProcess,
        "SCMP_ACT_TRAP" => ScmpAction::Trap,
        "SCMP_ACT_ERRNO" => ScmpAction::Errno(number as i32),
        "SCMP_ACT_TRACE" => ScmpAction::Trace(number as u16),
        "SCMP_ACT_ALLOW" => ScmpAction::Allow,
        "SCMP_ACT_LOG" => ScmpAction::Log,
        _ => {
            bail!("linux.seccomp: unknown action {name:?}");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_json(json: &str) -> Result<usize, String> {
        let profile: Profile = serde_json::from_str(json).expect("a profile");
        let flags = flags(&profile).map_err(|error| error.to_string())?;
        assert!(flags == 0 || flags == libc::SECCOMP_FILTER_FLAG_LOG, "{flags}");
        compile(&profile).map(|program| program.len()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_filter_of_rules_is_built() {
        let json = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [{"names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
                {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
                    {"index": 0, "value": 1, "op": "SCMP_CMP_GT"}, {"index": 0, "value": 9, "op": "SCMP_CMP_LT"}]}]}"#;
        assert!(try_json(json).is_ok_and(|steps| steps > 10));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let refused = [
            (r#"{"defaultAction": "MOON"}"#, r#"linux.seccomp: unknown action "MOON""#),
            (r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["MOON"]}"#, r#"linux.seccomp.flags: unknown value "MOON""#),
            (r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["MOON"]}"#, r#"linux.seccomp.architectures: unknown value "MOON""#),
        ];
        for (json, message) in refused {
            assert_eq!(try_json(json), Err(message.to_owned()));
        }
    }
}
