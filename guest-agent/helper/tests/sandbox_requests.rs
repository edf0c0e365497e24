//! What a sandbox answers to requests and to plans that cannot be carried out.

mod common;

use std::os::fd::AsRawFd;
use std::process::Command;

use common::sandbox::{Sandbox, plan, script};
use common::{eventually, names, pair, pipe, read_text, status_field, wait_readable};
use serde_json::{Value, json};

#[test]
fn plans_that_cannot_be_carried_out_end_in_one_message() {
    let process = |argv: &[&str]| json!({"processes": [{"name": "p", "argv": argv, "user": "user", "fds": []}]});
    for (plan, message) in [
        ("nonsense".to_owned(), "the plan cannot be understood: expected ident at line 1 column 2"),
        ("{}".to_owned(), "the plan cannot be understood: missing field `tree` at line 1 column 2"),
        (plan(process(&["/absent", "x"])).to_string(), "cannot start p (/absent): cannot execute it: ENOENT: No such file or directory"),
        (plan(process(&["/usr"])).to_string(), "cannot start p (/usr): cannot execute it: EACCES: Permission denied"),
        (
            plan(process(&["/bin/sh", "a\0b"])).to_string(),
            "cannot start p (/bin/sh): an argument has a zero byte: \"a\\0b\": nul byte found in provided data at position: 1",
        ),
    ] {
        let mut sandbox = Sandbox::new(vec![]);
        sandbox.control().send_text(&format!("{plan}\n"));
        let mut event = sandbox.next();
        if event["event"] == "launched" {
            event = sandbox.next();
        }
        assert_eq!(event, json!({"event": "fatal", "message": message}));
        assert_eq!(sandbox.control().next(), None);
        assert_eq!(sandbox.outer.wait(), 1);
        sandbox.expect_nothing_left();
    }
}

#[test]
fn a_plan_without_end_is_refused() {
    let mut sandbox = Sandbox::new(vec![]);
    let mut stream = sandbox.control.take().expect("a conversation").0.into_inner();
    let writer = std::thread::spawn(move || while std::io::Write::write_all(&mut stream, &[b'x'; 65536]).is_ok() {});
    assert_eq!(sandbox.outer.wait(), 1);
    writer.join().expect("the writer ends");
    let complaint = read_text(sandbox.stderr);
    assert_eq!(complaint, "husk: cannot read the plan from descriptor 3: a message is longer than 1048576 bytes\n");
}

#[test]
fn programs_start_later_and_their_ends_are_told() {
    let (reader, writer) = pipe();
    let mut sandbox = Sandbox::launch(&plan(json!({})), vec![(4, writer)]);
    let spawn = |process: Value| json!({"op": "spawn", "process": process});

    sandbox.control().send(&{
        let mut request = spawn(script("probe", "user", &[4], "echo hello >&4; exit 7"));
        request["id"] = json!(1);
        request
    });
    sandbox.expect_start("probe");
    let (mut answered, mut ended) = (false, false);
    for _ in 0..2 {
        let event = sandbox.next();
        answered |= event == json!({"id": 1, "ok": true});
        ended |= event == json!({"event": "exit", "name": "probe", "code": 7});
    }
    assert!(answered && ended);
    // Its descriptor went with it: neither init nor the outer process holds the pipe.
    assert_eq!(read_text(reader), "hello\n");
    let error = "process again: descriptor 4 was not passed to the sandbox";
    assert_eq!(sandbox.request(2, spawn(script("again", "user", &[4], "true"))), json!({"id": 2, "error": error}));

    let error = "cannot start absent (/absent): cannot execute it: ENOENT: No such file or directory";
    assert_eq!(sandbox.request(3, spawn(json!({"name": "absent", "argv": ["/absent"], "user": "root"}))), json!({"id": 3, "error": error}));

    sandbox.control().send(&json!({"id": 4, "op": "spawn", "process": script("sleeper", "user", &[], "exec sleep 1000")}));
    sandbox.expect_start("sleeper");
    assert_eq!(sandbox.next(), json!({"id": 4, "ok": true}));
    let error = "a process named sleeper is running";
    assert_eq!(sandbox.request(5, spawn(script("sleeper", "user", &[], "true"))), json!({"id": 5, "error": error}));
    let signal = |name: &str, signal: i32| json!({"op": "signal", "name": name, "signal": signal});
    assert_eq!(sandbox.request(6, signal("nobody", 9)), json!({"id": 6, "error": "no process named nobody is running"}));
    assert_eq!(sandbox.request(7, signal("sleeper", 99)), json!({"id": 7, "error": "99 is no signal: EINVAL: Invalid argument"}));
    assert_eq!(sandbox.request(8, signal("sleeper", 15)), json!({"id": 8, "ok": true}));
    assert_eq!(sandbox.next(), json!({"event": "exit", "name": "sleeper", "signal": 15}));
    sandbox.end();
}

#[test]
fn taps_are_made_in_the_sandboxes_own_network_namespace_for_its_user() {
    let mut sandbox = Sandbox::launch(&plan(json!({"tree": {"devices": ["net/tun"]}})), vec![]);
    let tap = |name: &str| json!({"op": "tap", "name": name});
    assert_eq!(sandbox.request(1, tap("husk0")), json!({"id": 1, "ok": true}));
    let namespace = format!("--net=/proc/{}/ns/net", sandbox.init);
    let (status, shown, said) = common::session::outcome(Command::new("nsenter").args([&namespace, "ip", "-d", "link", "show", "husk0"]));
    assert_eq!(status, 0, "{said}");
    for part in ["tun type tap", "vnet_hdr on", "persist on", &format!("user {}", common::sandbox::USER)] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let taken = "the network namespace has a link husk0 already: its links are those of another virtual machine, and two cannot share them";
    assert_eq!(sandbox.request(2, tap("husk0")), json!({"id": 2, "error": taken}));
    let error = "a-name-too-long-for-it is no name for a link";
    assert_eq!(sandbox.request(3, tap("a-name-too-long-for-it")), json!({"id": 3, "error": error}));
    sandbox.end();
}

#[test]
fn requests_that_cannot_be_understood_are_answered() {
    let mut sandbox = Sandbox::launch(&plan(json!({})), vec![]);
    sandbox.control().send_text("{\"id\":1,\"op\":\"dance\"}\nnonsense\n");
    let answer = sandbox.next();
    assert_eq!(answer["id"], 1);
    assert!(answer["error"].as_str().expect("an error").starts_with("unknown variant `dance`"), "{answer}");
    assert_eq!(sandbox.next(), json!({"id": null, "error": "expected ident at line 1 column 2"}));
    let long = "x".repeat(200 << 10);
    let answer = sandbox.request(3, json!({"op": "spawn", "process": script("long", "user", &[], &long)}));
    assert_eq!(answer, json!({"id": 3, "error": "the request is longer than 131072 bytes"}));
    sandbox.end();
}

#[test]
fn a_socket_of_a_program_can_be_connected_before_the_program_looks() {
    let argv = ["/bin/sh", "-c", "readlink /proc/self/fd/5 | cut -c1-7 >&4; kill -STOP $$"];
    let process = json!({"name": "server", "argv": argv, "user": "root", "fds": [4], "socket": "/run/server.sock", "socketFd": 5});
    let (reader, writer) = pipe();
    let mut sandbox = Sandbox::launch(&plan(json!({"processes": [process]})), vec![(4, writer)]);
    let server = sandbox.expect_start("server");
    wait_readable(reader.as_raw_fd(), "the server");
    let path = format!("/proc/{server}/root/run/server.sock");
    std::os::unix::net::UnixStream::connect(&path).expect("connect");
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(&path).expect("the socket");
    assert_eq!((metadata.uid(), metadata.mode() & 0o777), (common::sandbox::USER, 0o600));
    // The program is stopped, which must not keep the sandbox alive.
    sandbox.end();
    assert_eq!(read_text(reader), "socket:\n");
}

#[test]
fn orphans_are_reaped() {
    let (reader, writer) = pipe();
    let text = "(sh -c 'read -r line <&5' &) ; exec sleep 1000 4>&-";
    let (hold, theirs) = pair();
    let mut sandbox =
        Sandbox::launch(&plan(json!({"processes": [script("parent", "user", &[4, 5], text)]})), vec![(4, writer), (5, theirs.into())]);
    sandbox.expect_start("parent");
    drop(hold);
    // The orphan had the pipe's other end.
    assert_eq!(read_text(reader), "");
    let init = sandbox.init;
    eventually("the orphan is reaped", || {
        let children = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).expect("the children of init");
        children.split_whitespace().count() == 1
    });
    assert!(names("/proc").contains(&init.to_string()));
    assert_eq!(status_field(init, "Threads"), "1");
    sandbox.end();
}
