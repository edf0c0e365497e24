//! Device nodes in the container's /dev.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, makedev, mknodat};
use nix::unistd::{Gid, Uid, fchownat};

use super::resolve::{Missing, parent, resolve};
use crate::error::{Class, Context, Failure, Result};
use crate::folders::DEVICES;
use crate::spec::{Device, Spec};
use crate::sys::{self, MountChange};

/// The devices of every container: path, major, minor. All are character devices of mode 0666.
const DEFAULT: [(&str, i64, i64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// A device to make, and a detached mount of its node where the container may not make nodes.
pub struct DeviceSource {
    device: Device,
    node: Option<OwnedFd>,
}

/// The spec's devices and the default ones; what the spec says of a path comes before the default.
fn wanted(spec: &Spec) -> Vec<Device> {
    let defaults = DEFAULT.iter().map(|&(path, major, minor)| Device {
        path: path.to_owned(),
        r#type: "c".to_owned(),
        major,
        minor,
        file_mode: Some(0o666),
        uid: None,
        gid: None,
    });
    let mut devices: Vec<Device> = spec.linux.devices.clone();
    devices.extend(defaults.filter(|default| {
        spec.linux
            .devices
            .iter()
            .all(|device| device.path != default.path)
    }));
    devices
}

/// Prepares the devices. In a user namespace nobody may make device nodes: there they are made by us, and bound to their places.
pub fn gather(spec: &Spec, in_user_namespace: bool) -> Result<Vec<DeviceSource>> {
    let devices = wanted(spec);
    if !in_user_namespace {
        return Ok(devices
            .into_iter()
            .map(|device| DeviceSource { device, node: None })
            .collect());
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let folder = open(DEVICES, flags, Mode::empty()).context(|| format!("open {DEVICES}"))?;
    let mut sources = Vec::new();
    for device in devices {
        let node = make_source(folder.as_fd(), &device)
            .class(Class::MountFailed, || format!("device {}", device.path))?;
        sources.push(DeviceSource {
            device,
            node: Some(node),
        });
    }
    Ok(sources)
}

/// A detached mount of a node with the device's numbers, mode and owner. Nodes are made once, and stay.
fn make_source(folder: BorrowedFd, device: &Device) -> nix::Result<OwnedFd> {
    let Device {
        r#type,
        major,
        minor,
        file_mode,
        uid,
        gid,
        ..
    } = device;
    let name = format!("{type}-{major}-{minor}-{file_mode:?}-{uid:?}-{gid:?}");
    make_node(folder, name.as_ref(), device)?;
    let node = sys::clone_tree(Some(folder), &sys::c_string(name)?, false)?;
    let change = MountChange {
        clear: libc::MOUNT_ATTR_NODEV,
        ..MountChange::default()
    };
    sys::set_mount(&node, change, false)?;
    Ok(node)
}

/// Makes all devices within `root`.
pub fn make_all(root: BorrowedFd, sources: Vec<DeviceSource>) -> Result<()> {
    for DeviceSource { device, node } in sources {
        let result = match node {
            None => parent(root, device.path.as_ref())
                .and_then(|(folder, name)| make_node(folder.as_fd(), &name, &device)),
            Some(node) => resolve(root, device.path.as_ref(), Missing::File)
                .and_then(|target| sys::attach(&node, &target)),
        };
        result.class(Class::MountFailed, || format!("device {}", device.path))?;
    }
    Ok(())
}

/// Makes one node. One that is already there stays, as with runc.
fn make_node(folder: BorrowedFd, name: &std::ffi::OsStr, device: &Device) -> nix::Result<()> {
    let kind = match device.r#type.as_str() {
        "c" | "u" => SFlag::S_IFCHR,
        "b" => SFlag::S_IFBLK,
        "p" => SFlag::S_IFIFO,
        _ => return Err(Errno::EINVAL),
    };
    let mode = Mode::from_bits_truncate(device.file_mode.unwrap_or(0o666) & 0o7777);
    match mknodat(
        folder,
        name,
        kind,
        mode,
        makedev(device.major as u64, device.minor as u64),
    ) {
        Err(Errno::EEXIST) => return Ok(()),
        result => result?,
    }
    let (owner, group) = (
        Uid::from_raw(device.uid.unwrap_or(0)),
        Gid::from_raw(device.gid.unwrap_or(0)),
    );
    fchownat(
        folder,
        name,
        Some(owner),
        Some(group),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )?;
    fchmodat(folder, name, mode, FchmodatFlags::FollowSymlink)
}

/// Refuses devices that are none, before anything is made.
pub fn check(spec: &Spec) -> Result<()> {
    for device in &spec.linux.devices {
        if !["c", "u", "b", "p"].contains(&device.r#type.as_str()) {
            return Err(Failure::unsupported(format!(
                "linux.devices: {}: unknown type {:?}",
                device.path, device.r#type
            )));
        }
        let number = |number: i64| (0..=i64::from(u32::MAX)).contains(&number);
        if !device.path.starts_with('/') || !number(device.major) || !number(device.minor) {
            return Err(Failure::unsupported(format!(
                "linux.devices: {:?}: a path or a number is out of range",
                device.path
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specs_device_comes_before_the_default_of_its_path() {
        let json = br#"{"linux": {"devices": [{"path": "/dev/null", "type": "c", "major": 10, "minor": 200}]}}"#;
        let spec: Spec = crate::spec::parse("spec", json).expect("a spec");
        let devices = wanted(&spec);
        assert_eq!(
            devices
                .iter()
                .filter(|device| device.path == "/dev/null")
                .count(),
            1
        );
        assert_eq!((devices[0].major, devices[0].minor), (10, 200));
        assert_eq!(devices.len(), DEFAULT.len());
    }

    #[test]
    fn an_unknown_type_is_refused() {
        let json = br#"{"linux": {"devices": [{"path": "/dev/x", "type": "z"}]}}"#;
        let spec: Spec = crate::spec::parse("spec", json).expect("a spec");
        assert_eq!(
            check(&spec),
            Err(Failure::unsupported(
                "linux.devices: /dev/x: unknown type \"z\""
            ))
        );
    }
}
