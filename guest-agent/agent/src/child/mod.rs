//! The process that sets up a container's process, and becomes it.
//!
//! A re-exec of the agent, so it is single-threaded and may fork. The first stage runs in the agent's namespaces: it gathers what only
//! they can reach (mount sources, the cgroup), then makes or joins the container's. The second stage is a fork in them, the first process
//! of a new PID namespace: it builds the root file system, takes on limits and identity, and waits for its start.

mod attributes;
mod capabilities;
mod control;
mod copy_up;
mod dev_links;
mod devices;
mod filesystem;
mod first_stage;
mod hooks;
mod identity;
mod limits;
mod masks;
mod mount_options;
mod mounts;
mod namespaces;
mod passwd;
mod personality;
mod program;
mod resolve;
mod rootfs;
mod sandbox_init;
mod seccomp;
mod second_stage;
mod streams;
mod sysctl;
mod terminal;
pub mod wire;

use std::process::ExitCode;

use control::Control;
use wire::ToAgent;

/// Runs the set-up. Returns only where it failed (the first stage: where it succeeded too).
pub fn main() -> ExitCode {
    crate::console::keep();
    crate::patience::end();
    let mut control = match Control::from_stdin() {
        Ok(control) => control,
        Err(failure) => {
            crate::console::log(format_args!("set-up: {failure}"));
            return ExitCode::FAILURE;
        }
    };
    match first_stage::run(&mut control) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to be told where the agent does not listen.
            let _ = control.send(&ToAgent::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

pub use filesystem::make as make_filesystem;
pub use limits::{set_own_rlimits, set_rlimits};
pub use mount_options::MountOptions;
pub use rootfs::clone_source;
pub use sysctl::set_shared as set_shared_sysctls;
pub use terminal::set_size as set_terminal_size;

use crate::error::Result;
use crate::spec::Spec;

/// Refuses what no set-up could carry out, before anything is made.
pub fn check(spec: &Spec) -> Result<()> {
    namespaces::of(&spec.linux)?;
    devices::check(spec)?;
    for mount in &spec.mounts {
        MountOptions::parse(&mount.r#type, &mount.options)?;
    }
    spec.linux.seccomp.as_ref().map_or(Ok(()), seccomp::check)
}
