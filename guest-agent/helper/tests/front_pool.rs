//! `husk-helper front` and the pool: the test is the supervisor that waits. Node's place has a script that only ends with 5.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use common::session::{dist, husk};
use common::{Conversation, Folder, Process, accept};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// A pool's folder, and a program in Node's place that tells that it was asked.
fn pool() -> Folder {
    let folder = dist("printf '{\"op\":\"exit\",\"status\":5}\\n' >&3; read -r hello <&3");
    fs::create_dir(folder.path("pool")).expect("make the pools' folder");
    folder
}

/// A supervisor that waits at SHAPE/NAME.sock.
fn waiting(folder: &Folder, name: &str) -> UnixListener {
    let path = folder.path("pool").join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("make the pool's folder");
    UnixListener::bind(path).expect("listen")
}

fn start(folder: &Folder, pool: PathBuf, words: &[&str]) -> Process {
    Process::start(husk(folder, words).env("HUSK_POOL", pool).env("MARK", "a b"))
}

/// Takes the call, and answers what it was asked.
fn asked(listener: &UnixListener) -> (Conversation, Value) {
    let mut supervisor = Conversation::new(accept(listener));
    let request = supervisor.next().expect("a request");
    (supervisor, request)
}

const WORDS: [&str; 4] = ["--debug", "run", "-d", "box"];

#[test]
fn run_and_create_are_served_by_a_supervisor_that_waits() {
    let folder = pool();
    let listener = waiting(&folder, "k/1.sock");
    for (verb, words) in [("run", &WORDS[..]), ("create", &["create", "box"])] {
        let mut process = start(&folder, folder.path("pool"), words);
        let (mut supervisor, request) = asked(&listener);
        assert_eq!((&request["session"], &request["words"]), (&json!(verb), &json!(words)));
        assert_eq!(request["cwd"], json!(std::env::current_dir().expect("a folder")));
        let program = fs::metadata(folder.path("supervisor.js")).expect("the program");
        let changed = i128::from(program.mtime()) * 1_000_000_000 + i128::from(program.mtime_nsec());
        assert_eq!(request["program"], json!(format!("{}:{}:{changed}", program.dev(), program.ino())));
        assert_eq!(request["hello"]["pid"], json!(process.pid().as_raw()));
        assert!(request["umask"].as_u64().is_some_and(|mask| mask <= 0o777), "{request}");
        let environment = request["environment"].as_array().expect("the environment");
        assert!(environment.contains(&json!(["MARK", "a b"])));
        supervisor.send(&json!({"op": "take"}));
        supervisor.send(&json!({"op": "exit", "status": 9}));
        assert_eq!(process.wait(), 9);
    }
}

#[test]
fn no_other_call_is_for_the_pool_and_none_where_there_is_no_pool() {
    let folder = pool();
    let _listener = waiting(&folder, "k/1.sock");
    folder.file("husk.js", "exit 6");
    assert_eq!(start(&folder, folder.path("pool"), &["state", "box"]).wait(), 6);
    for pool in [PathBuf::new(), folder.path("nothing"), folder.path("pool/k")] {
        assert_eq!(start(&folder, pool, &WORDS).wait(), 5);
    }
}

#[test]
fn a_supervisor_that_declines_leaves_the_call_to_node() {
    let folder = pool();
    let listener = waiting(&folder, "k/1.sock");
    // Its own shape, once more, and one that nobody has, and one that is no name.
    for decline in [json!({}), json!({"shape": "other"}), json!({"shape": "../pool/k"}), json!({"shape": null})] {
        let mut process = start(&folder, folder.path("pool"), &WORDS);
        let (mut supervisor, _) = asked(&listener);
        let mut order = json!({"op": "decline"});
        order.as_object_mut().expect("an object").extend(decline.as_object().expect("an object").clone());
        supervisor.send(&order);
        assert_eq!(process.wait(), 5);
    }
}

#[test]
fn a_supervisor_that_declines_may_say_whose_it_is() {
    let folder = pool();
    let (first, second) = (waiting(&folder, "k1/1.sock"), waiting(&folder, "k2/7.sock"));
    let mut process = start(&folder, folder.path("pool"), &WORDS);
    // Front begins anywhere.
    let (asked_first, listener, shape) =
        if common::is_readable_soon(&first, &second) { (asked(&first), &second, "k2") } else { (asked(&second), &first, "k1") };
    let (mut supervisor, _) = asked_first;
    supervisor.send(&json!({"op": "decline", "shape": shape}));
    let (mut supervisor, _) = asked(listener);
    supervisor.send(&json!({"op": "exit", "status": 7}));
    assert_eq!(process.wait(), 7);
}

#[test]
fn a_supervisor_that_has_a_sandbox_is_asked_before_one_that_has_none() {
    let folder = pool();
    let [spare, standby] = ["k.spare/1.sock", "k.standby/1.sock"].map(|name| waiting(&folder, name));
    // Front begins anywhere, by its PID.
    for _ in 0..4 {
        let mut process = start(&folder, folder.path("pool"), &WORDS);
        let (mut supervisor, _) = asked(&standby);
        supervisor.send(&json!({"op": "decline", "shape": "k"}));
        let (mut supervisor, _) = asked(&spare);
        supervisor.send(&json!({"op": "exit", "status": 7}));
        assert_eq!(process.wait(), 7);
    }
}

#[test]
fn a_supervisor_that_is_gone_or_says_nothing_is_not_waited_for() {
    let folder = pool();
    drop(waiting(&folder, "k/1.sock"));
    assert_eq!(start(&folder, folder.path("pool"), &WORDS).wait(), 5);
    let listeners = [waiting(&folder, "k/2.sock"), waiting(&folder, "k/3.sock")];
    let mut process = start(&folder, folder.path("pool"), &WORDS);
    let first = common::is_readable_soon(&listeners[0], &listeners[1]);
    let [begin, other] = if first { [0, 1] } else { [1, 0] };
    drop(asked(&listeners[begin]));
    let (mut supervisor, _) = asked(&listeners[other]);
    supervisor.send(&json!({"op": "exit", "status": 8}));
    assert_eq!(process.wait(), 8);
}

#[test]
fn a_signal_ends_a_call_that_nobody_has_taken() {
    let folder = pool();
    let listener = waiting(&folder, "k/1.sock");
    let mut process = start(&folder, folder.path("pool"), &WORDS);
    let (mut supervisor, _) = asked(&listener);
    process.kill(Signal::SIGTERM);
    assert_eq!(process.wait(), -(Signal::SIGTERM as i32));
    assert_eq!(supervisor.next(), None);
}
