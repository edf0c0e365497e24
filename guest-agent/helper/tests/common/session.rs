//! A session of `husk-helper front`, in which the test is the supervisor: what front starts is a shell script that only says where to dial.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use serde_json::{Value, json};

use super::{Conversation, Folder, HELPER, PATIENCE, Process, accept, inherit, pipe};

/// The program that front runs in place of Node: a shell.
const NODE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/node");

/// What the script of a session begins with. It ends when the test lets it.
const BEGIN: &str = "dist=${0%/*}; read -r hello <&3; echo \"$hello\" > $dist/hello\n";
const END: &str = "\nread -r end < $dist/end\n";

pub struct Session {
    pub folder: Folder,
    pub front: Process,
    listener: UnixListener,
    pub control: Option<Conversation>,
    /// What the stand-in says its PID is.
    pub pid: i64,
}

/// A folder with a program for sessions, in the place of husk's own.
pub fn dist(script: &str) -> Folder {
    let folder = Folder::new();
    folder.file("supervisor.js", script);
    for name in ["go", "end"] {
        nix::unistd::mkfifo(&folder.path(name), Mode::from_bits_truncate(0o600)).expect("make a fifo");
    }
    folder
}

/// `husk WORDS`, from that folder.
pub fn husk(folder: &Folder, words: &[&str]) -> Command {
    let mut command = Command::new(HELPER);
    command.args(["front", "--node", NODE, "--dist"]).arg(&folder.0).arg("--").args(words);
    command.env_remove("NODE_OPTIONS").env_remove("NODE_USE_SYSTEM_CA");
    command
}

impl Session {
    /// Starts a session in the foreground.
    pub fn start(streams: [OwnedFd; 3]) -> Session {
        Session::run(false, "", |command| inherit_streams(command, streams))
    }

    /// Starts a session that leaves its stand-in in the background.
    pub fn start_detached(streams: [OwnedFd; 3]) -> Session {
        Session::run(true, "printf '{\"op\":\"exit\",\"status\":0}\\n' >&3", |command| inherit_streams(command, streams))
    }

    /// `after`: what the script does once the stand-in has dialled.
    pub fn run(detach: bool, after: &str, prepare: impl FnOnce(&mut Command)) -> Session {
        let attach = format!("printf '{{\"op\":\"attach\",\"socket\":\"%s\",\"token\":\"T\",\"detach\":{detach}}}\\n' $dist/sock >&3\n");
        let wait = if after.is_empty() { "" } else { "read -r dialled < $dist/go\n" };
        let folder = dist(&format!("{BEGIN}{attach}{wait}{after}{END}"));
        let listener = UnixListener::bind(folder.path("sock")).expect("listen");
        let mut command = husk(&folder, &["run", "x"]);
        prepare(&mut command);
        let front = Process::start(&mut command);
        let mut control = Conversation::new(accept(&listener));
        let first = control.next().expect("a first line");
        let pid = first["pid"].as_i64().expect("a PID");
        assert_eq!(first, json!({"attach": "T", "stream": "control", "pid": pid}));
        let session = Session { folder, front, listener, control: Some(control), pid };
        if !after.is_empty() {
            session.write_to("go");
        }
        session
    }

    pub fn hello(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.folder.path("hello")).expect("the first message")).expect("JSON")
    }

    pub fn control(&mut self) -> &mut Conversation {
        self.control.as_mut().expect("the conversation goes on")
    }

    /// Sends the stand-in to its place, and answers its streams in that order, and what it said.
    pub fn place(&mut self, streams: &[&str], changes: Value) -> (Vec<UnixStream>, Value) {
        let mut place = json!({
            "op": "place", "netns": null, "rootfs": null, "cgroups": [], "streams": streams, "terminal": false, "consoleSocket": null,
            "size": null, "signals": true,
        });
        for (key, value) in changes.as_object().expect("an object") {
            place[key] = value.clone();
        }
        self.control().send(&place);
        self.accept_streams(streams)
    }

    /// Answers the streams that a stand-in dials on its way, and what it says then.
    pub fn accept_streams(&mut self, streams: &[&str]) -> (Vec<UnixStream>, Value) {
        let mut connections = Vec::new();
        for name in streams {
            // Where it fails before, its word comes instead.
            if !self.either_comes() {
                break;
            }
            connections.push(self.accept(name));
        }
        (connections, self.control().next().expect("an answer"))
    }

    /// Waits for a connection or a word. Answers whether it is a connection.
    fn either_comes(&mut self) -> bool {
        let control = self.control.as_ref().expect("the conversation goes on").0.get_ref().as_fd();
        let mut watched = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN), PollFd::new(control, PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(PATIENCE).expect("a short time");
        assert!(poll(&mut watched, timeout).expect("poll") > 0, "neither a stream nor a word came");
        watched[0].any() == Some(true)
    }

    fn accept(&self, name: &str) -> UnixStream {
        let stream = accept(&self.listener);
        let mut line = Vec::new();
        // Not buffered: what follows the line is the stream's.
        while !line.ends_with(b"\n") {
            let mut byte = [0];
            std::io::Read::read_exact(&mut &stream, &mut byte).expect("a first line");
            line.push(byte[0]);
        }
        let first: Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(first, json!({"attach": "T", "stream": name}));
        stream
    }

    /// Sends it to its place with all three streams: answers them in their order.
    pub fn place_all(&mut self) -> [UnixStream; 3] {
        let (streams, placed) = self.place(&["stdin", "stdout", "stderr"], json!({}));
        assert_eq!(placed, json!({"op": "placed", "size": null}));
        streams.try_into().expect("three streams")
    }

    /// Lets the script, which is the supervisor to front, end.
    pub fn let_script_end(&self) {
        self.write_to("end");
    }

    fn write_to(&self, fifo: &str) {
        // Opening waits for the reader.
        writeln!(fs::OpenOptions::new().write(true).open(self.folder.path(fifo)).expect("open the fifo")).expect("write");
    }

    /// Says how the process ended, and answers how front did.
    pub fn finish(mut self, last: Value) -> i32 {
        self.control().send(&last);
        self.let_script_end();
        self.front.wait()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Where the test failed, the script still waits.
        for name in ["go", "end"] {
            let mut fifo = fs::OpenOptions::new();
            std::os::unix::fs::OpenOptionsExt::custom_flags(fifo.write(true), libc::O_NONBLOCK);
            if let Ok(mut fifo) = fifo.open(self.folder.path(name)) {
                let _ = fifo.write_all(b"go\n");
            }
        }
    }
}

/// Gives a command its three standard streams.
pub fn inherit_streams(command: &mut Command, streams: [OwnedFd; 3]) {
    let [stdin, stdout, stderr] = streams;
    command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
}

/// The other ends of three pipes that are somebody's standard streams.
pub struct Ends {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Three pipes: the streams, and their other ends.
pub fn pipes() -> ([OwnedFd; 3], Ends) {
    let ((stdin, in_end), (out_end, stdout), (err_end, stderr)) = (pipe(), pipe(), pipe());
    ([stdin, stdout, stderr], Ends { stdin: in_end, stdout: out_end, stderr: err_end })
}

pub fn null() -> OwnedFd {
    fs::OpenOptions::new().read(true).write(true).open("/dev/null").expect("open").into()
}

/// What a command says and how it ends.
pub fn outcome(command: &mut Command) -> (i32, String, String) {
    let ((out, stdout), (err, stderr)) = (pipe(), pipe());
    let mut process = Process::start(command.stdin(Stdio::null()).stdout(stdout).stderr(stderr));
    // The command's own copies.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (out, err) = (super::read_text(out), super::read_text(err));
    (process.wait(), out, err)
}

/// The first line of a stream.
pub fn line(stream: impl std::io::Read) -> String {
    let mut line = String::new();
    BufReader::with_capacity(1, stream).read_line(&mut line).expect("a line");
    line
}

/// Lets a command inherit one more descriptor.
pub fn also(command: &mut Command, number: RawFd, descriptor: OwnedFd) {
    inherit(command, vec![(number, descriptor)]);
}
