//! What a process may use, and how it is scheduled.

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::attributes::Proc;
use crate::error::{Context, Failure, Result};
use crate::spec::{IoPriority, Process, Rlimit, Scheduler};
use crate::sys;

/// The number of a limit's name: RLIMIT_*.
fn resource(name: &str) -> Result<libc::__rlimit_resource_t> {
    Ok(match name {
        "RLIMIT_AS" => libc::RLIMIT_AS,
        "RLIMIT_CORE" => libc::RLIMIT_CORE,
        "RLIMIT_CPU" => libc::RLIMIT_CPU,
        "RLIMIT_DATA" => libc::RLIMIT_DATA,
        "RLIMIT_FSIZE" => libc::RLIMIT_FSIZE,
        "RLIMIT_LOCKS" => libc::RLIMIT_LOCKS,
        "RLIMIT_MEMLOCK" => libc::RLIMIT_MEMLOCK,
        "RLIMIT_MSGQUEUE" => libc::RLIMIT_MSGQUEUE,
        "RLIMIT_NICE" => libc::RLIMIT_NICE,
        "RLIMIT_NOFILE" => libc::RLIMIT_NOFILE,
        "RLIMIT_NPROC" => libc::RLIMIT_NPROC,
        "RLIMIT_RSS" => libc::RLIMIT_RSS,
        "RLIMIT_RTPRIO" => libc::RLIMIT_RTPRIO,
        "RLIMIT_RTTIME" => libc::RLIMIT_RTTIME,
        "RLIMIT_SIGPENDING" => libc::RLIMIT_SIGPENDING,
        "RLIMIT_STACK" => libc::RLIMIT_STACK,
        _ => {
            return Err(Failure::unsupported(format!(
                "process.rlimits: unknown type {name}"
            )));
        }
    })
}

/// Sets process.rlimits of a process that is set up. From the agent, since a user namespace has no right to raise them.
pub fn set_rlimits(pid: i32, limits: &[Rlimit]) -> Result<()> {
    for limit in limits {
        let what = || {
            format!(
                "process.rlimits: {} soft {} hard {}",
                limit.r#type, limit.soft, limit.hard
            )
        };
        prlimit(pid, resource(&limit.r#type)?, limit.soft, limit.hard).context(what)?;
    }
    Ok(())
}

/// What a container's process may open where its spec does not say: as systemd has it.
pub fn set_default_rlimits() -> Result<()> {
    prlimit(0, libc::RLIMIT_NOFILE, 1024, 524_288).context(|| "set the limit of open files")
}

/// What the agent itself may open: several descriptors for each process.
pub fn set_own_rlimits() -> Result<()> {
    prlimit(0, libc::RLIMIT_NOFILE, 65_536, 524_288).context(|| "set the limit of open files")
}

fn prlimit(pid: i32, resource: libc::__rlimit_resource_t, soft: u64, hard: u64) -> nix::Result<()> {
    let value = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: `value` outlives the call, and nothing is written back.
    let result = unsafe { libc::prlimit(pid, resource, &raw const value, std::ptr::null_mut()) };
    nix::errno::Errno::result(result).map(drop)
}

/// Sets process.oomScoreAdj.
pub fn set_oom_score_adj(process: &Process, proc: &Proc) -> Result<()> {
    let Some(score) = process.oom_score_adj else {
        return Ok(());
    };
    proc.write("self/oom_score_adj", &score.to_string())
        .context(|| format!("process.oomScoreAdj: {score}"))
}

/// Sets process.scheduler.
pub fn set_scheduler(process: &Process) -> Result<()> {
    let Some(scheduler) = &process.scheduler else {
        return Ok(());
    };
    let attributes = scheduler_attributes(scheduler)?;
    sys::set_scheduler(&attributes).context(|| format!("process.scheduler: {}", scheduler.policy))
}

fn scheduler_attributes(scheduler: &Scheduler) -> Result<libc::sched_attr> {
    let policy = match scheduler.policy.as_str() {
        "SCHED_OTHER" => libc::SCHED_OTHER,
        "SCHED_FIFO" => libc::SCHED_FIFO,
        "SCHED_RR" => libc::SCHED_RR,
        "SCHED_BATCH" => libc::SCHED_BATCH,
        "SCHED_IDLE" => libc::SCHED_IDLE,
        "SCHED_DEADLINE" => libc::SCHED_DEADLINE,
        other => {
            return Err(Failure::unsupported(format!(
                "process.scheduler: unknown policy {other:?}"
            )));
        }
    };
    let mut flags = 0;
    for flag in &scheduler.flags {
        flags |= match flag.as_str() {
            "SCHED_FLAG_RESET_ON_FORK" => 0x01,
            "SCHED_FLAG_RECLAIM" => 0x02,
            "SCHED_FLAG_DL_OVERRUN" => 0x04,
            "SCHED_FLAG_KEEP_POLICY" => 0x08,
            "SCHED_FLAG_KEEP_PARAMS" => 0x10,
            "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
            "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
            other => {
                return Err(Failure::unsupported(format!(
                    "process.scheduler: unknown flag {other:?}"
                )));
            }
        };
    }
    Ok(libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: policy as u32,
        sched_flags: flags,
        sched_nice: scheduler.nice,
        sched_priority: scheduler.priority as u32,
        sched_runtime: scheduler.runtime,
        sched_deadline: scheduler.deadline,
        sched_period: scheduler.period,
    })
}

/// Sets process.ioPriority.
pub fn set_io_priority(process: &Process) -> Result<()> {
    let Some(IoPriority { class, priority }) = &process.io_priority else {
        return Ok(());
    };
    let number = match class.as_str() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => {
            return Err(Failure::unsupported(format!(
                "process.ioPriority: unknown class {other:?}"
            )));
        }
    };
    if *priority > 7 {
        return Err(Failure::unsupported(format!(
            "process.ioPriority: expected 0 to 7, got {priority}"
        )));
    }
    sys::set_io_priority(number, *priority)
        .context(|| format!("process.ioPriority: {class} {priority}"))
}

/// Binds the process to processors of a list such as "0-3,7"; an empty list leaves it as it is.
pub fn set_affinity(list: &str) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    let what = || format!("process.execCPUAffinity: {list:?}");
    let mut set = CpuSet::new();
    for cpu in parse_cpus(list).ok_or_else(|| Failure::unsupported(what()))? {
        set.set(cpu).context(what)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).map_err(|errno| match errno {
        Errno::EINVAL => Failure::unsupported(format!(
            "{}: the container has none of these processors in its virtual machine",
            what()
        )),
        errno => Failure::other(format!("{}: {errno}", what())),
    })
}

fn parse_cpus(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part
            .trim()
            .split_once('-')
            .unwrap_or((part.trim(), part.trim()));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= CpuSet::count() {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_that_are_not_there_are_named() {
        assert_eq!(
            set_affinity("1023"),
            Err(Failure::unsupported(
                "process.execCPUAffinity: \"1023\": the container has none of these processors in its virtual machine"
            ))
        );
    }

    #[test]
    fn lists_of_processors() {
        assert_eq!(parse_cpus("0-2, 7"), Some(vec![0, 1, 2, 7]));
        assert_eq!(parse_cpus("3-1"), None);
        assert_eq!(parse_cpus("0-99999999"), None);
        assert_eq!(parse_cpus("x"), None);
    }

    #[test]
    fn unknown_names_are_refused() {
        assert_eq!(
            resource("RLIMIT_MOON"),
            Err(Failure::unsupported(
                "process.rlimits: unknown type RLIMIT_MOON"
            ))
        );
        let scheduler = Scheduler {
            policy: "SCHED_MOON".into(),
            ..Scheduler::default()
        };
        let failure = scheduler_attributes(&scheduler)
            .map(drop)
            .expect_err("a failure");
        assert_eq!(
            failure.message,
            "process.scheduler: unknown policy \"SCHED_MOON\""
        );
    }
}
