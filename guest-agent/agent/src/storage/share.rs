//! The shared folder that the host's files come by, and the devices that a template's guest has let go of.

use std::fs;
use std::sync::{MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount as mount_call, umount2};

use super::{DEVICE_LIMIT, blocking, check_mount_point, read_further_ahead};
use crate::api;
use crate::devices::parked::Parked;
use crate::error::{Class, Context, Failure, Result};
use crate::sandbox::Sandbox;
use crate::uevent;

/// Mounts a virtio-fs share of the sandbox, once its device is there.
pub async fn mount(sandbox: &Sandbox, share: api::SharedFolder) -> Result<()> {
    let what = format!("shared folder {:?} on {:?}", share.tag, share.mount_point);
    check_mount_point(&share.mount_point)?;
    let device = parked(sandbox).share.take();
    if let Some(device) = device {
        device.wake().class(Class::MountFailed, || what.clone())?;
    }
    let mut events = uevent::Uevents::subscribe()?;
    let attempts = async {
        loop {
            let (tag, mount_point) = (share.tag.clone(), share.mount_point.clone());
            match blocking(move || mount_virtiofs(&tag, &mount_point)).await? {
                Attempt::Mounted => return Ok(()),
                Attempt::NoDevice => events.next().await?,
            }
        }
    };
    tokio::time::timeout(DEVICE_LIMIT, attempts)
        .await
        .unwrap_or_else(|_| {
            let seconds = DEVICE_LIMIT.as_secs();
            Err(Failure::other(format!(
                "no device has that tag after {seconds} s"
            )))
        })
        .class(Class::MountFailed, || what)
}

/// Unmounts the shared folders, and lets go of their device and the disk's, as in a template: the next sandbox takes them into use again.
pub async fn park(sandbox: &Sandbox, mount_points: Vec<String>) -> Result<()> {
    for mount_point in mount_points {
        check_mount_point(&mount_point)?;
        let what = format!("unmount {mount_point:?}");
        blocking(move || {
            umount2(mount_point.as_str(), MntFlags::empty())
                .map_err(|errno| Failure::other(errno.to_string()))
        })
        .await
        .class(Class::MountFailed, || what)?;
    }
    let before = std::mem::take(&mut *parked(sandbox));
    *parked(sandbox) = blocking(move || before.park_again()).await?;
    Ok(())
}

enum Attempt {
    Mounted,
    /// The driver knows no device of that tag yet.
    NoDevice,
}

fn mount_virtiofs(tag: &str, mount_point: &str) -> Result<Attempt> {
    fs::create_dir_all(mount_point).context(|| "make the mount point")?;
    let none: Option<&str> = None;
    match mount_call(
        Some(tag),
        mount_point,
        Some("virtiofs"),
        // As on a host, device files are the device controller's business.
        MsFlags::empty(),
        none,
    ) {
        Ok(()) => match read_further_ahead(mount_point) {
            Ok(()) => Ok(Attempt::Mounted),
            Err(failure) => {
                umount2(mount_point, MntFlags::MNT_DETACH)
                    .context(|| format!("unmount {mount_point} after: {failure}"))?;
                Err(failure)
            }
        },
        Err(Errno::EINVAL) => Ok(Attempt::NoDevice),
        Err(errno) => Err(Failure::other(errno.to_string())),
    }
}

/// Takes the parked disk into use, where there is one: it may be the one that is looked for.
pub async fn wake_disk(sandbox: &Sandbox) -> Result<()> {
    let Some(disk) = parked(sandbox).disk.take() else {
        return Ok(());
    };
    let (there, disk) = blocking(move || Ok((disk.is_there()?, disk))).await?;
    if there {
        return blocking(move || disk.wake()).await;
    }
    parked(sandbox).disk = Some(disk);
    Ok(())
}

fn parked(sandbox: &Sandbox) -> MutexGuard<'_, Parked> {
    sandbox
        .parked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}
