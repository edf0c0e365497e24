//! `husk-helper pidfd`: sends the pidfd of a stand-in to who listens at a socket, as `--pidfd-socket` asks: Node sends no descriptors.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use nix::unistd::Pid;

use crate::flags::Flags;
use crate::{processes, unix_socket};

/// Sends that of the process `--pid` to `--socket`.
pub fn main(words: &[OsString]) -> Result<ExitCode> {
    let flags = Flags::parse(words, &["--pid", "--socket"], &[])?;
    let pid = flags.number("--pid")?;
    let pidfd = processes::pidfd(Pid::from_raw(pid)).with_context(|| format!("cannot open the process {pid}"))?;
    let socket = Path::new(flags.text("--socket")?);
    unix_socket::send(socket, b"pidfd", pidfd.as_fd()).with_context(|| format!("cannot send it to {}", socket.display()))?;
    Ok(ExitCode::SUCCESS)
}
