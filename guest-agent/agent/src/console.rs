//! The few lines that the agent writes on the guest's console, and what a defect does.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::panic;
use std::sync::OnceLock;

static CONSOLE: OnceLock<File> = OnceLock::new();

/// Keeps the standard error of now for the log: in a container's process it will soon be the container's.
pub fn keep() {
    if let Ok(console) = std::io::stderr().as_fd().try_clone_to_owned() {
        CONSOLE.get_or_init(|| File::from(console));
    }
}

/// Writes one line on the console. A line that cannot be written has nowhere else to go.
pub fn log(line: impl std::fmt::Display) {
    let line = format!("husk-agent: {line}\n");
    let _ = match CONSOLE.get() {
        Some(mut console) => console.write_all(line.as_bytes()),
        None => std::io::stderr().write_all(line.as_bytes()),
    };
}

/// Makes a panic of PID 1 print its message and end the machine, so that the host learns of it at once.
pub fn power_off_on_panic() {
    panic::set_hook(Box::new(|info| {
        log(format_args!("panic: {info}"));
        crate::init::power::off();
    }));
}
