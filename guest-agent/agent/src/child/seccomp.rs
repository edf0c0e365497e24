//! The seccomp filter.

use std::str::FromStr;

use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};

use crate::error::{Context, Failure, Result};
use crate::spec::{Seccomp, SyscallArgument};

const EPERM: u32 = libc::EPERM as u32;

/// Builds the filter and puts it in force; it then holds for the program too.
pub fn load(seccomp: &Seccomp) -> Result<()> {
    build(seccomp)?
        .load()
        .context(|| "linux.seccomp: load the filter")
}

/// Refuses what cannot be carried out, before anything is made.
pub fn check(seccomp: &Seccomp) -> Result<()> {
    build(seccomp).map(drop)
}

fn build(seccomp: &Seccomp) -> Result<ScmpFilterContext> {
    if !seccomp.listener_path.is_empty()
        || seccomp
            .syscalls
            .iter()
            .any(|rule| rule.action == "SCMP_ACT_NOTIFY")
    {
        return Err(Failure::unsupported(
            "linux.seccomp: listenerPath and SCMP_ACT_NOTIFY are not supported: the listener would be outside the virtual machine",
        ));
    }
    let default = action(&seccomp.default_action, seccomp.default_errno_ret)?;
    let mut filter = ScmpFilterContext::new(default).context(|| "linux.seccomp: begin a filter")?;
    for name in &seccomp.architectures {
        let arch = ScmpArch::from_str(name).map_err(|_| {
            Failure::unsupported(format!(
                "linux.seccomp.architectures: unknown value {name:?}"
            ))
        })?;
        filter
            .add_arch(arch)
            .context(|| format!("linux.seccomp.architectures: {name}"))?;
    }
    // no_new_privs is the process's own field, and never the filter's side effect.
    filter
        .set_ctl_nnp(false)
        .context(|| "linux.seccomp: leave no_new_privs alone")?;
    for flag in &seccomp.flags {
        set_flag(&mut filter, flag)?;
    }
    for rule in &seccomp.syscalls {
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

fn set_flag(filter: &mut ScmpFilterContext, flag: &str) -> Result<()> {
    match flag {
        // One thread: there is nothing to synchronise.
        "SECCOMP_FILTER_FLAG_TSYNC" => Ok(filter),
        "SECCOMP_FILTER_FLAG_LOG" => filter.set_ctl_log(true),
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => filter.set_ctl_ssb(true),
        // Is of effect only together with a listener, which there is none of.
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => Ok(filter),
        _ => {
            return Err(Failure::unsupported(format!(
                "linux.seccomp.flags: unknown value {flag:?}"
            )));
        }
    }
    .map(drop)
    .context(|| format!("linux.seccomp.flags: {flag}"))
}

/// One system call by name; names that this architecture does not have are passed over, as runc does.
fn add_rule(
    filter: &mut ScmpFilterContext,
    name: &str,
    action: ScmpAction,
    arguments: &[SyscallArgument],
) -> Result<()> {
    let Ok(syscall) = ScmpSyscall::from_name(name) else {
        return Ok(());
    };
    let what = || format!("linux.seccomp: rule for {name}");
    let compares = arguments.iter().map(compare).collect::<Result<Vec<_>>>()?;
    let repeated = arguments
        .iter()
        .enumerate()
        .any(|(at, one)| arguments[..at].iter().any(|other| other.index == one.index));
    if compares.is_empty() {
        filter.add_rule(action, syscall).map(drop).context(what)
    } else if repeated {
        // A filter's rule compares each argument once. As runc: then the conditions are alternatives.
        for compare in compares {
            filter
                .add_rule_conditional(action, syscall, &[compare])
                .context(what)?;
        }
        Ok(())
    } else {
        filter
            .add_rule_conditional(action, syscall, &compares)
            .map(drop)
            .context(what)
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
            return Err(Failure::unsupported(format!(
                "linux.seccomp: unknown operator {other:?}"
            )));
        }
    };
    if argument.index > 5 {
        return Err(Failure::unsupported(format!(
            "linux.seccomp: argument {}: expected 0 to 5",
            argument.index
        )));
    }
    let datum = if argument.op == "SCMP_CMP_MASKED_EQ" {
        argument.value_two
    } else {
        argument.value
    };
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
            return Err(Failure::unsupported(format!(
                "linux.seccomp: unknown action {name:?}"
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_json(json: &str) -> Result<(), String> {
        check(&crate::spec::parse("seccomp", json.as_bytes()).expect("a seccomp object"))
            .map_err(|failure| failure.message)
    }

    #[test]
    fn a_filter_of_rules_is_built() {
        let json = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [{"names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
                {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
                    {"index": 0, "value": 1, "op": "SCMP_CMP_GT"}, {"index": 0, "value": 9, "op": "SCMP_CMP_LT"}]}]}"#;
        assert_eq!(check_json(json), Ok(()));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        assert_eq!(
            check_json(r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}"#),
            Err("linux.seccomp: listenerPath and SCMP_ACT_NOTIFY are not supported: the listener would be outside the virtual machine".into())
        );
        assert_eq!(
            check_json(r#"{"defaultAction": "MOON"}"#),
            Err("linux.seccomp: unknown action \"MOON\"".into())
        );
        assert_eq!(
            check_json(r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["MOON"]}"#),
            Err("linux.seccomp.flags: unknown value \"MOON\"".into())
        );
    }
}
