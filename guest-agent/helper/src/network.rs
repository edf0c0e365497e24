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
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::statfs::{FsType, statfs};

use crate::flags::Flags;
use crate::namespaces;

/// The file system of namespaces (the kernel's include/uapi/linux/magic.h).
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// Carries out `scan|attach|detach|serve --netns PATH ...`.
pub fn main(words: &[OsString]) -> Result<ExitCode> {
    let (verb, words) = words.split_first().context("usage: husk-helper network scan|attach|detach|serve --netns PATH ...")?;
    match verb.to_str() {
        Some("scan") => {
            enter(&Flags::parse(words, &["--netns"], &[])?)?;
            let contents = serde_json::to_string(&scan::scan()?).context("cannot encode the network")?;
            writeln!(io::stdout(), "{contents}").context("cannot print the network")?;
        }
        Some("attach") => {
            let flags = Flags::parse(words, &["--netns", "--link", "--tap", "--owner"], &["--vnet-hdr"])?;
            enter(&flags)?;
            tap::attach(flags.text("--link")?, flags.text("--tap")?, flags.number("--owner")?, flags.is_set("--vnet-hdr"))?;
        }
        Some("detach") => {
            let flags = Flags::parse(words, &["--netns", "--link", "--tap"], &[])?;
            // With the namespace went everything in it.
            if is_gone(Path::new(flags.text("--netns")?))? {
                return Ok(ExitCode::SUCCESS);
            }
            enter(&flags)?;
            tap::detach(flags.text("--link")?, flags.text("--tap")?)?;
        }
        Some("serve") => {
            enter(&Flags::parse(words, &["--netns"], &[])?)?;
            serve::serve()?;
        }
        _ => bail!("network {}: expected scan, attach, detach or serve", verb.to_string_lossy()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether nothing is at the path any more, or a mere file, on which a namespace was mounted.
fn is_gone(path: &Path) -> Result<bool> {
    match statfs(path) {
        Err(Errno::ENOENT) => Ok(true),
        found => Ok(found.with_context(|| format!("cannot look at {}", path.display()))?.filesystem_type() != NSFS_MAGIC),
    }
}

fn enter(flags: &Flags) -> Result<()> {
    let path = Path::new(flags.text("--netns")?);
    namespaces::enter_network(&namespaces::open_network(path)?, path)
}
