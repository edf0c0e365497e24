//! The stand-in of a process without a terminal.

mod common;

use std::fs;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use common::session::{Session, line, null, pipes};
use common::{Folder, names, pair, pipe, read_all, read_text, status_field, wait_readable};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use serde_json::json;

fn exit(code: i32) -> serde_json::Value {
    json!({"op": "exit", "code": code})
}

#[test]
fn streams_are_carried_and_the_end_is_mirrored() {
    for (last, status) in [
        (exit(0), 0),
        (exit(7), 7),
        (exit(255), 255),
        (json!({"op": "exit", "signal": 15}), -15),
        (json!({"op": "exit", "signal": 9}), -9),
        (json!({"op": "exit", "signal": 11}), -11),
        (json!({"op": "exit", "signal": 2}), -2),
        // A signal that does not kill, and one that nix does not know.
        (json!({"op": "exit", "signal": 17}), 128 + 17),
        (json!({"op": "exit", "signal": 40}), 128 + 40),
    ] {
        let (streams, ends) = pipes();
        let mut session = Session::start(streams);
        let [mut stdin, mut stdout, mut stderr] = session.place_all();
        fs::File::from(ends.stdin).write_all(b"to the process").expect("write");
        let mut received = String::new();
        stdin.read_to_string(&mut received).expect("read");
        assert_eq!(received, "to the process");
        stdout.write_all(b"its output").expect("write");
        stderr.write_all(b"its errors").expect("write");
        drop((stdout, stderr));
        assert_eq!(session.finish(last.clone()), status, "{last}");
        assert_eq!((read_text(ends.stdout), read_text(ends.stderr)), ("its output".into(), "its errors".into()));
    }
}

#[test]
fn output_that_was_sent_before_the_end_is_written_first() {
    let (streams, ends) = pipes();
    let mut session = Session::start(streams);
    let [_stdin, stdout, stderr] = session.place_all();
    session.control().send(&exit(3));
    session.let_script_end();
    // More than all buffers on the way hold together.
    let content = (0..8_u32 << 20).map(|number| (number * 7 / 3) as u8).collect::<Vec<_>>();
    let writer = std::thread::spawn({
        let content = content.clone();
        move || {
            (&stdout).write_all(&content).expect("write");
            (&stderr).write_all(b"last words").expect("write");
        }
    });
    assert!(read_all(ends.stdout) == content);
    assert_eq!(read_text(ends.stderr), "last words");
    writer.join().expect("all was taken");
    assert_eq!(session.front.wait(), 3);
}

#[test]
fn what_goes_in_comes_out_whatever_the_streams_are() {
    let content = (0..64_u32 << 20).map(|number| (number ^ (number >> 9)) as u8).collect::<Vec<_>>();
    let folder = Folder::new();
    let input = folder.path("input");
    fs::write(&input, &content).expect("write");
    let file = |name: &str| OwnedFd::from(fs::OpenOptions::new().append(true).create(true).open(folder.path(name)).expect("open"));
    for kind in ["file", "pipe", "socket"] {
        let (stdin, feeder): (OwnedFd, Option<OwnedFd>) = match kind {
            "file" => (fs::File::open(&input).expect("open").into(), None),
            "pipe" => {
                let (reader, writer) = pipe();
                (reader, Some(writer))
            }
            _ => {
                let (one, other) = pair();
                (one.into(), Some(other.into()))
            }
        };
        let (stdout, output): (OwnedFd, Option<OwnedFd>) = match kind {
            "file" => (file("output"), None),
            "pipe" => {
                let (reader, writer) = pipe();
                (writer, Some(reader))
            }
            _ => {
                let (one, other) = pair();
                (one.into(), Some(other.into()))
            }
        };
        let mut session = Session::start([stdin, stdout, null()]);
        let [mut stdin, mut stdout, stderr] = session.place_all();
        drop(stderr);
        std::thread::scope(|scope| {
            if let Some(feeder) = feeder {
                scope.spawn(|| fs::File::from(feeder).write_all(&content).expect("write"));
            }
            let echo = scope.spawn(move || {
                std::io::copy(&mut stdin, &mut stdout).expect("echo");
            });
            let reader = output.map(|output| scope.spawn(|| read_all(output)));
            echo.join().expect("the echo ends");
            assert_eq!(session.finish(exit(0)), 0);
            let received =
                reader.map_or_else(|| fs::read(folder.path("output")).expect("read"), |reader| reader.join().expect("the reader ends"));
            assert!(received == content, "{kind}");
        });
    }
}

#[test]
fn words_of_husks_own_go_to_standard_error() {
    let (streams, ends) = pipes();
    let mut session = Session::start(streams);
    session.control().send(&json!({"op": "say", "text": "before\n"}));
    drop(session.place_all());
    session.control().send(&json!({"op": "say", "text": "after\n"}));
    assert_eq!(session.finish(exit(0)), 0);
    assert_eq!(read_text(ends.stderr), "before\nafter\n");
}

#[test]
fn every_signal_but_some_is_passed_on() {
    let (streams, _ends) = pipes();
    let mut session = Session::start(streams);
    let _streams = session.place_all();
    let real_time = 35;
    for number in [1, 2, 3, 6, 10, 12, 14, 15, 18, 20, 31, real_time] {
        // SAFETY: only numbers are passed.
        assert_eq!(unsafe { libc::kill(session.pid as i32, number) }, 0);
        assert_eq!(session.control().next(), Some(json!({"op": "signal", "signal": number})));
    }
    for signal in [Signal::SIGCHLD, Signal::SIGWINCH, Signal::SIGPIPE] {
        session.front.kill(signal);
    }
    session.front.kill(Signal::SIGUSR1);
    assert_eq!(session.control().next(), Some(json!({"op": "signal", "signal": 10})));
    session.front.kill(Signal::SIGKILL);
    assert_eq!(session.control().next(), None);
    session.let_script_end();
}

#[test]
fn signals_that_are_not_to_be_passed_on_have_their_own_effect() {
    let (streams, _ends) = pipes();
    let mut session = Session::start(streams);
    let (_, placed) = session.place(&[], json!({"signals": false}));
    assert_eq!(placed["op"], "placed");
    session.front.kill(Signal::SIGTERM);
    assert_eq!(session.front.wait(), -15);
    assert_eq!(session.control().next(), None);
    session.let_script_end();
}

#[test]
fn its_root_and_network_are_the_containers_and_it_holds_nothing_of_the_hosts() {
    let folder = Folder::new();
    folder.file("rootfs/etc/hostname", "container");
    let (reader, writer) = pipe();
    let mut holder = std::process::Command::new("unshare");
    let holder = common::Process::start(holder.args(["--net", "sh", "-c", "echo ready; exec sleep 1000"]).stdout(writer));
    wait_readable(reader.as_raw_fd(), "the namespace");
    let netns = format!("/proc/{}/ns/net", holder.pid());

    let (streams, _ends) = pipes();
    let mut session = Session::start(streams);
    let (carried, placed) = session.place(&["stdin", "stdout", "stderr"], json!({"netns": netns, "rootfs": folder.path("rootfs")}));
    assert_eq!(placed, json!({"op": "placed", "size": null}));
    let proc = format!("/proc/{}", session.pid);
    assert_eq!(fs::read_link(format!("{proc}/ns/net")).expect("ns"), fs::read_link(&netns).expect("ns"));
    assert_eq!(fs::read_to_string(format!("{proc}/root/etc/hostname")).expect("read"), "container");
    assert_eq!(names(format!("{proc}/root/")), ["etc"]);
    assert_eq!(names(format!("{proc}/cwd/")), ["etc"]);
    assert_eq!(fs::read_to_string(format!("{proc}/mounts")).expect("mounts").lines().count(), 1);
    fs::write(format!("{proc}/root/copied"), "in").expect("write as podman cp does");
    assert_eq!(fs::read_to_string(folder.path("rootfs/copied")).expect("read"), "in");
    for name in names(format!("{proc}/fd")) {
        let target = fs::metadata(format!("{proc}/fd/{name}")).expect("a descriptor");
        assert!(!target.is_dir() && !target.is_file(), "{name}: {:?}", fs::read_link(format!("{proc}/fd/{name}")));
    }
    for field in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status_field(session.pid, field), "0000000000000000", "{field}");
    }
    let kilobytes = status_field(session.pid, "RssAnon").split(' ').next().expect("a number").parse::<u32>().expect("a number");
    assert!(kilobytes < 500, "{kilobytes} kB");
    drop(carried);
    assert_eq!(session.finish(exit(0)), 0);
}

#[test]
fn its_proc_has_nothing_in_it_but_the_stand_in() {
    let folder = Folder::new();
    folder.file("rootfs/proc/hidden", "");
    let (streams, _ends) = pipes();
    let mut session = Session::start(streams);
    let (carried, placed) = session.place(&["stdin", "stdout", "stderr"], json!({"rootfs": folder.path("rootfs")}));
    assert_eq!(placed["op"], "placed");
    let (proc, pid) = (format!("/proc/{}/root/proc", session.pid), session.pid.to_string());
    assert_eq!(names(&proc), [pid.clone(), "stat".into()]);
    assert_eq!(names(format!("{proc}/{pid}")), ["cmdline", "ns", "stat", "status"]);
    for name in ["cmdline", "stat"] {
        let read = |folder: &str| fs::read_to_string(format!("{folder}/{name}")).expect("read");
        assert_eq!(read(&format!("{proc}/{pid}")), read(&format!("/proc/{pid}")));
    }
    assert_eq!(fs::read_link(format!("{proc}/{pid}/ns/pid")).expect("link"), fs::read_link("/proc/self/ns/pid").expect("link"));
    assert_eq!(fs::write(format!("{proc}/x"), "").expect_err("read-only").raw_os_error(), Some(libc::EROFS));
    drop(carried);
    assert_eq!(session.finish(exit(0)), 0);
    assert_eq!(names(folder.path("rootfs/proc")), ["hidden"]);
}

#[test]
fn a_proc_that_leads_elsewhere_stays_as_it_is() {
    let folder = Folder::new();
    folder.file("rootfs/etc/hostname", "container");
    std::os::unix::fs::symlink("etc", folder.path("rootfs/proc")).expect("a link");
    let (streams, _ends) = pipes();
    let mut session = Session::start(streams);
    let (carried, placed) = session.place(&["stdin", "stdout", "stderr"], json!({"rootfs": folder.path("rootfs")}));
    assert_eq!(placed["op"], "placed");
    assert_eq!(names(format!("/proc/{}/root/proc/", session.pid)), ["hostname"]);
    drop(carried);
    assert_eq!(session.finish(exit(0)), 0);
}

#[test]
fn without_a_folder_its_root_is_empty() {
    let (streams, _ends) = pipes();
    let mut session = Session::start(streams);
    drop(session.place_all());
    let root = format!("/proc/{}/root/", session.pid);
    assert_eq!(names(&root), Vec::<String>::new());
    assert_eq!(fs::write(format!("{root}x"), "").expect_err("read-only").raw_os_error(), Some(libc::EROFS));
    assert_eq!(session.finish(exit(0)), 0);
}

#[test]
fn a_place_that_cannot_be_had_is_an_answer() {
    let folder = Folder::new();
    let file = folder.file("file", "");
    let absent = folder.path("absent");
    for (changes, message) in [
        (
            json!({"rootfs": absent}),
            format!("cannot open the root file system {}: No such file or directory (os error 2)", absent.display()),
        ),
        (json!({"rootfs": file}), format!("the root file system {} is no folder", file.display())),
        (
            json!({"netns": absent}),
            format!("cannot open the network namespace {}: No such file or directory (os error 2)", absent.display()),
        ),
        (json!({"streams": ["stdnull"]}), "unknown variant `stdnull`, expected one of `stdin`, `stdout`, `stderr`".into()),
    ] {
        let (streams, ends) = pipes();
        let mut session = Session::start(streams);
        let (_, answer) = session.place(&[], changes);
        assert_eq!(answer, json!({"op": "failed", "message": message}));
        assert_eq!(session.finish(json!({"op": "fail", "message": "no way", "status": 125})), 125);
        assert_eq!(read_text(ends.stderr), "husk: no way\n");
    }
}

#[test]
fn open_files_that_are_shared_keep_their_mode() {
    let (streams, ends) = pipes();
    let ours = streams.each_ref().map(|stream| stream.try_clone().expect("duplicate"));
    let flags = |descriptor: &OwnedFd| fcntl(descriptor, FcntlArg::F_GETFL).expect("flags");
    let before = ours.each_ref().map(flags);
    let mut session = Session::start(streams);
    let [mut stdin, mut stdout, _stderr] = session.place_all();
    fs::File::from(ends.stdin).write_all(b"x").expect("write");
    stdin.read_exact(&mut [0]).expect("read");
    stdout.write_all(b"y").expect("write");
    wait_readable(ends.stdout.as_raw_fd(), "the output");
    assert_eq!(ours.each_ref().map(flags), before);
    assert!(before.iter().all(|flags| flags & OFlag::O_NONBLOCK.bits() == 0));
    drop((stdout, _stderr));
    assert_eq!(session.finish(exit(0)), 0);
}

#[test]
fn a_file_is_read_and_written_at_its_offset() {
    let folder = Folder::new();
    let mut input = fs::File::open(folder.file("input", "0123456789")).expect("open");
    input.seek(std::io::SeekFrom::Start(4)).expect("seek");
    let mut output = fs::File::create(folder.path("output")).expect("create");
    output.write_all(b"head ").expect("write");
    let mut session = Session::start([input.into(), output.try_clone().expect("duplicate").into(), null()]);
    let [mut stdin, mut stdout, stderr] = session.place_all();
    let mut received = String::new();
    stdin.read_to_string(&mut received).expect("read");
    assert_eq!(received, "456789");
    stdout.write_all(b"body").expect("write");
    drop((stdout, stderr));
    assert_eq!(session.finish(exit(0)), 0);
    output.write_all(b" tail").expect("write");
    assert_eq!(fs::read_to_string(folder.path("output")).expect("read"), "head body tail");
}

#[test]
fn a_reader_that_goes_away_ends_its_stream_alone() {
    let (streams, ends) = pipes();
    let mut session = Session::start(streams);
    let [_stdin, mut stdout, mut stderr] = session.place_all();
    stdout.write_all(b"x").expect("write");
    let mut byte = [0];
    let mut output = fs::File::from(ends.stdout);
    output.read_exact(&mut byte).expect("read");
    drop(output);
    // Before anything more is written, the supervisor learns of it.
    assert_eq!(stdout.read(&mut byte).expect("the end"), 0);
    stderr.write_all(b"still there\n").expect("write");
    drop(stderr);
    assert_eq!(line(fs::File::from(ends.stderr)), "still there\n");
    assert_eq!(session.finish(exit(1)), 1);
}

#[test]
fn a_process_that_reads_no_more_ends_its_writer() {
    let (streams, ends) = pipes();
    let mut session = Session::start(streams);
    let [stdin, stdout, stderr] = session.place_all();
    drop(stdin);
    let mut writer = fs::File::from(ends.stdin);
    common::eventually("the writer is told", || writer.write_all(b"x").is_err());
    drop((stdout, stderr));
    assert_eq!(session.finish(exit(0)), 0);
}

#[test]
fn streams_end_for_the_caller_when_they_end_for_the_process() {
    let (streams, ends) = pipes();
    let mut session = Session::start_detached(streams);
    session.front.wait();
    let [stdin, stdout, stderr] = session.place_all();
    drop(stdout);
    assert_eq!(read_text(ends.stdout), "", "the process closed it, and runs on");
    drop(stderr);
    assert_eq!(read_text(ends.stderr), "");
    drop(stdin);
    session.control().send(&exit(0));
    session.let_script_end();
}

#[test]
fn streams_that_are_not_carried_are_given_up() {
    let (streams, ends) = pipes();
    let mut session = Session::start_detached(streams);
    session.front.wait();
    let (_, placed) = session.place(&["stderr"], json!({}));
    assert_eq!(placed["op"], "placed");
    assert_eq!(read_text(ends.stdout), "");
    let error = nix::unistd::write(&ends.stdin, b"x").expect_err("nobody reads");
    assert_eq!(error, Errno::EPIPE);
    session.control().send(&exit(0));
    session.let_script_end();
}

#[test]
fn standard_streams_that_are_closed_are_no_trouble() {
    for closed in [vec![0], vec![1], vec![2], vec![0, 1, 2]] {
        let mut session = Session::run(false, "", |command| {
            let closed = closed.clone();
            let close = move || {
                for number in &closed {
                    // SAFETY: the numbers are the child's own.
                    unsafe { libc::close(*number) };
                }
                Ok(())
            };
            // SAFETY: close may be called between fork and execve.
            unsafe { std::os::unix::process::CommandExt::pre_exec(command, close) };
        });
        let [mut stdin, mut stdout, stderr] = session.place_all();
        if closed.contains(&0) {
            assert_eq!(stdin.read(&mut [0]).expect("the end"), 0);
        }
        if closed.contains(&1) {
            stdout.write_all(b"to nobody").expect("write");
        }
        drop((stdout, stderr));
        assert_eq!(session.finish(exit(6)), 6, "{closed:?}");
    }
}
