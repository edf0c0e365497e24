//! Namespaces: which ones a container gets, makes or joins.

use std::os::fd::AsFd;

use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Context, Failure, Result};
use crate::spec::Linux;
use crate::sys;

/// nix has no name for it.
pub const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// The clone(2) flag of a namespace type of the spec.
pub fn flag(kind: &str) -> Result<CloneFlags> {
    Ok(match kind {
        "pid" => CloneFlags::CLONE_NEWPID,
        "network" => CloneFlags::CLONE_NEWNET,
        "mount" => CloneFlags::CLONE_NEWNS,
        "ipc" => CloneFlags::CLONE_NEWIPC,
        "uts" => CloneFlags::CLONE_NEWUTS,
        "user" => CloneFlags::CLONE_NEWUSER,
        "cgroup" => CloneFlags::CLONE_NEWCGROUP,
        "time" => CLONE_NEWTIME,
        _ => {
            return Err(Failure::unsupported(format!(
                "linux.namespaces: unknown type {kind}"
            )));
        }
    })
}

/// The namespaces that a container does not share with the agent: those that its spec lists, a mount and a PID namespace always (the latter
/// may be shared with other containers), and never a network namespace, since the guest's network is the container's.
pub fn of(linux: &Linux) -> Result<CloneFlags> {
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    for namespace in &linux.namespaces {
        flags |= flag(&namespace.r#type)?;
    }
    Ok(flags - CloneFlags::CLONE_NEWNET)
}

/// Joins namespaces of another process.
pub fn join(pid: i32, flags: CloneFlags) -> Result<()> {
    if flags.is_empty() {
        return Ok(());
    }
    let process =
        sys::open_pidfd(pid).context(|| format!("open process {pid} to join its namespaces"))?;
    setns(process.as_fd(), flags)
        .context(|| format!("join the namespaces of process {pid} ({flags:?})"))
}

/// Makes new namespaces.
pub fn make(flags: CloneFlags) -> Result<()> {
    unshare(flags).context(|| format!("make new namespaces ({flags:?})"))
}

/// Shifts the clocks of the time namespace that the next child will be in.
pub fn set_time_offsets(linux: &Linux) -> Result<()> {
    let mut lines = String::new();
    for (clock, offset) in &linux.time_offsets {
        if !["monotonic", "boottime"].contains(&clock.as_str()) {
            return Err(Failure::unsupported(format!(
                "linux.timeOffsets: unknown clock {clock}"
            )));
        }
        lines += &format!("{clock} {} {}\n", offset.secs, offset.nanosecs);
    }
    if lines.is_empty() {
        return Ok(());
    }
    std::fs::write("/proc/self/timens_offsets", lines)
        .context(|| "write the time namespace's offsets")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linux(json: &str) -> Linux {
        crate::spec::parse("linux", json.as_bytes()).expect("a linux object")
    }

    #[test]
    fn mounts_and_processes_are_never_the_agents_and_the_network_always() {
        let flags = of(&linux(r#"{"namespaces": [{"type": "network"}]}"#));
        assert_eq!(
            flags,
            Ok(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)
        );
    }

    #[test]
    fn an_unknown_namespace_is_refused() {
        let failure = of(&linux(r#"{"namespaces": [{"type": "moon"}]}"#)).expect_err("a failure");
        assert_eq!(
            failure,
            Failure::unsupported("linux.namespaces: unknown type moon")
        );
    }
}
