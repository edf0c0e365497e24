//! Stand-ins whose readers stall, and whose supervisor is gone.

mod common;

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use common::session::{Session, line, pipes};
use common::{is_readable, read_text};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use serde_json::json;

/// Writes until nothing more is taken. Answers how much was.
fn fill(stream: impl AsFd) -> usize {
    fcntl(&stream, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("set the mode");
    let mut total = 0;
    loop {
        match nix::unistd::write(&stream, &[b'x'; 65536]) {
            Ok(length) => total += length,
            Err(error) => {
                assert_eq!(error, Errno::EAGAIN);
                // All on the way have to be full for a while.
                let mut watched = [nix::poll::PollFd::new(stream.as_fd(), nix::poll::PollFlags::POLLOUT)];
                if nix::poll::poll(&mut watched, 200_u16).expect("poll") == 0 {
                    return total;
                }
            }
        }
    }
}

#[test]
fn a_stalled_stream_holds_up_nothing_else() {
    let (streams, ends) = pipes();
    let mut session = Session::start(streams);
    let [stdin, stdout, mut stderr] = session.place_all();
    let stuck = fill(&stdout);
    assert!(stuck < 4 << 20, "{stuck}");
    // Nobody reads the standard input: what is not taken is left to the caller's pipe.
    let held = fill(&ends.stdin);
    assert!(held < 2 << 20, "{held}");

    stderr.write_all(b"goes through\n").expect("write");
    assert_eq!(line(fs::File::from(ends.stderr)), "goes through\n");
    session.front.kill(Signal::SIGUSR2);
    assert_eq!(session.control().next(), Some(json!({"op": "signal", "signal": 12})));

    // At the end, the output waits for its reader, unless somebody has no patience.
    drop((stdin, stdout, stderr));
    session.control().send(&json!({"op": "exit", "code": 9}));
    session.let_script_end();
    assert!(!is_readable(common::pidfd(session.front.pid()).as_raw_fd(), Duration::from_millis(200)));
    session.front.kill(Signal::SIGTERM);
    assert_eq!(session.front.wait(), 9);
}

#[test]
fn a_supervisor_that_is_gone_is_reported_at_once() {
    let (streams, ends) = pipes();
    let mut session = Session::start(streams);
    let [stdin, mut stdout, stderr] = session.place_all();
    stdout.write_all(b"last output").expect("write");
    drop((stdin, stdout, stderr));
    drop(session.control.take());
    assert_eq!(session.front.wait(), -9);
    assert_eq!(read_text(ends.stdout), "last output");
    assert_eq!(read_text(ends.stderr), "husk: the sandbox ended: its supervisor is gone\n");
    session.let_script_end();
}

#[test]
fn a_supervisor_that_is_gone_leaves_no_stand_in_behind_a_stalled_reader() {
    let (streams, ends) = pipes();
    let mut session = Session::start(streams);
    let [stdin, stdout, stderr] = session.place_all();
    fill(&stdout);
    drop((stdin, stdout, stderr));
    drop(session.control.take());
    assert_eq!(session.front.wait(), -9);
    session.let_script_end();
    drop(ends);
}
