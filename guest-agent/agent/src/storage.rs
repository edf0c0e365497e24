//! File systems that the host makes visible: shared folders, block devices, memory.

pub mod share;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount as mount_call, umount2};

use crate::api;
use crate::child::{self, MountOptions};
use crate::error::{Class, Context, Failure, Result};
use crate::folders::{CONTAINERS, OVERLAYS};
use crate::sandbox::Sandbox;
use crate::{sys, uevent};

/// A device that was plugged in is there within this.
const DEVICE_LIMIT: Duration = Duration::from_secs(30);

/// What is read at once, in KiB, as the kernel is told.
const READ_AHEAD_KIB: &str = "512";

/// A mount to be undone.
#[derive(Debug)]
pub struct Mounted {
    mount_point: PathBuf,
    /// A folder that was made for it.
    remove: bool,
}

/// Mounts storages in order. On failure nothing is left.
pub async fn mount(
    sandbox: &Sandbox,
    container_id: &str,
    storages: Vec<api::Storage>,
) -> Result<Vec<Mounted>> {
    let mut mounts = Vec::new();
    for (index, storage) in storages.into_iter().enumerate() {
        let what = format!(
            "storage {} {:?} on {:?}",
            storage.driver, storage.source, storage.mount_point
        );
        let overlay = format!("{OVERLAYS}/{container_id}-{index}");
        if let Err(failure) = mount_one(sandbox, storage, overlay, &mut mounts).await {
            let failure = Failure::new(failure.class, format!("{what}: {failure}"));
            if let Err(second) = unmount(mounts).await {
                crate::console::log(second);
            }
            return Err(failure);
        }
    }
    Ok(mounts)
}

async fn mount_one(
    sandbox: &Sandbox,
    storage: api::Storage,
    overlay: String,
    mounts: &mut Vec<Mounted>,
) -> Result<()> {
    check_mount_point(&storage.mount_point)?;
    let options = MountOptions::parse(
        if storage.driver == "virtiofs" {
            "bind"
        } else {
            ""
        },
        &storage.options,
    )?;
    let device = match storage.driver.as_str() {
        "block" => Some(find_block_device(sandbox, &storage.source).await?),
        "virtiofs" | "ephemeral" => None,
        other => {
            return Err(Failure::unsupported(format!(
                "driver: unknown value {other:?}"
            )));
        }
    };
    let mount_point = storage.mount_point.clone();
    let (with_overlay, of_device) = (storage.overlay, device.is_some());
    blocking(move || attach(&storage, device.as_deref(), &options)).await?;
    mounts.push(Mounted {
        mount_point: mount_point.clone().into(),
        remove: true,
    });
    if of_device {
        read_further_ahead(&mount_point)?;
    }
    if with_overlay {
        mounts.extend(blocking(move || put_overlay(&mount_point, &overlay)).await?);
    }
    Ok(())
}

fn attach(storage: &api::Storage, device: Option<&Path>, options: &MountOptions) -> Result<()> {
    let failed = Class::MountFailed;
    let tree = match (storage.driver.as_str(), device) {
        ("virtiofs", _) => {
            let tree =
                child::clone_source(&storage.source, true).class(failed, || "open the source")?;
            sys::set_mount(&tree, options.attributes, false).class(failed, || "set the flags")?;
            tree
        }
        (_, Some(device)) => {
            child::make_filesystem(&storage.fstype, &device.to_string_lossy(), options)?
        }
        _ => child::make_filesystem("tmpfs", "tmpfs", options)?,
    };
    // A single file is bound to a file.
    let is_folder = nix::sys::stat::fstat(&tree)
        .class(failed, || "look at the source")?
        .st_mode
        & libc::S_IFMT
        == libc::S_IFDIR;
    let point = Path::new(&storage.mount_point);
    if is_folder {
        fs::create_dir_all(point).class(failed, || "make the mount point")?;
    } else {
        if let Some(folder) = point.parent() {
            fs::create_dir_all(folder).class(failed, || "make the mount point's folder")?;
        }
        fs::File::create(point).class(failed, || "make the mount point")?;
    }
    let target = nix::fcntl::open(
        point,
        nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )
    .class(failed, || "open the mount point")?;
    sys::attach(&tree, &target).class(failed, || "attach")
}

/// Has the kernel read more at once from the file system at `mount_point`, which the host has: most of what a request costs is that it is one.
/// https://www.kernel.org/doc/html/latest/admin-guide/abi-testing.html (/sys/class/bdi/<bdi>/read_ahead_kb)
fn read_further_ahead(mount_point: &str) -> Result<()> {
    let about = nix::sys::stat::stat(mount_point).context(|| format!("look at {mount_point}"))?;
    let (major, minor) = (
        nix::sys::stat::major(about.st_dev),
        nix::sys::stat::minor(about.st_dev),
    );
    let file = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    fs::write(&file, READ_AHEAD_KIB).context(|| format!("write {file}"))
}

/// Covers a mount with a writable layer in memory.
fn put_overlay(mount_point: &str, overlay: &str) -> Result<[Mounted; 2]> {
    let failed = Class::MountFailed;
    fs::create_dir_all(overlay).class(failed, || format!("make {overlay}"))?;
    mount_call(
        Some("tmpfs"),
        overlay,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=0700"),
    )
    .class(failed, || "mount a tmpfs for the overlay")?;
    let layer = Mounted {
        mount_point: overlay.into(),
        remove: true,
    };
    let covered = (|| {
        for folder in ["upper", "work"] {
            fs::create_dir(format!("{overlay}/{folder}"))
                .class(failed, || format!("make the overlay's {folder}"))?;
        }
        // The root of the container has the mode and the owner of the image's root.
        let root = fs::metadata(mount_point).class(failed, || "look at the lower file system")?;
        let upper = format!("{overlay}/upper");
        fs::set_permissions(&upper, root.permissions())
            .class(failed, || "set the overlay's mode")?;
        use std::os::unix::fs::MetadataExt;
        std::os::unix::fs::chown(&upper, Some(root.uid()), Some(root.gid()))
            .class(failed, || "set the overlay's owner")?;
        let data = format!("lowerdir={mount_point},upperdir={upper},workdir={overlay}/work");
        mount_call(
            Some("overlay"),
            mount_point,
            Some("overlay"),
            MsFlags::empty(),
            Some(data.as_str()),
        )
        .class(failed, || "mount the overlay")
    })();
    if let Err(failure) = covered {
        unmount_now(vec![layer])?;
        return Err(failure);
    }
    Ok([
        layer,
        Mounted {
            mount_point: mount_point.into(),
            remove: false,
        },
    ])
}

/// Undoes mounts, the last one first. Goes on after a failure, and tells of the first.
pub async fn unmount(mounts: Vec<Mounted>) -> Result<()> {
    blocking(move || unmount_now(mounts)).await
}

fn unmount_now(mounts: Vec<Mounted>) -> Result<()> {
    let mut outcome = Ok(());
    for Mounted {
        mount_point,
        remove,
    } in mounts.into_iter().rev()
    {
        let what = || format!("unmount {}", mount_point.display());
        let mut result = umount2(&mount_point, MntFlags::MNT_DETACH).context(what);
        if result.is_ok() && remove {
            let is_folder =
                fs::symlink_metadata(&mount_point).is_ok_and(|metadata| metadata.is_dir());
            let removed = if is_folder {
                fs::remove_dir(&mount_point)
            } else {
                fs::remove_file(&mount_point)
            };
            result = removed.context(|| format!("remove {}", mount_point.display()));
        }
        outcome = outcome.and(result);
    }
    outcome
}

/// Removes what the kernel and we have left of a container whose mounts are undone: the mounts that virtio-fs makes by itself where the host has mounted what
/// it shares, and the container's folder.
pub async fn forget(container_id: &str) -> Result<()> {
    let id = container_id.to_owned();
    blocking(move || {
        let mountinfo =
            fs::read_to_string("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo")?;
        for point in submounts(&mountinfo, &id) {
            let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
            match umount2(Path::new(point), flags) {
                // The host may have taken it away already.
                Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
                Err(errno) => return Err(Failure::other(format!("unmount {point}: {errno}"))),
            }
        }
        // Another's file system in it is not ours, and it may be elsewhere.
        let _ = fs::remove_dir(Path::new(CONTAINERS).join(id));
        Ok(())
    })
    .await
}

/// The mount points of virtio-fs below the container's folder in a shared folder, in the text of /proc/self/mountinfo (proc(5)), the last one first.
fn submounts<'a>(mountinfo: &'a str, container_id: &str) -> Vec<&'a str> {
    let shown = mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let point = left.split(' ').nth(4)?;
        right.starts_with("virtiofs ").then_some(point)
    });
    let points: Vec<&str> = shown.collect();
    let is_below_share = |point: &&str| {
        points.iter().any(|share| {
            let below = point.strip_prefix(share);
            below
                .and_then(|path| path.strip_prefix('/')?.split_once('/'))
                .is_some_and(|(folder, _)| folder == container_id)
        })
    };
    points
        .iter()
        .copied()
        .filter(is_below_share)
        .rev()
        .collect()
}

/// The device of the virtio-blk disk with a serial, once it is there.
async fn find_block_device(sandbox: &Sandbox, serial: &str) -> Result<PathBuf> {
    share::wake_disk(sandbox).await?;
    let what = format!("the block device with serial {serial:?}");
    let found = uevent::wait_for(&what, DEVICE_LIMIT, || {
        find_serial(Path::new("/sys/block"), serial)
    })
    .await;
    found.map_err(|failure| Failure::new(Class::MountFailed, failure.message))
}

fn find_serial(blocks: &Path, serial: &str) -> Option<PathBuf> {
    let has_serial = |entry: &fs::DirEntry| {
        fs::read_to_string(entry.path().join("serial"))
            .is_ok_and(|found| !serial.is_empty() && found.trim_end() == serial)
    };
    let entry = fs::read_dir(blocks).ok()?.flatten().find(has_serial)?;
    let device = Path::new("/dev").join(entry.file_name());
    device.exists().then_some(device)
}

fn check_mount_point(path: &str) -> Result<()> {
    let sane = path.starts_with('/')
        && path
            .split('/')
            .skip(1)
            .all(|part| !part.is_empty() && part != "." && part != "..");
    if sane {
        Ok(())
    } else {
        Err(Failure::invalid(format!(
            "mount_point: expected a plain absolute path, got {path:?}"
        )))
    }
}

/// Runs what may wait for a device or for the host on a thread of its own, so that other calls go on.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Failure::other("the mounting thread died")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_a_plain_path() {
        assert_eq!(check_mount_point("/run/husk/c1/rootfs"), Ok(()));
        for path in ["", "/", "x", "/a/../b", "/a//b", "/a/."] {
            assert!(check_mount_point(path).is_err(), "{path}");
        }
    }

    #[test]
    fn the_mounts_that_virtio_fs_made_for_a_container_are_found() {
        let mountinfo = "30 22 0:40 / /run/husk/shared rw - virtiofs husk rw\n\
             31 30 0:41 / /run/husk/shared/c1/rootfs rw - virtiofs husk rw\n\
             32 30 0:42 / /run/husk/shared/c1/mount0 rw - virtiofs husk rw\n\
             33 30 0:43 / /run/husk/shared/c10/rootfs rw - virtiofs husk rw\n\
             34 22 0:44 / /run/husk/containers/c1/rootfs rw - overlay overlay rw\n";
        let found = submounts(mountinfo, "c1");
        assert_eq!(
            found,
            ["/run/husk/shared/c1/mount0", "/run/husk/shared/c1/rootfs"]
        );
        assert_eq!(submounts(mountinfo, "c2"), Vec::<&str>::new());
    }
}
