//! The container's root file system: what the first stage gathers for it, how the second puts it together, and how it becomes `/`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{fchdir, pivot_root};

use super::devices::{self, DeviceSource};
use super::mount_options::{MountOptions, propagation};
use super::{dev_links, filesystem, masks, mounts};
use crate::error::{Class, Context, Failure, Result};
use crate::spec::Spec;
use crate::sys::{self, MountChange};

/// What only the guest's own namespaces can give: detached copies of mounts, one for each bind mount of the spec.
pub struct Gathered {
    root: OwnedFd,
    mounts: Vec<(MountOptions, Option<OwnedFd>)>,
    devices: Vec<DeviceSource>,
}

/// Gathers the root file system, the sources of bind mounts, and what a user namespace may not make itself.
pub fn gather(spec: &Spec, rootfs: &str, in_user_namespace: bool) -> Result<Gathered> {
    let mut mounts = Vec::new();
    for mount in &spec.mounts {
        if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
            return Err(Failure::unsupported(format!(
                "mount {}: id-mapped mounts are not supported",
                mount.destination
            )));
        }
        let options = MountOptions::parse(&mount.r#type, &mount.options)?;
        let source = if options.bind {
            Some(
                clone_source(&mount.source, options.recursive)
                    .class(Class::MountFailed, || at(mount))?,
            )
        } else if in_user_namespace && belongs_to_the_guest(spec, &mount.r#type) {
            let kind = filesystem::kernel_name(&mount.r#type);
            Some(filesystem::make(kind, kind, &options).class(Class::MountFailed, || at(mount))?)
        } else {
            None
        };
        mounts.push((options, source));
    }
    Ok(Gathered {
        root: clone_source(rootfs, true)
            .class(Class::MountFailed, || format!("root file system {rootfs}"))?,
        mounts,
        devices: devices::gather(spec, in_user_namespace)?,
    })
}

/// What a user namespace may not mount, since it shows namespaces that are the guest's: the network, and cgroups without a namespace.
fn belongs_to_the_guest(spec: &Spec, kind: &str) -> bool {
    kind == "sysfs" || (kind.starts_with("cgroup") && spec.linux.namespace("cgroup").is_none())
}

fn at(mount: &crate::spec::Mount) -> String {
    format!("mount {} on {}", mount.source, mount.destination)
}

/// A detached copy of the mount at a path of the guest. The path has no symbolic links of its own; a link in it is a container's trick.
pub fn clone_source(path: &str, recursive: bool) -> nix::Result<OwnedFd> {
    let open = |flags: OFlag| {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC | flags)
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        openat2(nix::fcntl::AT_FDCWD, path, how)
    };
    // A folder of another file system of the host is an automount of virtio-fs, which O_PATH alone does not cross: what is below would be
    // mounted over the clone later, by whoever walks through it.
    let source = match open(OFlag::O_DIRECTORY) {
        Err(Errno::ENOTDIR) => open(OFlag::empty())?,
        other => other?,
    };
    sys::clone_tree(Some(source.as_fd()), c"", recursive)
}

/// The root file system, mounted and filled, not yet `/`.
pub struct Rootfs {
    root: OwnedFd,
    /// Mounts that become read-only once everything in them is made.
    late: Vec<(OwnedFd, MountChange)>,
}

/// Puts the root file system together, in the container's namespaces. `mount_point` is any folder of the guest.
pub fn build(spec: &Spec, gathered: Gathered, mount_point: &str) -> Result<Rootfs> {
    // Nothing that happens from here on is seen by the guest's own mount namespace.
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .class(Class::MountFailed, || "make / private")?;
    let target = open(mount_point, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .class(Class::MountFailed, || format!("open {mount_point}"))?;
    sys::attach(&gathered.root, &target)
        .class(Class::MountFailed, || "attach the root file system")?;

    let mut rootfs = Rootfs {
        root: gathered.root,
        late: Vec::new(),
    };
    for (entry, (options, source)) in spec.mounts.iter().zip(gathered.mounts) {
        if matches!(entry.r#type.as_str(), "proc" | "sysfs") {
            demand_ordinary(rootfs.root.as_fd(), entry)?;
        }
        let late = mounts::mount(rootfs.root.as_fd(), entry, &options, source)?;
        rootfs.late.extend(late);
    }
    if !has_own_dev(spec) {
        devices::make_all(rootfs.root.as_fd(), gathered.devices)?;
        dev_links::make(rootfs.root.as_fd(), spec)?;
    }
    Ok(rootfs)
}

/// Refuses a destination that is there and no folder, such as a link: what is masked and made read-only by its path would be elsewhere. In runc's words.
fn demand_ordinary(root: BorrowedFd<'_>, entry: &crate::spec::Mount) -> Result<()> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let fail = || at(entry);
    let found = match openat2(root, entry.destination.trim_end_matches('/'), how) {
        Err(Errno::ENOENT) => return Ok(()),
        found => found.class(Class::MountFailed, fail)?,
    };
    let mode = fstat(&found).class(Class::MountFailed, fail)?.st_mode;
    if mode & libc::S_IFMT == libc::S_IFDIR {
        return Ok(());
    }
    Err(Failure::new(
        Class::MountFailed,
        format!(
            "{}: filesystem \"{}\" must be mounted on ordinary directory",
            at(entry),
            entry.r#type
        ),
    ))
}

/// Whether the bundle brings its own /dev as a bind mount, which is then left as it is.
fn has_own_dev(spec: &Spec) -> bool {
    spec.mounts.iter().any(|mount| {
        mount.destination.trim_end_matches('/') == "/dev"
            && (mount.r#type == "bind"
                || mount
                    .options
                    .iter()
                    .any(|option| option == "bind" || option == "rbind"))
    })
}

impl Rootfs {
    /// Hides what the spec wants hidden. Before [`Rootfs::enter`], since it covers files with the guest's own /dev/null.
    pub fn mask(&self, spec: &Spec) -> Result<()> {
        masks::apply(&spec.linux, &self.root)
    }

    /// Makes it `/`, and lets go of everything else that was mounted.
    pub fn enter(&self) -> Result<()> {
        let fail = |what: &'static str| {
            move |errno| Failure::new(Class::MountFailed, format!("{what}: {errno}"))
        };
        fchdir(&self.root).map_err(fail("enter the root file system"))?;
        // The old root is stacked on the new one, from where it is unmounted: no folder for it is needed.
        pivot_root(".", ".").map_err(fail("pivot to the root file system"))?;
        umount2(".", MntFlags::MNT_DETACH).map_err(fail("let go of the guest's root"))?;
        nix::unistd::chdir("/").map_err(fail("enter /"))
    }

    /// The last touches, after /dev/console and the working directory were made.
    pub fn seal(self, spec: &Spec) -> Result<()> {
        for (mount, change) in &self.late {
            sys::set_mount(mount, *change, false)
                .class(Class::MountFailed, || "make /dev read-only")?;
        }
        let kind = spec.linux.rootfs_propagation.as_str();
        if !kind.is_empty() {
            let (flag, recursive) = match (
                propagation(kind),
                kind.strip_prefix('r').and_then(propagation),
            ) {
                (Some(flag), _) => (flag, false),
                (None, Some(flag)) => (flag, true),
                (None, None) => {
                    return Err(Failure::unsupported(format!(
                        "linux.rootfsPropagation: unknown value {kind}"
                    )));
                }
            };
            let change = MountChange {
                propagation: flag,
                ..MountChange::default()
            };
            sys::set_mount(&self.root, change, recursive)
                .class(Class::MountFailed, || format!("make / {kind}"))?;
        }
        if spec.root.readonly {
            let change = MountChange {
                set: libc::MOUNT_ATTR_RDONLY,
                ..MountChange::default()
            };
            sys::set_mount(&self.root, change, false)
                .class(Class::MountFailed, || "make / read-only")?;
        }
        Ok(())
    }
}
