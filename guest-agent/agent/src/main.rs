//! The husk agent: PID 1 of a sandbox's virtual machine, and the programs that it makes of itself.
//!
//! One static binary with several faces, chosen by the name that it is called by, or by its first argument:
//! - as PID 1 (`/init`): [`init`] prepares the guest and serves the API of proto/agent/v1 on the host's channel;
//! - `container-init`: [`child`] sets up one process of a container, single-threaded, and becomes its program;
//! - `modprobe`: the kernel's helper that loads modules by alias, [`modules`].

mod api;
mod cgroup;
mod channel;
mod checkpoint;
mod child;
mod clock;
mod console;
mod container;
mod devices;
mod error;
mod folders;
mod init;
mod inventory;
mod machine_id;
mod modules;
mod network;
mod patience;
mod processes;
mod sandbox;
mod service;
mod size;
mod spec;
mod stats;
mod storage;
mod sys;
mod uevent;
mod watch;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match face(&arguments) {
        Some(("container-init", _)) => child::main(),
        Some(("modprobe", rest)) => modules::modprobe(rest),
        _ if std::process::id() == 1 => init::main(),
        _ => {
            eprintln!(
                "husk-agent: expected to be PID 1 of a virtual machine; faces: container-init, modprobe"
            );
            ExitCode::from(2)
        }
    }
}

/// The face that the arguments ask for, and the arguments that are left for it.
fn face(arguments: &[OsString]) -> Option<(&str, &[OsString])> {
    let by_name = arguments
        .first()
        .and_then(|path| Path::new(path).file_name())
        .and_then(|name| name.to_str());
    let by_argument = arguments.get(1).and_then(|word| word.to_str());
    match (by_name, by_argument) {
        (Some("modprobe"), _) => Some(("modprobe", &arguments[1..])),
        (_, Some(word @ ("container-init" | "modprobe"))) => Some((word, &arguments[2..])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face_of(words: &[&str]) -> Option<(String, usize)> {
        let arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
        face(&arguments).map(|(name, rest)| (name.to_owned(), rest.len()))
    }

    #[test]
    fn the_kernel_calls_modprobe_by_its_name() {
        assert_eq!(
            face_of(&["/sbin/modprobe", "-q", "--", "fs-erofs"]),
            Some(("modprobe".into(), 3))
        );
    }

    #[test]
    fn the_first_argument_chooses_otherwise() {
        assert_eq!(
            face_of(&["/proc/self/exe", "container-init"]),
            Some(("container-init".into(), 0))
        );
        assert_eq!(face_of(&["/init", "quiet"]), None);
        assert_eq!(face_of(&[]), None);
    }
}
