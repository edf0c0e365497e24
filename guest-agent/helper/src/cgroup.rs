//! Joining cgroups: the same write for cgroup v1, v2 and hosts with both.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::mount_table;

/// Moves the calling process into each cgroup. Folders are made by the supervisor, which also gives them back.
pub fn join<P: AsRef<Path>>(folders: &[P]) -> Result<()> {
    for folder in folders {
        let file = folder.as_ref().join("cgroup.procs");
        // "0" is the writer itself, whatever PID namespace it is in.
        fs::write(&file, "0").with_context(|| format!("cannot join the cgroup through {}", file.display()))?;
    }
    Ok(())
}

/// Moves another process into each cgroup.
pub fn put<P: AsRef<Path>>(pid: i32, folders: &[P]) -> Result<()> {
    for folder in folders {
        let file = folder.as_ref().join("cgroup.procs");
        fs::write(&file, pid.to_string())
            .with_context(|| format!("cannot put process {pid} into the cgroup through {}", file.display()))?;
    }
    Ok(())
}

/// The folders of a cgroup that is there already, `path` being seen from each hierarchy's root; none for "". Fails where no hierarchy has it.
pub fn find(path: &str) -> Result<Vec<PathBuf>> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let parts = Path::new(path).components().filter(|part| *part != Component::RootDir).collect::<Vec<_>>();
    ensure!(parts.iter().all(|part| matches!(part, Component::Normal(_))), "{path:?} is no path below a hierarchy's root");
    let below = parts.iter().collect::<PathBuf>();
    let hierarchies =
        mount_table::read()?.into_iter().filter(|mount| mount.whole && ["cgroup", "cgroup2"].contains(&mount.filesystem.as_str()));
    let folders = hierarchies.map(|mount| mount.point.join(&below)).filter(|folder| folder.join("cgroup.procs").exists());
    let folders = folders.collect::<Vec<_>>();
    ensure!(!folders.is_empty(), "there is no cgroup {path}: make it before the container");
    Ok(folders)
}
