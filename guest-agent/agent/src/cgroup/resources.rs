//! spec.linux.resources, which speaks of cgroup version 1, in the files of version 2. The conversions are those of runc.

use super::block_io;
use crate::error::{Failure, Result};
use crate::spec::{Cpu, Memory, Resources};

/// A value for a file of the cgroup.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    pub file: String,
    pub value: String,
    /// May be absent from the kernel, since the value asks for what is so without it.
    pub optional: bool,
}

impl Setting {
    /// A setting whose file must be there.
    pub fn new(file: impl Into<String>, value: impl ToString) -> Self {
        Setting {
            file: file.into(),
            value: value.to_string(),
            optional: false,
        }
    }

    fn unless_absent(file: &str, value: impl ToString, optional: bool) -> Self {
        Setting {
            optional,
            ..Setting::new(file, value)
        }
    }
}

/// The settings of all controllers but memory. `cpu_max`: what that file holds, since a quota and a period may come one without the other.
pub fn settings(resources: &Resources, cpu_max: &str) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    if let Some(cpu) = &resources.cpu {
        cpu_settings(cpu, cpu_max, &mut settings);
    }
    if let Some(pids) = &resources.pids
        && pids.limit != 0
    {
        settings.push(Setting::unless_absent(
            "pids.max",
            limit(pids.limit),
            pids.limit < 0,
        ));
    }
    if let Some(block_io) = &resources.block_io {
        settings.extend(block_io::settings(block_io));
    }
    for hugepages in &resources.hugepage_limits {
        let size = &hugepages.page_size;
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Failure::unsupported(format!(
                "linux.resources.hugepageLimits: no pages have the size {size:?}"
            )));
        }
        settings.push(Setting::new(format!("hugetlb.{size}.max"), hugepages.limit));
        // Reservations too, since those who were given pages are killed when they touch them. Kernels may lack it.
        settings.push(Setting::unless_absent(
            &format!("hugetlb.{size}.rsvd.max"),
            hugepages.limit,
            true,
        ));
    }
    for (device, rdma) in &resources.rdma {
        let part = |name: &str, value: Option<u32>| {
            format!(
                " {name}={}",
                value.map_or("max".into(), |value| value.to_string())
            )
        };
        let value = format!(
            "{device}{}{}",
            part("hca_handle", rdma.hca_handles),
            part("hca_object", rdma.hca_objects)
        );
        settings.push(Setting::new("rdma.max", value));
    }
    Ok(settings)
}

fn cpu_settings(cpu: &Cpu, cpu_max: &str, settings: &mut Vec<Setting>) {
    if let Some(idle) = cpu.idle {
        settings.push(Setting::new("cpu.idle", idle));
    }
    // An idle cgroup has no weight, and the kernel refuses one.
    if let Some(shares) = cpu
        .shares
        .filter(|&shares| shares != 0 && cpu.idle != Some(1))
    {
        settings.push(Setting::new("cpu.weight", weight(shares)));
    }
    if cpu.quota.is_some() || cpu.period.is_some() {
        let mut now = cpu_max.split_ascii_whitespace();
        let (old_quota, old_period) = (now.next().unwrap_or("max"), now.next().unwrap_or("100000"));
        let quota = cpu.quota.map_or(old_quota.to_owned(), |quota| {
            if quota > 0 {
                quota.to_string()
            } else {
                "max".to_owned()
            }
        });
        let period = cpu
            .period
            .filter(|&period| period > 0)
            .map_or(old_period.to_owned(), |period| period.to_string());
        settings.push(Setting::new("cpu.max", format!("{quota} {period}")));
    }
    if let Some(burst) = cpu.burst {
        settings.push(Setting::unless_absent("cpu.max.burst", burst, burst == 0));
    }
    if !cpu.cpus.is_empty() {
        settings.push(Setting::new("cpuset.cpus", &cpu.cpus));
    }
    if !cpu.mems.is_empty() {
        settings.push(Setting::new("cpuset.mems", &cpu.mems));
    }
}

/// cpu.shares (2 to 262144, usually 1024) as cpu.weight (1 to 10000, usually 100), linear as in runc 1.1 and systemd.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// The settings of the memory controller; `used`: the bytes in use, where they are known.
pub fn memory_settings(resources: &Resources, used: Option<u64>) -> Result<Vec<Setting>> {
    let Some(memory) = &resources.memory else {
        return Ok(Vec::new());
    };
    if memory.disable_oom_killer {
        return Err(Failure::unsupported(
            "linux.resources.memory.disableOOMKiller: cgroup version 2 does not have it",
        ));
    }
    let mut settings = Vec::new();
    if let (Some(wanted), true, Some(used)) = (memory.limit, memory.check_before_update, used)
        && wanted > 0
        && used > wanted as u64
    {
        return Err(Failure::other(format!(
            "memory limit {wanted}: {used} bytes are in use, and checkBeforeUpdate is set"
        )));
    }
    if let Some(swap) = swap(memory)? {
        // A kernel without swap holds every limit of it.
        settings.push(Setting::unless_absent("memory.swap.max", &swap, true));
    }
    if let Some(bytes) = memory.limit.filter(|&bytes| bytes != 0) {
        settings.push(Setting::unless_absent(
            "memory.max",
            limit(bytes),
            bytes < 0,
        ));
    }
    if let Some(bytes) = memory.reservation.filter(|&bytes| bytes != 0) {
        settings.push(Setting::unless_absent(
            "memory.low",
            if bytes < 0 {
                "max".into()
            } else {
                bytes.to_string()
            },
            false,
        ));
    }
    Ok(settings)
}

/// memory.swap.max, from memory and swap together.
fn swap(memory: &Memory) -> Result<Option<String>> {
    match (memory.swap.unwrap_or(0), memory.limit.unwrap_or(0)) {
        (0, -1) => Ok(Some("max".into())),
        (0, _) => Ok(None),
        (-1, _) => Ok(Some("max".into())),
        (swap, 0) => Err(Failure::unsupported(format!(
            "linux.resources.memory.swap: {swap} says nothing without a limit"
        ))),
        (_, -1) => Err(Failure::unsupported(
            "linux.resources.memory.swap: a limit of both needs a limit of memory",
        )),
        (swap, limit) if swap < limit => Err(Failure::unsupported(format!(
            "linux.resources.memory.swap: memory and swap together, {swap}, are less than the limit, {limit}"
        ))),
        (swap, limit) => Ok(Some((swap - limit).to_string())),
    }
}

fn limit(value: i64) -> String {
    if value < 0 {
        "max".into()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Vec<String> {
        let resources: Resources =
            crate::spec::parse("resources", json.as_bytes()).expect("resources");
        let mut all = settings(&resources, "max 100000\n").expect("settings");
        all.extend(memory_settings(&resources, None).expect("memory settings"));
        all.into_iter()
            .map(|setting| format!("{}={}", setting.file, setting.value))
            .collect()
    }

    #[test]
    fn memory_and_swap_become_two_limits() {
        assert_eq!(
            of(r#"{"memory": {"limit": 1000, "swap": 3000}}"#),
            ["memory.swap.max=2000", "memory.max=1000"]
        );
        assert_eq!(
            of(r#"{"memory": {"limit": -1}}"#),
            ["memory.swap.max=max", "memory.max=max"]
        );
        assert_eq!(
            of(r#"{"memory": {"limit": 1000, "swap": 1000}}"#),
            ["memory.swap.max=0", "memory.max=1000"]
        );
    }

    #[test]
    fn shares_become_a_weight() {
        assert_eq!(
            [weight(2), weight(1024), weight(262_144), weight(1)],
            [1, 39, 10_000, 1]
        );
    }

    #[test]
    fn quotas() {
        assert_eq!(
            of(r#"{"cpu": {"quota": 50000, "period": 100000}}"#),
            ["cpu.max=50000 100000"]
        );
        assert_eq!(of(r#"{"cpu": {"quota": -1}}"#), ["cpu.max=max 100000"]);
        assert_eq!(
            of(r#"{"cpu": {"idle": 1, "shares": 1024}}"#),
            ["cpu.idle=1"]
        );
    }

    #[test]
    fn a_quota_keeps_the_period_and_the_other_way_round() {
        let with = |json: &str| {
            let resources: Resources =
                crate::spec::parse("resources", json.as_bytes()).expect("resources");
            settings(&resources, "20000 50000\n").expect("settings")[0]
                .value
                .clone()
        };
        assert_eq!(with(r#"{"cpu": {"quota": 10000}}"#), "10000 50000");
        assert_eq!(with(r#"{"cpu": {"period": 100000}}"#), "20000 100000");
        assert_eq!(with(r#"{"cpu": {"quota": -1}}"#), "max 50000");
    }

    #[test]
    fn what_is_absent_is_left_alone() {
        assert!(of("{}").is_empty());
        assert!(of(r#"{"memory": {}, "cpu": {}, "pids": {"limit": 0}}"#).is_empty());
    }

    #[test]
    fn contradictions_are_refused() {
        let memory = Memory {
            limit: Some(10),
            swap: Some(5),
            ..Memory::default()
        };
        let message = swap(&memory).map_err(|failure| failure.message);
        assert_eq!(message, Err("linux.resources.memory.swap: memory and swap together, 5, are less than the limit, 10".into()));
    }
}
