//! What a sandbox needs of the host's files, opened where their paths mean something: in the host's mount namespace.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

use super::filled::Filled;
use super::monitor::Monitor;
use super::nodes;
use super::plan::{Memory, Mount, Plan};
use super::template_memory;
use crate::{descriptors, mount, unix_socket};

/// Everything opened for init, which only has to put it in place.
pub struct Sources {
    pub tree: Vec<(PathBuf, Part)>,
    /// Names below /dev, and the device numbers.
    pub devices: Vec<(PathBuf, libc::dev_t)>,
    pub mounts: Vec<(PathBuf, Shared)>,
    /// Templates' memory, under other descriptors than the processes': others get it from here as long as the sandbox lives.
    pub held: Vec<OwnedFd>,
    /// The outer process's end of QEMU's second monitor.
    pub monitor: Option<Monitor>,
}

/// A part of the sandbox's read-only tree.
pub enum Part {
    /// The path is a symbolic link on the host, to this.
    Link(PathBuf),
    Tree(Shared),
}

/// A detached clone of a tree of mounts.
pub struct Shared {
    pub tree: OwnedFd,
    /// A folder; else a file of some kind.
    pub folder: bool,
}

impl Sources {
    /// Opens all that the plan names, and makes its sockets. The descriptors that the plan numbers are taken first, so that no
    /// other gets in their place.
    /// `filled`: what was filled for the plan.
    pub fn open(plan: &Plan, filled: Option<Filled>) -> Result<Sources> {
        let mut filled = filled.map(|filled| filled.beside(plan.opened())).transpose()?;
        // Whatever is opened from here on gets another number.
        descriptors::silence(&plan.opened().collect::<Vec<_>>())?;
        for listener in &plan.listen {
            let listen_at = if listener.packets { unix_socket::listen_for_packets_at } else { unix_socket::listen_at };
            descriptors::place_owned(listen_at(&listener.path)?, listener.fd)?;
        }
        for socket in &plan.dial {
            descriptors::place_owned(unix_socket::dial_for_packets(&socket.path)?, socket.fd)?;
        }
        for file in &plan.open {
            descriptors::place_owned(open_file(&file.path, file.write)?, file.fd)?;
        }
        let mut held = Vec::new();
        for Memory { fd, bytes, template, filled: sum } in &plan.memory {
            match (template, sum) {
                (None, None) => descriptors::place_owned(make_memory(*bytes, plan.zygote)?, *fd)?,
                (None, Some(sum)) => filled.take().context("no memory was filled")?.place(*fd, *bytes, sum)?,
                (Some(template), _) => {
                    let memory = template_memory::obtain(template, *bytes)?;
                    descriptors::place(memory.as_fd(), *fd)?;
                    held.push(memory);
                }
            }
        }
        let monitor = plan.monitor.map(|number| {
            let (ours, theirs) = Monitor::pair()?;
            descriptors::place_owned(theirs, number).map(|()| ours)
        });
        Ok(Sources {
            held,
            monitor: monitor.transpose()?,
            tree: plan.tree.readonly.iter().map(|path| Ok((path.clone(), part(path)?))).collect::<Result<_>>()?,
            devices: plan.tree.devices.iter().map(|name| device(name)).collect::<Result<_>>()?,
            mounts: plan.mounts.iter().map(|mount| Ok((mount.target.clone(), shared(mount)?))).collect::<Result<_>>()?,
        })
    }
}

/// Clones what a mount shows. Set-user-ID bits, devices and programs of it mean nothing to virtiofsd, which only passes them on.
pub fn shared(mount: &Mount) -> Result<Shared> {
    let mut attributes = mount::MOUNT_ATTR_NOSUID | mount::MOUNT_ATTR_NODEV | mount::MOUNT_ATTR_NOEXEC;
    let alone = mount.readonly && mount.writable_below;
    if mount.readonly && !alone {
        attributes |= mount::MOUNT_ATTR_RDONLY;
    }
    let what = || format!("cannot share {}", mount.source.display());
    let shared = match &mount.overlay {
        None if mount.follows => detached(mount::clone_following(&mount.source, attributes, mount.recursive).with_context(what)?),
        None if !mount.recursive => detached(mount::clone_top(&mount.source, attributes).with_context(what)?),
        None => clone(&mount.source, attributes).with_context(what),
        Some(options) => Ok(Shared { tree: overlay(options, attributes).with_context(what)?, folder: true }),
    }?;
    for point in &mount.mount_points {
        nodes::make_mount_point(shared.tree.as_fd(), point)
            .with_context(|| format!("cannot make the mount point {} in {}", point.path.display(), mount.source.display()))?;
    }
    if alone {
        mount::make_read_only(&shared.tree).with_context(what)?;
    }
    Ok(shared)
}

/// An overlay of folders of the host, whose paths mean something here.
fn overlay(options: &[String], attributes: u64) -> Result<OwnedFd> {
    let text = |part: &str| CString::new(part).context("an option has a zero byte in it");
    let options = options
        .iter()
        .map(|option| option.split_once('=').map_or_else(|| Ok((text(option)?, None)), |(key, value)| Ok((text(key)?, Some(text(value)?)))))
        .collect::<Result<Vec<_>>>()?;
    let options: Vec<_> = options.iter().map(|(key, value)| (key.as_c_str(), value.as_deref())).collect();
    mount::new_filesystem(c"overlay", &options, attributes).context("mount the overlay")
}

fn part(path: &Path) -> Result<Part> {
    let what = || format!("cannot show {} in the sandbox", path.display());
    if fs::symlink_metadata(path).with_context(what)?.is_symlink() {
        return Ok(Part::Link(fs::read_link(path).with_context(what)?));
    }
    let attributes = mount::MOUNT_ATTR_RDONLY | mount::MOUNT_ATTR_NOSUID | mount::MOUNT_ATTR_NODEV;
    Ok(Part::Tree(clone(path, attributes).with_context(what)?))
}

fn clone(path: &Path, attributes: u64) -> Result<Shared> {
    detached(mount::clone_tree(path, attributes)?)
}

fn detached(tree: OwnedFd) -> Result<Shared> {
    let folder = File::from(tree.as_fd().try_clone_to_owned()?).metadata()?.is_dir();
    Ok(Shared { tree, folder })
}

fn device(name: &str) -> Result<(PathBuf, libc::dev_t)> {
    ensure!(["kvm", "net/tun", "vhost-net", "vhost-vsock"].contains(&name), "{name} is no device that a sandbox may have");
    let path = Path::new("/dev").join(name);
    let metadata = fs::metadata(&path).with_context(|| format!("the host has no {}", path.display()))?;
    ensure!(metadata.file_type().is_char_device(), "{} is no character device", path.display());
    Ok((name.into(), metadata.rdev()))
}

/// Memory without a name: whoever inherits it, and nobody else, can map it. It is gone with the last who does. `sealable`: a zygote's, which is shut for
/// good once its machine stands still.
pub fn make_memory(bytes: u64, sealable: bool) -> Result<OwnedFd> {
    let sealing = if sealable { MFdFlags::MFD_ALLOW_SEALING } else { MFdFlags::empty() };
    let memory = memfd_create("memory", MFdFlags::MFD_CLOEXEC | sealing).context("cannot make a memory file")?;
    ftruncate(&memory, i64::try_from(bytes)?).with_context(|| format!("cannot make a memory file of {bytes} bytes"))?;
    Ok(memory)
}

/// Opens a file or block device, and nothing else.
pub fn open_file(path: &Path, write: bool) -> Result<OwnedFd> {
    // O_NONBLOCK: the path may name a FIFO, whose opening would wait for ever; it is taken back below.
    let file = OpenOptions::new().read(true).write(write).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    let kind = file.metadata().with_context(|| format!("cannot look at {}", path.display()))?.file_type();
    ensure!(kind.is_file() || kind.is_block_device(), "{} is no file and no block device", path.display());
    let mode = if write { OFlag::O_RDWR } else { OFlag::O_RDONLY };
    fcntl(&file, FcntlArg::F_SETFL(mode)).with_context(|| format!("cannot set up {}", path.display()))?;
    Ok(file.into())
}
