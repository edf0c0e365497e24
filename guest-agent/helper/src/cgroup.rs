//! Joining cgroups: the same write for cgroup v1, v2 and hosts with both.

use std::path::Path;

use anyhow::{Context, Result};

/// Moves the calling process into each cgroup. Folders are made by the supervisor, which also gives them back.
pub fn join<P: AsRef<Path>>(folders: &[P]) -> Result<()> {
    for folder in folders {
        let file = folder.as_ref().join("cgroup.procs");
        // "0" is the writer itself, whatever PID namespace it is in.
        std::fs::write(&file, "0").with_context(|| format!("cannot join the cgroup through {}", file.display()))?;
    }
    Ok(())
}
