//! What a container and the guest use.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::api::StatsContainerResponse;
use crate::error::{Context, Result};

/// The controllers' files that tell, and not those that are only written, nor those for programs that wait.
const PREFIXES: [&str; 7] = [
    "cpu.", "cpuset.", "memory.", "io.", "pids.", "hugetlb.", "rdma.",
];
const MAX_FILE: usize = 64 * 1024;

/// The cgroup's files, and the guest's memory.
pub fn of(cgroup: &Path) -> Result<StatsContainerResponse> {
    let mut files = HashMap::new();
    for entry in fs::read_dir(cgroup)
        .context(|| format!("list {}", cgroup.display()))?
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let tells = PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || name == "cgroup.stat";
        if !tells {
            continue;
        }
        // Files that are only to be written, or whose device is not there, say so when they are read.
        if let Ok(text) = fs::read_to_string(entry.path())
            && text.len() <= MAX_FILE
        {
            files.insert(name, text);
        }
    }
    let memory = fs::read_to_string("/proc/meminfo").context(|| "read /proc/meminfo")?;
    let own = fs::read_to_string("/proc/self/status").context(|| "read /proc/self/status")?;
    Ok(StatsContainerResponse {
        files,
        guest_memory_total_bytes: bytes(&memory, "MemTotal:"),
        guest_memory_available_bytes: bytes(&memory, "MemAvailable:"),
        agent_resident_bytes: bytes(&own, "VmRSS:"),
    })
}

/// The number of a line "KEY 123 kB", in bytes; 0 where there is none.
pub fn bytes(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kilobytes_become_bytes() {
        assert_eq!(
            bytes("MemTotal:       2048 kB\nMemFree: 1 kB\n", "MemTotal:"),
            2_097_152
        );
        assert_eq!(bytes("x", "MemTotal:"), 0);
    }
}
