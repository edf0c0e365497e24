//! `husk-helper network`: looks at a network namespace of the host, and joins its links with taps, which become the guest's network cards; `serve`
//! carries what does not go by links.

mod choice;
mod forward;
mod link;
mod message;
mod netlink;
mod resolver;
mod scan;
mod serve;
mod tap;
mod traffic;
mod watch;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use nix::sys::statfs::{FsType, fstatfs};

use crate::flags::Flags;
use crate::namespaces;
use netlink::Netlink;

pub use tap::make as make_tap;

/// The file system of namespaces (the kernel's include/uapi/linux/magic.h).
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// Carries out `scan|attach|detach|serve --netns PATH ...`.
pub fn main(words: &[OsString]) -> Result<ExitCode> {
    let (verb, words) = words.split_first().context("usage: husk-helper network scan|attach|detach|serve --netns PATH ...")?;
    match verb.to_str() {
        Some("scan") => {
            Namespace::open(Flags::parse(words, &["--netns"], &[])?.text("--netns")?)?.enter()?;
            let contents = serde_json::to_string(&scan::scan()?).context("cannot encode the network")?;
            writeln!(io::stdout(), "{contents}").context("cannot print the network")?;
        }
        Some("attach") => {
            let flags = Flags::parse(words, &["--netns", "--from", "--link", "--tap"], &[])?;
            let (from, to) = (Namespace::open(flags.text("--from")?)?, Namespace::open(flags.text("--netns")?)?);
            tap::attach(&from, &to, flags.text("--link")?, flags.text("--tap")?)?;
        }
        Some("detach") => {
            let flags = Flags::parse(words, &["--netns", "--from", "--link", "--tap", "--owner"], &[])?;
            let (link, tap) = (flags.text("--link")?, flags.text("--tap")?);
            let owner = if flags.is_set("--owner") { Some(flags.number("--owner")?) } else { None };
            if flags.is_set("--from")
                && let Some(from) = Namespace::find(flags.text("--from")?)?
            {
                tap::remove(&from, tap, owner)?;
            }
            if let Some(namespace) = Namespace::find(flags.text("--netns")?)? {
                tap::detach(&namespace, link, tap, owner)?;
            }
        }
        Some("serve") => {
            Namespace::open(Flags::parse(words, &["--netns"], &[])?.text("--netns")?)?.enter()?;
            serve::serve()?;
        }
        _ => bail!("network {}: expected scan, attach, detach or serve", verb.to_string_lossy()),
    }
    Ok(ExitCode::SUCCESS)
}

/// A network namespace that has been opened.
pub struct Namespace {
    file: File,
    path: PathBuf,
}

impl Namespace {
    fn open(path: &str) -> Result<Namespace> {
        let path = PathBuf::from(path);
        Ok(Namespace { file: namespaces::open_network(&path)?, path })
    }

    /// None where it is gone, and everything in it with it: nothing is at the path any more, or a mere file, on which it was mounted.
    fn find(path: &str) -> Result<Option<Namespace>> {
        let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.with_context(|| format!("cannot look at {path}"))?,
        };
        let filesystem = fstatfs(&file).with_context(|| format!("cannot look at {path}"))?;
        Ok((filesystem.filesystem_type() == NSFS_MAGIC).then(|| Namespace { file, path: path.into() }))
    }

    fn enter(&self) -> Result<()> {
        namespaces::enter_network(&self.file, &self.path)
    }

    /// A conversation about it. The calling process is in it afterwards.
    fn netlink(&self) -> Result<Netlink> {
        self.enter()?;
        Netlink::open()
    }

    fn file(&self) -> &File {
        &self.file
    }

    fn path(&self) -> &Path {
        &self.path
    }
}
