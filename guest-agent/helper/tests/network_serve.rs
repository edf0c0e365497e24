//! A network namespace served: what it says of itself, its name server, and connections to its loopback addresses.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::process::Command;

use common::{Conversation, Folder, HELPER, Process, accept, eventually, inherit, pair, pipe, wait_readable};
use serde_json::{Value, json};

struct Served {
    namespace: Process,
    helper: Process,
    conversation: Conversation,
    last: u64,
}

impl Served {
    /// `loopback`: whether the loopback link is up from the beginning.
    fn new(loopback: bool) -> Served {
        let (reader, writer) = pipe();
        let mut command = Command::new("unshare");
        let script = format!("{} echo ready; exec sleep 1000", if loopback { "ip link set lo up;" } else { "" });
        let namespace = Process::start(command.args(["--net", "sh", "-c", &script]).stdout(writer));
        wait_readable(reader.as_raw_fd(), "the namespace");
        let (ours, theirs) = pair();
        let mut command = Command::new(HELPER);
        command.args(["network", "serve", "--netns", &netns(&namespace)]);
        inherit(&mut command, vec![(3, theirs.into())]);
        let helper = Process::start(&mut command);
        drop(command);
        Served { namespace, helper, conversation: Conversation::new(ours), last: 0 }
    }

    /// Sends a request and waits for its answer; events before it are left out.
    fn ask(&mut self, mut request: Value) -> Value {
        self.last += 1;
        request["id"] = json!(self.last);
        self.conversation.send(&request);
        loop {
            let mut message = self.conversation.next().expect("an answer");
            if message["id"] == json!(self.last) {
                message.as_object_mut().expect("an object").remove("id");
                return message;
            }
        }
    }

    fn ip(&self, words: &str) {
        let mut command = Command::new("nsenter");
        let status = command.arg(format!("--net={}", netns(&self.namespace))).arg("ip").args(words.split(' ')).status();
        assert!(status.expect("ip runs").success(), "{words}");
    }

    /// Runs code in the namespace, on a thread of its own.
    fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
        let namespace = std::fs::File::open(netns(&self.namespace)).expect("the namespace");
        std::thread::spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            work()
        })
    }
}

fn netns(process: &Process) -> String {
    format!("/proc/{}/ns/net", process.pid())
}

#[test]
fn a_change_is_told_once_after_each_look() {
    let mut served = Served::new(true);
    let empty = json!({"contents": {"links": [], "routes": [], "neighbours": []}, "resolver": false});
    assert_eq!(served.ask(json!({"op": "scan"})), empty);
    served.ip("tuntap add dev eth0 mode tap");
    served.ip("address add 10.9.0.2/24 dev eth0");
    served.conversation.expect(json!({"event": "changed"}));
    let found = served.ask(json!({"op": "scan"}));
    assert_eq!(found["contents"]["links"][0]["addresses"], json!(["10.9.0.2/24"]));
    served.ip("link delete eth0");
    served.conversation.expect(json!({"event": "changed"}));
    assert_eq!(served.ask(json!({"op": "scan"})), empty);
}

#[test]
fn questions_go_to_the_name_server_and_answers_come_back() {
    let mut served = Served::new(true);
    let refused = served.ask(json!({"op": "ask", "query": "0001", "tcp": false}));
    assert_eq!(refused, json!({"error": "the name server does not answer: ECONNREFUSED: Connection refused"}));
    let (udp, tcp) = served
        .inside(|| (UdpSocket::bind("127.0.0.11:53").expect("bind"), TcpListener::bind("127.0.0.11:53").expect("bind")))
        .join()
        .expect("a server");
    assert_eq!(served.ask(json!({"op": "scan"}))["resolver"], json!(true));
    let server = std::thread::spawn(move || {
        let mut question = [0; 2];
        let (_, client) = udp.recv_from(&mut question).expect("a question");
        assert_eq!(question, [0xab, 0xcd]);
        udp.send_to(&[1, 2, 3], client).expect("send");
        let (mut stream, _) = tcp.accept().expect("a connection");
        let mut question = [0; 4];
        stream.read_exact(&mut question).expect("a question");
        assert_eq!(question, [0, 2, 0xef, 0x01]);
        // An answer in pieces, and one that is cut.
        for piece in [&[0_u8][..], &[3, 7], &[8, 9]] {
            stream.write_all(piece).expect("send");
        }
        let (mut stream, _) = tcp.accept().expect("a connection");
        stream.read_exact(&mut question).expect("a question");
        stream.write_all(&[0, 3, 7]).expect("send");
    });
    assert_eq!(served.ask(json!({"op": "ask", "query": "abcd", "tcp": false})), json!({"answer": "010203"}));
    assert_eq!(served.ask(json!({"op": "ask", "query": "ef01", "tcp": true})), json!({"answer": "070809"}));
    let cut = served.ask(json!({"op": "ask", "query": "ef01", "tcp": true}));
    assert!(cut["error"].as_str().expect("an error").starts_with("the name server does not answer"), "{cut}");
    server.join().expect("the server");
}

#[test]
fn what_is_no_question_is_refused() {
    let mut served = Served::new(true);
    for query in ["xy".to_owned(), "abc".to_owned(), "00".repeat(65536)] {
        assert!(served.ask(json!({"op": "ask", "query": query, "tcp": false}))["error"].is_string());
    }
    assert_eq!(served.ask(json!({"op": "scan"}))["resolver"], json!(false), "it goes on");
}

#[test]
fn connections_to_localhost_are_carried_and_each_direction_has_its_own_end() {
    let folder = Folder::new();
    let listener = UnixListener::bind(folder.path("sock")).expect("listen");
    // The loopback link may come up later.
    let mut served = Served::new(false);
    assert_eq!(served.ask(json!({"op": "forward", "socket": folder.path("sock")})), json!({"ok": true}));
    served.ip("link set lo up");
    let block = vec![7_u8; 3 << 20];
    for (address, line) in [("127.0.0.1:80", "{\"family\":4,\"port\":80}\n"), ("[::1]:8080", "{\"family\":6,\"port\":8080}\n")] {
        let sent = block.clone();
        let caller = served.inside(move || {
            let mut stream = TcpStream::connect(address).expect("connect");
            stream.write_all(&sent).expect("send");
            stream.shutdown(Shutdown::Write).expect("shut down");
            let mut received = Vec::new();
            stream.read_to_end(&mut received).expect("receive");
            received
        });
        let mut guest = accept(&listener);
        let mut said = vec![0; line.len()];
        guest.read_exact(&mut said).expect("the line");
        assert_eq!(String::from_utf8_lossy(&said), line);
        guest.write_all(b"+").expect("accept");
        let mut received = Vec::new();
        guest.read_to_end(&mut received).expect("receive");
        assert!(received == block);
        guest.write_all(b"goodbye").expect("send");
        drop(guest);
        assert_eq!(caller.join().expect("the caller"), b"goodbye");
    }
    // Where the guest has nobody, the connection is reset.
    let caller = served.inside(|| TcpStream::connect("127.0.0.1:81").expect("connect").read(&mut [0]).map_err(|error| error.kind()));
    drop(accept(&listener));
    assert_eq!(caller.join().expect("the caller"), Err(std::io::ErrorKind::ConnectionReset));

    // With the helper goes what it had in the namespace, however it ends.
    served.helper.kill(nix::sys::signal::Signal::SIGKILL);
    served.helper.wait();
    let dial = || TcpStream::connect("127.0.0.1:80").map(drop).map_err(|error| error.kind());
    eventually("nobody listens", || served.inside(dial).join().expect("the caller") == Err(std::io::ErrorKind::ConnectionRefused));
}

#[test]
fn it_keeps_no_capability_and_ends_with_the_conversation() {
    let folder = Folder::new();
    let mut served = Served::new(true);
    served.ask(json!({"op": "scan"}));
    let capabilities = |served: &Served| common::status_field(i64::from(served.helper.pid().as_raw()), "CapEff");
    assert_eq!(capabilities(&served), "0000000000001100");
    assert_eq!(served.ask(json!({"op": "forward", "socket": folder.path("sock")})), json!({"ok": true}));
    assert_eq!(capabilities(&served), "0000000000000000");
    let Served { mut helper, conversation, .. } = served;
    drop(conversation);
    assert_eq!(helper.wait(), 0);
}
