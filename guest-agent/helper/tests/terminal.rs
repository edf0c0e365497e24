//! Stand-ins with a terminal: the caller's, and one that is made for an engine.

mod common;

use std::fs;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Command;

use common::session::{Session, null};
use common::{accept, eventually, is_readable, pipe, read_text, wait_readable};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::termios::{LocalFlags, OutputFlags, Termios, tcgetattr};
use serde_json::{Value, json};

const SIZE: Winsize = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };

/// A user's terminal: what the user sees and types, and what programs have.
struct Terminal {
    user: fs::File,
    device: OwnedFd,
}

impl Terminal {
    fn new() -> Terminal {
        let pty = openpty(&SIZE, None).expect("a terminal");
        for end in [&pty.master, &pty.slave] {
            let flag = nix::fcntl::FdFlag::FD_CLOEXEC;
            nix::fcntl::fcntl(end, nix::fcntl::FcntlArg::F_SETFD(flag)).expect("close it at execve");
        }
        Terminal { user: pty.master.into(), device: pty.slave }
    }

    /// Makes it the controlling terminal of a command, in a session of its own.
    fn control(&self, command: &mut Command) {
        for place in [Command::stdin, Command::stdout, Command::stderr] {
            place(command, self.device.try_clone().expect("duplicate"));
        }
        let take = || {
            nix::unistd::setsid()?;
            // SAFETY: only numbers are passed.
            nix::errno::Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
            Ok(())
        };
        // SAFETY: both calls may be made between fork and execve.
        unsafe { command.pre_exec(take) };
    }

    fn mode(&self) -> Termios {
        tcgetattr(&self.device).expect("the terminal's mode")
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ..SIZE };
        // SAFETY: the structure outlives the call.
        assert_eq!(unsafe { libc::ioctl(self.user.as_raw_fd(), libc::TIOCSWINSZ, &size) }, 0);
    }

    fn type_in(&self, text: &[u8]) {
        (&self.user).write_all(text).expect("type");
    }

    /// What appears on the screen, up to and with `end`.
    fn screen_until(&self, end: &str) -> String {
        let mut seen = String::new();
        while !seen.ends_with(end) {
            wait_readable(self.user.as_raw_fd(), end);
            let mut byte = [0];
            (&self.user).read_exact(&mut byte).expect("read");
            seen.push(char::from(byte[0]));
        }
        seen
    }
}

fn session(terminal: &Terminal) -> Session {
    Session::run(false, "", |command| terminal.control(command))
}

fn placed() -> Value {
    json!({"op": "placed", "size": {"rows": 24, "columns": 80}})
}

fn is_raw(mode: &Termios) -> bool {
    !mode.local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
        && !mode.output_flags.contains(OutputFlags::OPOST)
}

#[test]
fn the_callers_terminal_passes_every_byte_and_is_given_back() {
    for last in [
        json!({"op": "exit", "code": 3}),
        json!({"op": "exit", "signal": 9}),
        json!({"op": "fail", "message": "no", "status": 3}),
        json!(null),
    ] {
        let terminal = Terminal::new();
        let before = terminal.mode();
        let mut session = session(&terminal);
        assert_eq!(session.hello()["terminal"], json!({"stdin": true, "stdout": true, "stderr": true}));
        assert_eq!(session.hello()["size"], json!({"rows": 24, "columns": 80}));
        assert_eq!(terminal.mode(), before, "it is not touched before the stand-in has its place");
        let (mut streams, answer) = session.place(&["stdin", "stdout"], json!({"terminal": true}));
        assert_eq!(answer, placed());
        assert!(is_raw(&terminal.mode()));

        // Ctrl-C, Ctrl-Z, Ctrl-D, Ctrl-S and a line: bytes like any others.
        let typed = b"\x03\x1a\x04\x13\x11line\r";
        terminal.type_in(typed);
        let mut received = vec![0; typed.len()];
        streams[0].read_exact(&mut received).expect("read");
        assert_eq!(received, typed);
        streams[1].write_all(b"\x1b[1mhello\x1b[0m\r\n$ ").expect("write");
        assert_eq!(terminal.screen_until("$ "), "\x1b[1mhello\x1b[0m\r\n$ ");

        terminal.resize(50, 132);
        session.control().expect(json!({"op": "resize", "size": {"rows": 50, "columns": 132}}));
        drop(streams);
        let status = if last.is_null() {
            drop(session.control.take());
            let status = session.front.wait();
            session.let_script_end();
            assert_eq!(terminal.screen_until("gone\r\n"), "husk: the sandbox ended: its supervisor is gone\r\n");
            status
        } else {
            session.finish(last.clone())
        };
        assert_eq!(status, if last["signal"] == 9 || last.is_null() { -9 } else { 3 });
        assert_eq!(terminal.mode(), before, "{last}");
    }
}

#[test]
fn output_may_go_elsewhere_than_the_terminal() {
    let terminal = Terminal::new();
    let (reader, writer) = pipe();
    let mut session = Session::run(false, "", |command| {
        terminal.control(command);
        command.stdout(writer);
    });
    assert_eq!(session.hello()["terminal"], json!({"stdin": true, "stdout": false, "stderr": true}));
    let (mut streams, answer) = session.place(&["stdin", "stdout"], json!({"terminal": true}));
    assert_eq!(answer, placed());
    streams[1].write_all(b"to the pipe").expect("write");
    drop(streams);
    assert_eq!(session.finish(json!({"op": "exit", "code": 0})), 0);
    assert_eq!(read_text(reader), "to the pipe");
}

#[test]
fn without_a_terminal_in_the_guest_ctrl_c_is_one_signal() {
    let terminal = Terminal::new();
    let before = terminal.mode();
    let mut session = session(&terminal);
    let (_streams, answer) = session.place(&["stdin", "stdout", "stderr"], json!({}));
    assert_eq!(answer, json!({"op": "placed", "size": null}));
    assert_eq!(terminal.mode(), before);
    for (typed, signal) in [(b"\x03", 2), (b"\x1c", 3), (b"\x1a", 20), (b"\x03", 2)] {
        terminal.type_in(typed);
        session.control().expect(json!({"op": "signal", "signal": signal}));
    }
    assert!(!is_readable(session.control().0.get_ref().as_raw_fd(), std::time::Duration::from_millis(100)), "each came once");
    drop(_streams);
    assert_eq!(session.finish(json!({"op": "exit", "signal": 2})), -2);
}

#[test]
fn ctrl_d_ends_the_input_of_a_process_without_a_terminal() {
    let terminal = Terminal::new();
    let mut session = session(&terminal);
    let (mut streams, _) = session.place(&["stdin", "stdout", "stderr"], json!({}));
    terminal.type_in(b"a line\n\x04");
    let mut received = String::new();
    streams[0].read_to_string(&mut received).expect("read");
    assert_eq!(received, "a line\n");
    drop(streams);
    assert_eq!(session.finish(json!({"op": "exit", "code": 0})), 0);
}

#[test]
fn a_job_in_the_background_stops_when_it_reads_and_goes_on_in_the_foreground() {
    let terminal = Terminal::new();
    // What a shell with job control does.
    let mut session = Session::run(false, "", |command| {
        let words = std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_str().expect("text").to_owned());
        let words = words.collect::<Vec<_>>();
        let mut shell = Command::new("/bin/bash");
        shell.args(["--norc", "-c", "set -m; \"$@\" & read -r line; fg; echo status $?", "bash"]).args(words);
        terminal.control(&mut shell);
        *command = shell;
    });
    let (mut streams, _) = session.place(&["stdin", "stdout", "stderr"], json!({}));
    // Output from the background goes on.
    streams[1].write_all(b"output\n").expect("write");
    terminal.screen_until("output\r\n");
    assert!(!is_readable(streams[0].as_raw_fd(), std::time::Duration::from_millis(50)));
    let state = |pid: i64| common::status_field(pid, "State");
    assert!(state(session.pid).starts_with('S'));

    // The shell and the job both look at what is typed. Whoever reads first: the job must not get it.
    terminal.type_in(b"for the shell\n");
    eventually("the job runs in the foreground", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", session.pid)).expect("its state");
        let fields = stat.rsplit(") ").next().expect("fields").split(' ').collect::<Vec<_>>();
        fields[0] == "S" && fields[2] == fields[5]
    });
    terminal.type_in(b"for the job\n");
    let mut received = [0; 12];
    streams[0].read_exact(&mut received).expect("read");
    assert_eq!(&received, b"for the job\n");
    drop(streams);
    // SIGCONT, of the shell's fg, may have been passed on.
    session.control().send(&json!({"op": "exit", "code": 6}));
    session.let_script_end();
    terminal.screen_until("status 6\r\n");
    assert_eq!(session.front.wait(), 0);
}

#[test]
fn a_stop_and_a_continuation_leave_the_terminal_raw() {
    let terminal = Terminal::new();
    let before = terminal.mode();
    let mut session = session(&terminal);
    let (_streams, _) = session.place(&["stdin", "stdout"], json!({"terminal": true}));
    session.front.kill(Signal::SIGSTOP);
    eventually("it is stopped", || common::status_field(session.pid, "State").starts_with('T'));
    nix::sys::termios::tcsetattr(&terminal.device, nix::sys::termios::SetArg::TCSANOW, &before).expect("as a shell does");
    terminal.resize(10, 20);
    session.front.kill(Signal::SIGCONT);
    eventually("it is raw again", || is_raw(&terminal.mode()));
    session.control().expect(json!({"op": "resize", "size": {"rows": 10, "columns": 20}}));
    drop(_streams);
    assert_eq!(session.finish(json!({"op": "exit", "code": 0})), 0);
    assert_eq!(terminal.mode(), before);
}

/// The terminal that a stand-in sends to an engine, and its name.
fn receive_terminal(listener: &UnixListener) -> (Terminal, String) {
    let connection = accept(listener);
    let mut name = [0; 4096];
    let mut extras = nix::cmsg_space!([i32; 1]);
    let (length, master) = {
        let mut parts = [IoSliceMut::new(&mut name)];
        let message = recvmsg::<()>(connection.as_raw_fd(), &mut parts, Some(&mut extras), MsgFlags::MSG_CMSG_CLOEXEC).expect("receive");
        let rights = message.cmsgs().expect("whole").find_map(|extra| match extra {
            ControlMessageOwned::ScmRights(numbers) => Some(numbers),
            _ => None,
        });
        let numbers = rights.expect("a descriptor");
        assert_eq!(numbers.len(), 1);
        // SAFETY: the kernel has just made it.
        (message.bytes, unsafe { OwnedFd::from_raw_fd(numbers[0]) })
    };
    let name = String::from_utf8(name[..length].to_vec()).expect("text");
    let device = fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(&name).expect("the other side");
    (Terminal { user: master.into(), device: device.into() }, name)
}

#[test]
fn an_engine_gets_a_terminal_whose_other_side_is_the_stand_ins() {
    nix::sys::prctl::set_child_subreaper(true).expect("become a subreaper");
    let (out, writer) = pipe();
    let mut session = Session::start_detached([null(), writer.try_clone().expect("duplicate"), writer]);
    assert_eq!(session.front.wait(), 0);
    let folder = common::Folder::new();
    let socket = folder.path("console.sock");
    let listener = UnixListener::bind(&socket).expect("listen");
    let size = json!({"rows": 33, "columns": 99});
    session.control().send(&json!({
        "op": "place", "netns": null, "rootfs": null, "cgroups": [], "streams": ["stdin", "stdout"], "terminal": true,
        "consoleSocket": socket, "size": size, "signals": true,
    }));
    let (terminal, name) = receive_terminal(&listener);
    assert!(name.starts_with("/dev/pts/"), "{name}");
    let (mut streams, answer) = session.accept_streams(&["stdin", "stdout"]);
    assert_eq!(answer, json!({"op": "placed", "size": size}));
    // The engine's own pipes are given up: containerd's shim waits for their end.
    assert_eq!(read_text(out), "");
    assert!(is_raw(&terminal.mode()));

    terminal.type_in(b"typed\x03");
    let mut received = [0; 6];
    streams[0].read_exact(&mut received).expect("read");
    assert_eq!(&received, b"typed\x03");
    streams[1].write_all(b"shown\r\n").expect("write");
    assert_eq!(terminal.screen_until("\n"), "shown\r\n");
    terminal.resize(40, 100);
    session.control().expect(json!({"op": "resize", "size": {"rows": 40, "columns": 100}}));

    // What the process said last is there for the engine, though the stand-in is gone.
    streams[1].write_all(b"bye\r\n").expect("write");
    drop(streams);
    session.control().send(&json!({"op": "exit", "code": 5}));
    let pid = nix::unistd::Pid::from_raw(session.pid as i32);
    common::wait_for_end(pid);
    assert_eq!(nix::sys::wait::waitpid(pid, None), Ok(nix::sys::wait::WaitStatus::Exited(pid, 5)));
    assert_eq!(terminal.screen_until("\n"), "bye\r\n");
    session.let_script_end();
}

#[test]
fn a_terminal_that_the_engine_closes_is_hung_up() {
    nix::sys::prctl::set_child_subreaper(true).expect("become a subreaper");
    let mut session = Session::start_detached([null(), null(), null()]);
    session.front.wait();
    let folder = common::Folder::new();
    let socket = folder.path("console.sock");
    let listener = UnixListener::bind(&socket).expect("listen");
    session.control().send(&json!({"op": "place", "streams": ["stdin", "stdout"], "terminal": true, "consoleSocket": socket}));
    let (terminal, _) = receive_terminal(&listener);
    let (mut streams, answer) = session.accept_streams(&["stdin", "stdout"]);
    assert_eq!(answer["op"], "placed");
    drop(terminal.user);
    session.control().expect(json!({"op": "signal", "signal": 1}));
    assert_eq!(streams[0].read(&mut [0]).expect("the end"), 0);
    assert_eq!(streams[1].read(&mut [0]).expect("the end"), 0);
    session.control().send(&json!({"op": "exit", "signal": 1}));
    let pid = nix::unistd::Pid::from_raw(session.pid as i32);
    common::wait_for_end(pid);
    nix::sys::wait::waitpid(pid, None).expect("reap it");
    session.let_script_end();
}

#[test]
fn an_engine_that_does_not_listen_is_named() {
    let mut session = Session::start([null(), null(), null()]);
    let (_, answer) = session.place(&[], json!({"terminal": true, "consoleSocket": "/absent/console.sock"}));
    let message = "cannot hand the terminal over at /absent/console.sock: \
                   cannot connect to the socket /absent/console.sock: ENOENT: No such file or directory";
    assert_eq!(answer, json!({"op": "failed", "message": message}));
    assert_eq!(session.finish(json!({"op": "fail", "message": "x", "status": 125})), 125);
}
