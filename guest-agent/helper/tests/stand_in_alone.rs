//! `husk-helper stand-in`: a stand-in that nobody's session began with.

mod common;

use std::fs;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Command;

use common::session::{also, null, outcome};
use common::{Conversation, Folder, HELPER, Process, accept, pipe, read_text, status_field};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

struct StandIn {
    folder: Folder,
    process: Process,
    control: Option<Conversation>,
}

impl StandIn {
    fn start(prepare: impl FnOnce(&mut Command)) -> StandIn {
        let folder = Folder::new();
        let listener = UnixListener::bind(folder.path("sock")).expect("listen");
        let mut command = Command::new(HELPER);
        command.args(["stand-in", "--token", "T", "--socket"]).arg(folder.path("sock"));
        prepare(&mut command);
        let process = Process::start(&mut command);
        let mut control = Conversation::new(accept(&listener));
        control.expect(json!({"attach": "T", "stream": "control", "pid": process.pid().as_raw()}));
        StandIn { folder, process, control: Some(control) }
    }

    fn control(&mut self) -> &mut Conversation {
        self.control.as_mut().expect("the conversation goes on")
    }

    fn place(&mut self, rootfs: Value) -> Value {
        self.control().send(&json!({"op": "place", "netns": null, "rootfs": rootfs, "cgroups": [], "streams": [], "signals": true}));
        self.control().next().expect("an answer")
    }
}

#[test]
fn it_is_a_process_of_its_own_and_ends_as_the_one_it_stands_for() {
    for (last, status) in [(json!({"op": "exit", "code": 5}), 5), (json!({"op": "exit", "signal": 15}), -15)] {
        let ((reader, writer), (error_reader, errors)) = (pipe(), pipe());
        let mut stand_in = StandIn::start(|command| {
            command.stdin(null()).stdout(writer).stderr(errors);
            also(command, 9, null());
        });
        // Whoever reads its output is not kept waiting.
        assert_eq!((read_text(reader), read_text(error_reader)), (String::new(), String::new()));
        let pid = stand_in.process.pid();
        let mut open = common::names(format!("/proc/{pid}/fd"));
        open.retain(|number| fs::read_link(format!("/proc/{pid}/fd/{number}")).is_ok_and(|path| path.as_os_str() == "/dev/null"));
        assert_eq!(open[..3], ["0", "1", "2"]);
        assert!(!open.contains(&"9".to_owned()), "what was inherited is closed");
        assert_eq!(nix::unistd::getsid(Some(pid)), Ok(pid));

        stand_in.folder.file("rootfs/file", "of the container");
        let rootfs = stand_in.folder.path("rootfs");
        assert_eq!(stand_in.place(json!(rootfs)), json!({"op": "placed", "size": null}));
        assert_eq!(fs::read_to_string(format!("/proc/{pid}/root/file")).expect("its root"), "of the container");
        assert_eq!(status_field(pid.as_raw().into(), "CapEff"), "0000000000000000");
        stand_in.process.kill(Signal::SIGTERM);
        stand_in.control().expect(json!({"op": "signal", "signal": 15}));
        stand_in.process.kill(Signal::SIGHUP);
        stand_in.control().expect(json!({"op": "signal", "signal": 1}));
        stand_in.control().send(&last);
        assert_eq!(stand_in.process.wait(), status);
    }
}

#[test]
fn it_shows_the_words_of_the_process_that_it_stands_for() {
    let long = "x".repeat(5000);
    for (title, line, name) in [
        (json!([]), None, "husk-helper"),
        (json!(["/bin/a program", "-c", "x y"]), Some("/bin/a program\0-c\0x y\0".to_owned()), "a program"),
        (json!(["sixteen-letters!", long]), Some(format!("sixteen-letters!\0{}\0", &long[..4078])), "sixteen-letters"),
    ] {
        let mut stand_in = StandIn::start(|_| ());
        let pid = stand_in.process.pid();
        let words = || fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("its words");
        let line = line.unwrap_or_else(words);
        stand_in.control().send(&json!({"op": "place", "netns": null, "rootfs": null, "title": title}));
        assert_eq!(stand_in.control().next(), Some(json!({"op": "placed", "size": null})));
        assert_eq!(words(), line);
        assert_eq!(status_field(pid.as_raw().into(), "Name"), name);
    }
}

#[test]
fn it_may_lead_a_session_already() {
    let mut stand_in = StandIn::start(|command| {
        // SAFETY: setsid may be called between fork and execve.
        unsafe { command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(std::io::Error::from)) };
    });
    assert_eq!(stand_in.place(Value::Null), json!({"op": "placed", "size": null}));
    stand_in.control().send(&json!({"op": "fail", "message": "no", "status": 3}));
    assert_eq!(stand_in.process.wait(), 3);
}

#[test]
fn it_is_killed_with_its_supervisor() {
    let mut stand_in = StandIn::start(|_| ());
    stand_in.place(Value::Null);
    stand_in.control = None;
    assert_eq!(stand_in.process.wait(), -9);
}

#[test]
fn a_call_that_leads_nowhere_is_an_error() {
    let call = |words: &[&str]| outcome(Command::new(HELPER).arg("stand-in").args(words));
    let message = "husk: cannot connect to the socket /absent: ENOENT: No such file or directory\n";
    assert_eq!(call(&["--socket", "/absent", "--token", "T"]), (1, String::new(), message.into()));
    assert_eq!(call(&["--socket", "/absent"]), (1, String::new(), "husk: --token is missing\n".into()));
}
