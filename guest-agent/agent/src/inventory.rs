//! What there is in the guest besides its kernel and the agent, as lines to compare.

use std::fs;
use std::path::Path;

use crate::error::{Context, Result};

/// Folders whose contents are told, file by file.
const FOLDERS: [&str; 5] = ["/run", "/tmp", "/dev", "/dev/shm", "/dev/mqueue"];

const CGROUPS: &str = "/sys/fs/cgroup";

/// The parent of the kernel's threads, and what it says its own parent is.
const KTHREADD: &str = "2";

/// Everything, sorted. `containers`: their ids.
pub fn take(containers: &[String]) -> Result<Vec<String>> {
    let mounts =
        fs::read_to_string("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo")?;
    let mut items: Vec<String> = containers
        .iter()
        .map(|id| format!("container {id}"))
        .collect();
    items.extend(processes()?);
    items.extend(mounts.lines().filter_map(mount));
    add_folders(Path::new(CGROUPS), "cgroup", false, &mut items);
    for folder in FOLDERS {
        add_folders(Path::new(folder), "file", true, &mut items);
    }
    items.extend(
        names(Path::new("/sys/class/net"))
            .into_iter()
            .map(|name| format!("link {}", name.to_string_lossy())),
    );
    items.push(format!("watches {}", watches()?));
    items.sort();
    Ok(items)
}

/// How many times this process watches files: the kernel lets a user have some hundred.
fn watches() -> Result<usize> {
    let folder = fs::read_dir("/proc/self/fd").context(|| "read /proc/self/fd")?;
    let is_one = |entry: &fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|target| target == Path::new("anon_inode:inotify"))
    };
    Ok(folder.flatten().filter(is_one).count())
}

fn processes() -> Result<Vec<String>> {
    let folder = fs::read_dir("/proc").context(|| "read /proc")?;
    // One that ends meanwhile is left out.
    Ok(folder
        .filter_map(|entry| process(entry.ok()?.file_name().to_str()?))
        .collect())
}

fn process(pid: &str) -> Option<String> {
    pid.parse::<u32>().ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (begin, rest) = stat.rsplit_once(") ")?;
    let name = begin.split_once('(')?.1;
    let parent = rest.split(' ').nth(1)?;
    let is_kernels = parent == KTHREADD || pid == KTHREADD;
    (!is_kernels).then(|| format!("process {pid} {name}"))
}

/// A line of mountinfo (proc(5)), without its numbers.
fn mount(line: &str) -> Option<String> {
    let (left, right) = line.split_once(" - ")?;
    let point = left.split(' ').nth(4)?;
    Some(format!("mount {point} {}", right.split(' ').next()?))
}

/// What is below a folder and in the same file system; where `files` is false, the folders alone.
fn add_folders(folder: &Path, kind: &str, files: bool, items: &mut Vec<String>) {
    let device = |path: &Path| {
        fs::symlink_metadata(path)
            .ok()
            .map(|data| (std::os::unix::fs::MetadataExt::dev(&data), data.is_dir()))
    };
    let Some((own, _)) = device(folder) else {
        return;
    };
    for name in names(folder) {
        let path = folder.join(name);
        let Some((device, is_folder)) = device(&path) else {
            continue;
        };
        if files || is_folder {
            items.push(format!("{kind} {}", path.display()));
        }
        // What is mounted there is told as a mount.
        if is_folder && device == own {
            add_folders(&path, kind, files, items);
        }
    }
}

fn names(folder: &Path) -> Vec<std::ffi::OsString> {
    fs::read_dir(folder).map_or(Vec::new(), |entries| {
        entries.flatten().map(|entry| entry.file_name()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_told_by_its_point_and_kind() {
        let line = "23 22 0:5 / /proc rw,nosuid shared:3 - proc proc rw";
        assert_eq!(mount(line).as_deref(), Some("mount /proc proc"));
        assert_eq!(mount("nonsense"), None);
    }

    #[test]
    fn this_process_is_told_and_the_folders_that_it_makes() {
        let pid = std::process::id();
        let folder = std::env::temp_dir().join(format!("husk-agent-inventory-{pid}"));
        fs::create_dir_all(folder.join("a/b")).expect("make folders");
        fs::write(folder.join("a/file"), "").expect("make a file");
        let mut files = Vec::new();
        add_folders(&folder, "file", true, &mut files);
        let mut folders = Vec::new();
        add_folders(&folder, "cgroup", false, &mut folders);
        fs::remove_dir_all(&folder).expect("clean up");
        files.sort();
        let at = |kind: &str, path: &str| format!("{kind} {}/{path}", folder.display());
        assert_eq!(
            files,
            [at("file", "a"), at("file", "a/b"), at("file", "a/file")]
        );
        assert_eq!(folders, [at("cgroup", "a"), at("cgroup", "a/b")]);
        let told = processes().expect("there is /proc");
        assert!(
            told.iter()
                .any(|item| item.starts_with(&format!("process {pid} ")))
        );
    }
}
