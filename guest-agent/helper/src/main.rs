//! husk's helper on the host: the few things that the supervisor, a Node program, cannot do itself. `PROTOCOL.md`
//! beside this crate is the contract of each face.
//!
//! - `front`: what every `husk` call begins with; it starts the supervisor or the command line.
//! - `shim`: what containerd starts; it finds or starts the server of a container's pod.
//! - `stand_in`: the process whose PID stands for a container's process. `front` becomes one, or forks one;
//!   the shim starts them.
//! - `sandbox`: the namespaces of a sandbox, and PID 1 in them.
//! - `root_mounts`: a container's root file system, mounted on the host.
//! - `rehearsal`: the program of the container with which a sandbox of the pool rehearses.
//! - `template`: copies of a template's memory, for the machines that are cloned from it.
//! - `seccomp`: compiles a seccomp profile.
//! - `tsc`: how fast the processor's counter counts.
//! - `vsock`: joins a guest's vsock connection with a unix socket.
//! - `pidfd`: sends a stand-in's pidfd to who wants it.
//! - `network`: looks at a network namespace, and joins its links with taps.
//!
//! Every face is one process with one thread and one poll loop.

mod capabilities;
mod cgroup;
mod descriptors;
mod endpoint;
mod flags;
mod front;
mod lines;
mod mount;
mod mount_table;
mod namespaces;
mod network;
mod pidfd;
mod processes;
mod programs;
mod pump;
mod rehearsal;
mod root_mounts;
mod sandbox;
mod seccomp;
mod shim;
mod signals;
mod stand_in;
mod template;
mod title;
mod tsc;
mod unix_socket;
mod vsock;
mod window;
mod words;

use std::process::ExitCode;

const USAGE: &str = "usage: husk-helper front|shim|stand-in|sandbox|template|mount|unmount|seccomp|tsc|vsock|network|pidfd|rehearsal ...; it is started by husk, see PROTOCOL.md";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let face = arguments.next().unwrap_or_default();
    let rest = arguments.collect::<Vec<_>>();
    let result = match face.to_str() {
        Some("front") => front::main(&rest),
        Some("shim") => shim::main(&rest),
        Some("stand-in") => stand_in::main(&rest),
        Some("mount") => root_mounts::mount(&rest),
        Some("unmount") => root_mounts::unmount(&rest),
        Some("sandbox") => sandbox::main(),
        Some("template") => template::main(&rest),
        Some("seccomp") => seccomp::main(),
        Some("tsc") => tsc::main(),
        Some("vsock") => vsock::main(&rest),
        Some("network") => network::main(&rest),
        Some("pidfd") => pidfd::main(&rest),
        Some("rehearsal") => rehearsal::main(),
        _ => Err(anyhow::anyhow!(USAGE)),
    };
    match result {
        Ok(code) => code,
        // containerd puts words of its own behind what its shim says.
        Err(error) if face == "shim" => {
            words::say(&format!("husk: {error:#}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            words::complain(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
