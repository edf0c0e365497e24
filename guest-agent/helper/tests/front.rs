//! What front does before there is a stand-in, and without one.

mod common;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::process::Command;

use common::session::{Session, dist, husk, null, outcome, pipes};
use common::{Conversation, Folder, HELPER, Process, eventually, pidfd, pipe, read_text, status_field, wait_readable};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::json;

#[test]
fn what_is_no_session_becomes_the_command_line() {
    let folder = Folder::new();
    folder.file("husk.js", "echo \"$$ $0 $*\"; exit 3");
    let ((reader, writer), words) = (pipe(), ["--root", "run", "state", "a b"]);
    let mut process = Process::start(husk(&folder, &words).stdout(writer));
    assert_eq!(process.wait(), 3);
    let expected = format!("{} {} --root run state a b\n", process.pid(), folder.path("husk.js").display());
    assert_eq!(read_text(reader), expected, "the process is the same");

    let mut absent = Command::new(HELPER);
    absent.args(["front", "--node", "/absent/node", "--dist", "/absent", "--", "list"]);
    let message = "husk: cannot execute /absent/node (run `npm run setup`): ENOENT: No such file or directory\n";
    assert_eq!(outcome(&mut absent), (1, String::new(), message.into()));
}

#[test]
fn a_session_is_served_by_a_program_aside() {
    let script = r#"
        dist=${0%/*}; read -r hello <&3
        printf '{"op":"dance"}\n{"op":"print","text":"to the user\\n"}\n{"op":"print","text":"a warning\\n","stream":"stderr"}\n' >&3
        read -r answer <&3
        open=$(ls /proc/$$/fd | sort -n | tr '\n' ' ')
        { echo "$answer"; echo "$*"; readlink /proc/$$/fd/0; echo $open; cut -d ' ' -f 6 /proc/$$/stat; echo $$; } > $dist/seen
        echo "$hello" > $dist/hello
        echo nobody reads this; echo nor this >&2
        printf '{"op":"exit","status":17}\n' >&3
    "#;
    let folder = dist(script);
    let mut command = husk(&folder, &["--debug", "run", "-d", "c1"]);
    // What the caller left open is not passed on.
    common::session::also(&mut command, 9, null());
    assert_eq!(outcome(&mut command), (17, "to the user\n".into(), "a warning\n".into()));
    eventually("the program has written what it saw", || folder.path("hello").exists());
    let seen = fs::read_to_string(folder.path("seen")).expect("what it saw");
    let lines = seen.lines().collect::<Vec<_>>();
    assert!(lines[0].starts_with(r#"{"error":"unknown variant `dance`"#), "{seen}");
    // 4 and 10 are the shell's own, for this line and its script.
    assert_eq!(lines[1..4], ["--debug run -d c1", "/dev/null", "0 1 2 3 4 10"]);
    assert_eq!(lines[4], lines[5], "it leads a session of its own");
}

#[test]
fn the_supervisors_node_leaves_certificates_unread_unless_somebody_speaks_of_them() {
    let flags = |name: &str, value: &str| {
        let folder = dist("printf '{\"op\":\"exit\",\"status\":0}\\n' >&3");
        assert_eq!(outcome(husk(&folder, &["run", "c1"]).env(name, value)).0, 0);
        fs::read_to_string(folder.path("flags")).expect("the flags").trim().to_owned()
    };
    assert_eq!(flags("NODE_OPTIONS", ""), "--use-openssl-ca");
    assert_eq!(flags("NODE_OPTIONS", "--use-bundled-ca"), "");
    assert_eq!(flags("NODE_USE_SYSTEM_CA", "1"), "");
}

#[test]
fn the_program_is_told_what_the_callers_streams_are() {
    let (streams, ends) = pipes();
    let session = Session::start(streams);
    let none = json!({"stdin": false, "stdout": false, "stderr": false});
    let expected = json!({"op": "hello", "pid": session.front.pid().as_raw(), "terminal": none, "size": null});
    assert_eq!(session.hello(), expected);
    assert_eq!(session.finish(json!({"op": "exit", "code": 0})), 0);
    drop(ends);
}

#[test]
fn exec_is_served_by_the_command_line() {
    let folder = dist("exit 1");
    folder.file("husk.js", "printf '{\"op\":\"exit\",\"status\":5}\\n' >&3; read -r hello <&3");
    assert_eq!(outcome(&mut husk(&folder, &["exec", "c1", "true"])).0, 5);
}

#[test]
fn a_failure_is_printed_once_the_program_has_nothing_left_to_do() {
    let folder = dist(
        "dist=${0%/*}; printf '{\"op\":\"fail\",\"message\":\"no such container\",\"status\":1}\\n' >&3; read -r end < $dist/end; : > $dist/clean",
    );
    let (reader, writer) = pipe();
    let mut process = Process::start(husk(&folder, &["run", "c1"]).stderr(writer));
    wait_readable(reader.as_raw_fd(), "the message");
    assert!(!process.has_ended(), "it waits for the program's end");
    fs::write(folder.path("end"), "go\n").expect("write");
    assert_eq!(process.wait(), 1);
    assert!(folder.path("clean").exists());
    assert_eq!(read_text(reader), "husk: no such container\n");
}

#[test]
fn a_program_that_dies_without_a_word_is_quoted() {
    for (script, message) in [
        ("echo first >&2; echo second; exit 3", "husk: first | second\n"),
        ("exit 3", "husk: the supervisor ended with status 3 before it said what became of the call\n"),
        ("kill -9 $$", "husk: the supervisor was killed by SIGKILL before it said what became of the call\n"),
        // The conversation may end before the program does.
        ("exec 3>&-; echo said >&2; exit 0", "husk: said\n"),
    ] {
        for (verb, status) in [("run", 125), ("create", 1)] {
            assert_eq!(outcome(&mut husk(&dist(script), &[verb, "c1"])), (status, String::new(), message.into()), "{script}");
        }
    }
    let folder =
        dist("printf '{\"op\":\"attach\",\"socket\":\"/absent/sock\",\"token\":\"T\"}\\n' >&3; read -r hello <&3; read -r end <&3");
    let message = "husk: cannot connect to the socket /absent/sock: ENOENT: No such file or directory\n";
    assert_eq!(outcome(&mut husk(&folder, &["run", "c1"])), (125, String::new(), message.into()));
}

#[test]
fn signals_before_there_is_a_stand_in_are_the_programs() {
    for (signal, name) in [(Signal::SIGINT, "INT"), (Signal::SIGTERM, "TERM"), (Signal::SIGHUP, "HUP"), (Signal::SIGQUIT, "QUIT")] {
        let script = format!(
            "dist=${{0%/*}}; trap 'printf \"{{\\\"op\\\":\\\"exit\\\",\\\"status\\\":130}}\\n\" >&3; exit' {name}
: > $dist/ready; read -r end < $dist/end"
        );
        let folder = dist(&script);
        let mut process = Process::start(&mut husk(&folder, &["run", "c1"]));
        eventually("the program is ready", || folder.path("ready").exists());
        process.kill(signal);
        assert_eq!(process.wait(), 130, "{name}");
    }
}

#[test]
fn a_killed_front_shows_to_the_program() {
    let folder = dist("dist=${0%/*}; read -r hello <&3; : > $dist/ready; read -r more <&3; : > $dist/over");
    let mut process = Process::start(&mut husk(&folder, &["run", "c1"]));
    eventually("the program is ready", || folder.path("ready").exists());
    process.kill(Signal::SIGKILL);
    assert_eq!(process.wait(), -9);
    eventually("the program sees the end of the conversation", || folder.path("over").exists());
}

#[test]
fn a_detached_stand_in_is_a_descendant_of_the_caller_and_ends_as_its_process() {
    // As conmon and containerd's shim do.
    prctl::set_child_subreaper(true).expect("become a subreaper");
    let (streams, ends) = pipes();
    let mut session = Session::start_detached(streams);
    assert_eq!(session.front.wait(), 0);
    let stand_in = Pid::from_raw(session.pid as i32);
    assert_ne!(stand_in, session.front.pid());
    eventually("it is ours", || status_field(session.pid, "PPid") == std::process::id().to_string());
    let field = |number: usize| {
        let stat = fs::read_to_string(format!("/proc/{stand_in}/stat")).expect("its state");
        stat.rsplit(") ").next().expect("fields").split(' ').nth(number - 3).expect("a field").to_owned()
    };
    assert_eq!(field(6), stand_in.to_string(), "it leads a session of its own");

    let [stdin, stdout, stderr] = session.place_all();
    // Of what it inherited, it has the standard streams, and of front's own nothing.
    let pipes = common::names(format!("/proc/{stand_in}/fd"))
        .iter()
        .filter_map(|name| fs::read_link(format!("/proc/{stand_in}/fd/{name}")).ok())
        .filter(|target| target.to_string_lossy().starts_with("pipe:"))
        .collect::<std::collections::BTreeSet<_>>();
    assert_eq!(pipes.len(), 3, "{pipes:?}");
    std::io::Write::write_all(&mut &stdout, b"out").expect("write");
    drop((stdin, stdout, stderr));
    session.control().send(&json!({"op": "exit", "signal": 15}));
    assert_eq!(read_text(ends.stdout), "out");
    assert_eq!(read_text(ends.stderr), "");
    wait_readable(pidfd(stand_in).as_raw_fd(), "the end of the stand-in");
    assert_eq!(waitpid(stand_in, None), Ok(WaitStatus::Signaled(stand_in, Signal::SIGTERM, false)));
    session.let_script_end();
}

#[test]
fn front_waits_for_the_program_that_served_its_stand_in() {
    let (streams, ends) = pipes();
    let mut session = Session::start(streams);
    drop(session.place_all());
    session.control().send(&json!({"op": "exit", "code": 4}));
    drop(session.control.take());
    assert_eq!(read_text(ends.stdout.try_clone().expect("duplicate")).len(), 0);
    assert!(!session.front.has_ended());
    session.let_script_end();
    assert_eq!(session.front.wait(), 4);
}

#[test]
fn front_does_not_wait_for_a_program_that_stays_for_others() {
    for (word, status) in
        [(json!({"op": "exit", "code": 4, "stays": true}), 4), (json!({"op": "fail", "message": "M", "status": 5, "stays": true}), 5)]
    {
        let (streams, _ends) = pipes();
        let mut session = Session::start(streams);
        drop(session.place_all());
        session.control().send(&word);
        drop(session.control.take());
        assert_eq!(session.front.wait(), status);
        session.let_script_end();
    }
}

#[test]
fn nothing_is_left_when_a_call_cannot_be_made_sense_of() {
    let usage = "husk: usage: husk-helper front --node NODE --dist DIR -- WORDS...\n";
    assert_eq!(outcome(Command::new(HELPER).args(["front", "run"])), (1, String::new(), usage.into()));
    let (status, stdout, stderr) = outcome(Command::new(HELPER).arg("dance"));
    assert_eq!((status, stdout), (1, String::new()));
    assert!(stderr.starts_with("husk: usage: husk-helper front|") && stderr.ends_with("see PROTOCOL.md\n"), "{stderr}");
}

/// A folder with a container's socket, and a program in Node's place that tells that it was asked.
fn container() -> (Folder, UnixListener) {
    let folder = dist("exit 1");
    folder.file("husk.js", "printf '{\"op\":\"exit\",\"status\":5}\\n' >&3; read -r hello <&3");
    fs::create_dir(folder.path("box")).expect("make the run folder");
    let listener = UnixListener::bind(folder.path("box/sock")).expect("listen");
    (folder, listener)
}

/// Starts a call for the container, and answers its first words to the supervisor.
fn ask_for(folder: &Folder, listener: &UnixListener, words: &[&str]) -> (Process, Conversation, serde_json::Value) {
    let root = folder.0.to_str().expect("a path in words").to_owned();
    let process = Process::start(&mut husk(folder, &[&["--root", &root], words].concat()));
    let mut supervisor = Conversation::new(common::accept(listener));
    let request = supervisor.next().expect("a request");
    (process, supervisor, request)
}

fn ask(folder: &Folder, listener: &UnixListener) -> (Process, Conversation, serde_json::Value) {
    ask_for(folder, listener, &["exec", "-e", "A=b", "box", "ls", "-l"])
}

#[test]
fn exec_is_served_by_the_supervisor_where_there_is_one() {
    let (folder, listener) = container();
    let (mut process, mut supervisor, request) = ask(&folder, &listener);
    assert_eq!(request["session"], "exec");
    assert_eq!(request["words"], json!(["--root", folder.0, "exec", "-e", "A=b", "box", "ls", "-l"]));
    assert_eq!(request["cwd"], json!(std::env::current_dir().expect("a folder")));
    assert_eq!(request["hello"]["pid"], json!(process.pid().as_raw()));
    supervisor.send(&json!({"op": "exit", "status": 9}));
    assert_eq!(process.wait(), 9);
}

#[test]
fn a_supervisor_that_declines_or_says_nothing_leaves_exec_to_the_command_line() {
    let (folder, listener) = container();
    let (mut process, mut supervisor, _) = ask(&folder, &listener);
    supervisor.send(&json!({"op": "decline"}));
    assert_eq!(process.wait(), 5);
    let (mut process, supervisor, _) = ask(&folder, &listener);
    drop(supervisor);
    assert_eq!(process.wait(), 5);
}

#[test]
fn exec_does_not_begin_again_once_something_was_done() {
    let (folder, listener) = container();
    let (mut process, mut supervisor, _) = ask(&folder, &listener);
    supervisor.send(&json!({"op": "print", "text": ""}));
    drop(supervisor);
    assert_eq!(process.wait(), 255);
}

#[test]
fn a_signal_ends_exec_before_there_is_a_stand_in() {
    let (folder, listener) = container();
    let (mut process, mut supervisor, _) = ask(&folder, &listener);
    nix::sys::signal::kill(process.pid(), Signal::SIGTERM).expect("kill");
    assert_eq!(process.wait(), -(Signal::SIGTERM as i32));
    assert_eq!(supervisor.next(), None);
}

#[test]
fn verbs_that_need_the_supervisor_alone_are_served_by_it() {
    let (folder, listener) = container();
    for words in [&["kill", "--all", "box", "KILL"][..], &["start", "box"], &["pause", "box"], &["resume", "box"], &["state", "box"]] {
        let (mut process, mut supervisor, request) = ask_for(&folder, &listener, words);
        assert_eq!(request["session"], "verb");
        assert_eq!(request["words"], json!([&["--root", folder.0.to_str().expect("a path in words")], words].concat()));
        supervisor.send(&json!({"op": "take"}));
        supervisor.send(&json!({"op": "exit", "status": 0}));
        assert_eq!(process.wait(), 0);
    }
    let (mut process, mut supervisor, _) = ask_for(&folder, &listener, &["kill", "box"]);
    supervisor.send(&json!({"op": "take"}));
    drop(supervisor);
    assert_eq!(process.wait(), 1, "it does not begin again");
}

#[test]
fn a_verb_that_the_supervisor_declines_is_the_command_lines_own() {
    let (folder, listener) = container();
    // Its signals have their actions, as its caller left them. The shell reads that itself: it blocks signals where it makes another process.
    folder.file(
        "husk.js",
        "while read -r name mask; do [ \"$name $mask\" != 'SigBlk: 0000000000000000' ] || exit 7; done < /proc/self/status",
    );
    let (mut process, mut supervisor, _) = ask_for(&folder, &listener, &["kill", "box"]);
    supervisor.send(&json!({"op": "decline"}));
    assert_eq!(process.wait(), 7);
}

#[test]
fn a_signal_ends_a_verb_that_the_supervisor_serves() {
    let (folder, listener) = container();
    let (mut process, mut supervisor, _) = ask_for(&folder, &listener, &["start", "box"]);
    nix::sys::signal::kill(process.pid(), Signal::SIGTERM).expect("kill");
    assert_eq!(process.wait(), -(Signal::SIGTERM as i32));
    assert_eq!(supervisor.next(), None);
}

#[test]
fn a_state_is_the_command_lines_where_the_supervisor_stands_still() {
    let (folder, listener) = container();
    folder.file("husk.js", "exit 7");
    let (mut process, _supervisor, _) = ask_for(&folder, &listener, &["state", "box"]);
    assert_eq!(process.wait(), 7);
}
