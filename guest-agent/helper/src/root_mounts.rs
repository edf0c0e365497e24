//! `husk-helper mount` and `husk-helper unmount`: a container's root file system as containerd asks for it, a list of mounts that are stacked
//! on one folder (containerd's mount.All), in the host's mount namespace.

mod filesystem;
mod loop_device;
mod options;
mod unmount;

pub use unmount::all as unmount_all;

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;
use serde::Deserialize;

use crate::flags::Flags;
use crate::mount;
use options::Options;

/// The longest plan, in bytes: an overlay has some hundred lower folders at most.
const LONGEST_PLAN: u64 = 1 << 20;

/// What standard input says.
#[derive(Deserialize)]
struct Plan {
    target: PathBuf,
    mounts: Vec<Mount>,
}

/// As containerd's types.Mount.
#[derive(Deserialize)]
struct Mount {
    r#type: String,
    source: PathBuf,
    /// A path inside of what is mounted already; absent or empty: all of it.
    #[serde(default)]
    target: PathBuf,
    #[serde(default)]
    options: Vec<String>,
}

/// `husk-helper mount`.
pub fn mount(words: &[OsString]) -> Result<ExitCode> {
    Flags::parse(words, &[], &[])?;
    let mut text = Vec::new();
    io::stdin().take(LONGEST_PLAN + 1).read_to_end(&mut text).context("cannot read standard input")?;
    ensure!(text.len() as u64 <= LONGEST_PLAN, "standard input holds more than {} MiB", LONGEST_PLAN >> 20);
    let plan: Plan = serde_json::from_slice(&text).context("standard input cannot be understood")?;
    ensure!(plan.target.is_absolute(), "the target {} must be absolute", plan.target.display());

    // All that can be known to be wrong is, before anything is mounted.
    let all = plan.mounts.iter().map(|mount| Ok((mount, options::parse(mount)?))).collect::<Result<Vec<_>>>()?;
    let mut stack = Stack::default();
    for (mount, options) in &all {
        let what = || format!("cannot mount {} ({})", mount.source.display(), mount.r#type);
        stack.0.push(mount_one(&plan.target, mount, options).with_context(what)?);
    }
    stack.0.clear();
    Ok(ExitCode::SUCCESS)
}

/// `husk-helper unmount`.
pub fn unmount(words: &[OsString]) -> Result<ExitCode> {
    let flags = Flags::parse(words, &["--target"], &[])?;
    unmount::all(Path::new(flags.text("--target")?))?;
    Ok(ExitCode::SUCCESS)
}

/// The roots of what has been mounted: unmounted again, the last one first, where they are still here when this is dropped.
#[derive(Default)]
struct Stack(Vec<OwnedFd>);

impl Drop for Stack {
    fn drop(&mut self) {
        for root in self.0.drain(..).rev() {
            // The error that has led here is the one to be told.
            let _ = umount2(&by_descriptor(&root), MntFlags::MNT_DETACH);
        }
    }
}

/// Mounts, and answers the mount's root.
fn mount_one(target: &Path, mount: &Mount, options: &Options) -> Result<OwnedFd> {
    let place = find(target, &mount.target)?;
    if options.bind {
        let tree = mount::clone(&mount.source, options.recursive)?;
        mount::change(&tree, options.attributes(), options.recursive)?;
        mount::attach(tree.as_fd(), place.as_fd(), c"")?;
        return Ok(tree);
    }
    filesystem::mount(mount, options, &by_descriptor(&place))?;
    // The same path leads to what is mounted there now.
    find(target, &mount.target)
}

/// Opens where to mount: the target, or a path inside of it that leads nowhere else. What is mounted there already is what is found.
fn find(target: &Path, inside: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let what = || format!("cannot open {}", target.join(inside).display());
    let folder = open(target, flags | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty()).with_context(what)?;
    if inside.as_os_str().is_empty() {
        return Ok(folder);
    }
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(&folder, inside, how).with_context(what)
}

/// A path that leads to an opened file, wherever the current folder is.
fn by_descriptor(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
