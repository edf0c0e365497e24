//! `delete`, as it is after nearly every task: its shim has given everything back, or goes on for others and knows nothing of the task any more. Whatever else
//! there is to clean up, Node's side does.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::arguments::Arguments;
use super::group;
use crate::{root_mounts, unix_socket};

/// Where shims have their folders (src/shim/shim-folder.ts).
const FOLDERS: &str = "/run/husk-shim";

/// How many digits of the digest of its socket's path are a shim's folder's name.
const FOLDER_DIGITS: usize = 32;

/// Killed: all that can be said of a task nobody has seen the end of.
const KILLED: u64 = 137;

/// Cleans up where there is nothing of a shim's to give back, and answers a DeleteResponse; `None`, with nothing done, where there is.
pub fn run(arguments: &Arguments) -> Result<Option<Vec<u8>>> {
    let bundle =
        if arguments.bundle.is_empty() { std::env::current_dir().context("the bundle is gone")? } else { (&arguments.bundle).into() };
    if let Some(address) = address_of(&bundle)? {
        let Some(socket) = group::socket_of(&address) else { return Ok(None) };
        let folder = folder_of(socket);
        let Ok(served) = unix_socket::is_served(socket) else { return Ok(None) };
        if served {
            if exists(&folder.join("tasks").join(format!("{}.jsonl", arguments.id)))? {
                return Ok(None);
            }
        } else if exists(&folder)? {
            return Ok(None);
        } else {
            remove_stale(socket)?;
        }
    }
    root_mounts::unmount_all(&bundle.join("rootfs"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    Ok(Some(answer(now.as_secs(), now.subsec_nanos())))
}

/// The address in the bundle; `None` where its `start` never got so far.
fn address_of(bundle: &Path) -> Result<Option<String>> {
    let path = bundle.join("address");
    match fs::read_to_string(&path) {
        Ok(address) => Ok(Some(address.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The folder of the shim that listens at that socket.
pub fn folder_of(socket: &Path) -> PathBuf {
    let digits = Sha256::digest(socket.as_os_str().as_encoded_bytes()).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Path::new(FOLDERS).join(&digits[..FOLDER_DIGITS])
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists().with_context(|| format!("cannot look at {}", path.display()))
}

fn remove_stale(socket: &Path) -> Result<()> {
    if !fs::symlink_metadata(socket).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        return Ok(());
    }
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the stale socket {}", socket.display()))
        }
        _ => Ok(()),
    }
}

/// containerd.task.v2.DeleteResponse: no PID, its status, and when.
fn answer(seconds: u64, nanoseconds: u32) -> Vec<u8> {
    let mut at = Vec::new();
    number(&mut at, 1, seconds);
    number(&mut at, 2, nanoseconds.into());
    let mut message = Vec::new();
    number(&mut message, 2, KILLED);
    message.extend([3 << 3 | 2, at.len() as u8]); // two numbers are shorter than 128 bytes
    message.extend(at);
    message
}

/// Adds a field that is a number; a number of 0 is none.
fn number(message: &mut Vec<u8>, field: u8, mut value: u64) {
    if value == 0 {
        return;
    }
    message.push(field << 3);
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_what_containerd_reads() {
        // printf 'exit_status: 137 exited_at { seconds: 1700000000 nanos: 5 }' | protoc --encode
        assert_eq!(answer(1_700_000_000, 5), b"\x10\x89\x01\x1a\x08\x08\x80\xe2\xcf\xaa\x06\x10\x05");
        assert_eq!(answer(1, 0), b"\x10\x89\x01\x1a\x02\x08\x01");
    }

    #[test]
    fn a_shims_folder_is_where_its_server_has_it() {
        // printf /run/containerd/s/a | sha256sum
        assert_eq!(folder_of(Path::new("/run/containerd/s/a")), Path::new("/run/husk-shim/").join("c1004cf78293d4155aeb2e4d69f673e4"));
    }
}
