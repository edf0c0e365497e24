//! A supervisor for `husk-helper sandbox`.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Conversation, HELPER, Process, inherit, pair, pipe, read_text, wait_readable};

/// Who the unprivileged processes are.
pub const USER: u32 = 0x7000_0001;

/// A plan with the system's programs and nothing else; `changes` are put in place of its parts.
pub fn plan(changes: Value) -> Value {
    let mut plan = json!({
        "tree": {"readonly": ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/ld.so.cache"], "devices": []},
        "user": {"uid": USER, "gid": USER},
    });
    for (key, value) in changes.as_object().expect("an object") {
        plan[key] = value.clone();
    }
    plan
}

/// A shell script as a process of a plan.
pub fn script(name: &str, user: &str, fds: &[RawFd], text: &str) -> Value {
    json!({"name": name, "argv": ["/bin/sh", "-c", text], "user": user, "fds": fds})
}

pub struct Sandbox {
    pub outer: Process,
    pub control: Option<Conversation>,
    /// Ends when every process that inherited it has.
    pub stderr: OwnedFd,
    /// The host's PID of the sandbox's PID 1.
    pub init: i64,
}

impl Sandbox {
    /// Starts the helper, without a plan.
    pub fn new(descriptors: Vec<(RawFd, OwnedFd)>) -> Sandbox {
        Sandbox::behind(Command::new(HELPER).arg("sandbox"), descriptors)
    }

    /// Starts a command that starts the helper.
    pub fn behind(command: &mut Command, mut descriptors: Vec<(RawFd, OwnedFd)>) -> Sandbox {
        let (control, theirs) = pair();
        let (stderr, writer) = pipe();
        descriptors.push((3, theirs.into()));
        inherit(command, descriptors);
        let outer = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer));
        Sandbox { outer, control: Some(Conversation::new(control)), stderr, init: 0 }
    }

    /// Starts a sandbox that works.
    pub fn launch(plan: &Value, descriptors: Vec<(RawFd, OwnedFd)>) -> Sandbox {
        let mut sandbox = Sandbox::new(descriptors);
        sandbox.control().send(plan);
        sandbox.expect_launch();
        sandbox
    }

    pub fn expect_launch(&mut self) {
        let event = self.next();
        assert_eq!(event["event"], "launched", "{event}");
        self.init = event["pid"].as_i64().expect("a PID");
    }

    pub fn control(&mut self) -> &mut Conversation {
        self.control.as_mut().expect("the conversation goes on")
    }

    pub fn next(&mut self) -> Value {
        match self.control().next() {
            Some(event) => event,
            None => panic!("the sandbox ended"),
        }
    }

    /// The host's PID of a process that has just been started.
    pub fn expect_start(&mut self, name: &str) -> i64 {
        let event = self.next();
        assert_eq!((&event["event"], &event["name"]), (&json!("started"), &json!(name)), "{event}");
        event["pid"].as_i64().expect("a PID")
    }

    pub fn request(&mut self, id: u64, mut request: Value) -> Value {
        request["id"] = json!(id);
        self.control().send(&request);
        self.next()
    }

    /// Ends the conversation: the sandbox must end, with everything in it.
    pub fn end(mut self) {
        self.control = None;
        assert_eq!(self.outer.wait(), 0);
        self.expect_nothing_left();
    }

    /// Waits until no process has the sandbox's standard error any more.
    pub fn expect_nothing_left(&self) {
        let mut file = File::from(self.stderr.as_fd().try_clone_to_owned().expect("duplicate"));
        loop {
            wait_readable(std::os::fd::AsRawFd::as_raw_fd(&file), "the end of all processes");
            let mut block = [0; 4096];
            match std::io::Read::read(&mut file, &mut block).expect("read") {
                0 => return,
                length => eprint!("{}", String::from_utf8_lossy(&block[..length])),
            }
        }
    }

    pub fn kill_outer(&mut self) {
        self.outer.kill(Signal::SIGKILL);
        assert_eq!(self.outer.wait(), -9);
    }
}

/// What a script prints in a sandbox of its own, on descriptor 4.
pub fn output_of(changes: Value, user: &str, text: &str) -> String {
    let (reader, writer) = pipe();
    let mut changes = changes;
    changes["processes"] = json!([script("probe", user, &[4], &format!("exec >&4 2>&1\n{text}"))]);
    let mut sandbox = Sandbox::launch(&plan(changes), vec![(4, writer)]);
    sandbox.expect_start("probe");
    let output = read_text(reader);
    let event = sandbox.next();
    assert_eq!(event["event"], "exit", "{event}");
    sandbox.end();
    output
}
