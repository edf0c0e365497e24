//! Cgroups, version 2: one below /husk for each container.

mod block_io;
mod device_filter;
mod device_rules;
mod events;
mod resources;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use events::CgroupEvents;

use crate::error::{Context, Failure, Result};
use crate::spec::Resources;

const ROOT: &str = "/sys/fs/cgroup";
const PARENT: &str = "/sys/fs/cgroup/husk";

/// Makes the parent of all containers' cgroups, with all controllers. Once, before the first container.
pub fn prepare() -> Result<()> {
    enable_controllers(Path::new(ROOT))?;
    fs::create_dir(PARENT).context(|| format!("make the cgroup {PARENT}"))?;
    enable_controllers(Path::new(PARENT))
}

/// Gets ready what most containers' cgroups will have: once the devices of the machine have their drivers.
pub fn anticipate() -> Result<()> {
    device_filter::keep(device_rules::complete(&[])?)
}

/// Hands all controllers of a cgroup down to the cgroups in it.
fn enable_controllers(folder: &Path) -> Result<()> {
    let what = |file: &str| format!("{}/{file}", folder.display());
    let controllers = fs::read_to_string(folder.join("cgroup.controllers"))
        .context(|| what("cgroup.controllers"))?;
    let all: Vec<String> = controllers
        .split_ascii_whitespace()
        .map(|name| format!("+{name}"))
        .collect();
    // In one go, since each change stops the world of cgroups.
    fs::write(folder.join("cgroup.subtree_control"), all.join(" "))
        .context(|| what("cgroup.subtree_control"))
}

/// A container's cgroup.
#[derive(Debug)]
pub struct Cgroup {
    folder: PathBuf,
    /// The program that says which devices may be used; replaced as a whole by an update.
    devices: std::sync::Mutex<Option<Arc<OwnedFd>>>,
}

impl Cgroup {
    /// Makes the cgroup of a container, with the limits of its spec.
    pub fn create(id: &str, resources: &Resources) -> Result<Self> {
        let folder = Path::new(PARENT).join(id);
        fs::create_dir(&folder).context(|| format!("make the cgroup {}", folder.display()))?;
        let cgroup = Cgroup {
            folder,
            devices: std::sync::Mutex::new(None),
        };
        let limited = cgroup
            .set_devices(resources.devices.as_deref().unwrap_or_default())
            .and_then(|()| cgroup.update(resources));
        limited.inspect_err(|_| {
            // Nothing is in it yet.
            let _ = fs::remove_dir(&cgroup.folder);
        })?;
        Ok(cgroup)
    }

    /// Its folder in the cgroup file system.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Applies limits; what is absent stays as it is.
    pub fn update(&self, resources: &Resources) -> Result<()> {
        let cpu_max = match resources.cpu {
            Some(_) => fs::read_to_string(self.folder.join("cpu.max")).unwrap_or_default(),
            None => String::new(),
        };
        for setting in resources::settings(resources, &cpu_max)? {
            self.write(&setting.file, &setting.value, setting.optional)?;
        }
        let used = resources.memory.as_ref().and_then(|_| self.memory_in_use());
        for setting in resources::memory_settings(resources, used)? {
            self.write(&setting.file, &setting.value, setting.optional)?;
        }
        for (file, value) in &resources.unified {
            if file.contains('/') || file.starts_with("cgroup.") {
                return Err(Failure::unsupported(format!(
                    "linux.resources.unified: {file} is not for a container to set"
                )));
            }
            self.write(file, value, false)?;
        }
        Ok(())
    }

    /// Replaces the rules of device access.
    pub fn set_devices(&self, rules: &[crate::spec::DeviceRule]) -> Result<()> {
        let rules = device_rules::complete(rules)?;
        let mut current = self
            .devices
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *current = Some(device_filter::attach(
            &self.folder,
            &rules,
            current.as_deref(),
        )?);
        Ok(())
    }

    fn memory_in_use(&self) -> Option<u64> {
        fs::read_to_string(self.folder.join("memory.current"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    fn write(&self, file: &str, value: &str, optional: bool) -> Result<()> {
        // Not fs::write: it would make the file, and where the kernel has none, that is EACCES.
        let written = OpenOptions::new()
            .write(true)
            .open(self.folder.join(file))
            .and_then(|mut file| file.write_all(value.as_bytes()));
        match written {
            // The kernel has no such controller, and the setting asks for what is so anyway.
            Err(error) if optional && error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::unsupported(
                format!("cgroup {file}: the guest's kernel does not have it"),
            )),
            result => result.context(|| format!("write {value:?} to the cgroup's {file}")),
        }
    }

    /// Kills everything in it.
    pub fn kill(&self) -> Result<()> {
        fs::write(self.folder.join("cgroup.kill"), "1").context(|| "kill the cgroup")
    }

    /// Asks for all processes to be stopped, or to go on; [`CgroupEvents::reached`] tells when it is so.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        fs::write(
            self.folder.join("cgroup.freeze"),
            if frozen { "1" } else { "0" },
        )
        .context(|| "write cgroup.freeze")
    }

    /// The processes in it and in all cgroups below.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            match fs::read_to_string(folder.join("cgroup.procs")) {
                Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
                // The container removed it meanwhile.
                Err(error)
                    if error.raw_os_error() == Some(libc::ENODEV)
                        || error.kind() == io::ErrorKind::NotFound =>
                {
                    continue;
                }
                // A threaded cgroup has no processes of its own.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                Err(error) => {
                    return Err(Failure::other(format!(
                        "read {}/cgroup.procs: {error}",
                        folder.display()
                    )));
                }
            }
            folders.extend(children(&folder));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// The number behind a key of a file such as memory.events; 0 where there is none.
    pub fn counter(&self, file: &str, key: &str) -> u64 {
        let text = fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        counter(&text, key)
    }

    /// Removes it with all cgroups below. They must be empty of processes.
    pub fn remove(&self) -> Result<()> {
        remove_tree(&self.folder).context(|| format!("remove the cgroup {}", self.folder.display()))
    }
}

fn counter(text: &str, key: &str) -> u64 {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    for child in children(folder) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_whole_name() {
        let text = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(counter(text, "oom"), 3);
        assert_eq!(counter(text, "oom_kill"), 2);
        assert_eq!(counter(text, "absent"), 0);
    }
}
