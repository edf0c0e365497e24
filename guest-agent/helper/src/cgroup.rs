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

/// Moves a process into the cgroups of another one, in each hierarchy that is mounted and in which they differ.
pub fn follow(pid: i32, leader: i32) -> Result<()> {
    let read =
        |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).with_context(|| format!("cannot read the cgroups of process {pid}"));
    let (own, wanted) = (read(pid)?, read(leader)?);
    let mounts = mount_table::read()?;
    for line in wanted.lines().filter(|line| !own.lines().any(|own| own == *line)) {
        let Some(folder) = folder_of(line, &mounts) else { continue };
        let file = folder.join("cgroup.procs");
        fs::write(&file, pid.to_string())
            .with_context(|| format!("cannot put process {pid} into the cgroup through {}", file.display()))?;
    }
    Ok(())
}

/// The folder that a line of /proc/PID/cgroup means (cgroups(7)); nothing where it cannot be seen.
fn folder_of(line: &str, mounts: &[mount_table::Mount]) -> Option<PathBuf> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let controller = controllers.split(',').next().unwrap_or_default();
    let is_its = |mount: &&mount_table::Mount| match mount.filesystem.as_str() {
        "cgroup2" => controllers.is_empty(),
        "cgroup" => !controllers.is_empty() && mount.options.split(',').any(|option| option == controller),
        _ => false,
    };
    let mount = mounts.iter().filter(|mount| mount.whole).find(is_its)?;
    let below = Path::new(path.strip_prefix('/')?);
    below.components().all(|part| matches!(part, Component::Normal(_))).then(|| mount.point.join(below))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount_table::Mount;

    #[test]
    fn a_line_of_a_process_is_a_folder_of_its_hierarchy() {
        let mount = |point: &str, filesystem: &str, options: &str| Mount {
            point: point.into(),
            whole: true,
            filesystem: filesystem.into(),
            options: options.into(),
        };
        let mounts = [
            mount("/c/cpu", "cgroup", "rw,cpu,cpuacct"),
            mount("/c/systemd", "cgroup", "rw,xattr,name=systemd"),
            mount("/c/unified", "cgroup2", "rw"),
            mount("/tmp", "tmpfs", "rw"),
        ];
        for (line, expected) in [
            ("2:cpu,cpuacct:/a/b", Some("/c/cpu/a/b")),
            ("1:name=systemd:/a:b", Some("/c/systemd/a:b")),
            ("0::/", Some("/c/unified/")),
            ("3:memory:/a", None),
            ("0::/../outside", None),
            ("nonsense", None),
        ] {
            assert_eq!(folder_of(line, &mounts).as_deref(), expected.map(Path::new), "{line}");
        }
    }
}
