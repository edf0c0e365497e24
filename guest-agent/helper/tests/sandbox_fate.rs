//! One sandbox, one fate: whoever is killed, and whenever, nothing is left.

mod common;

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::sandbox::{Sandbox, plan, script};
use common::{Folder, HELPER, wait_readable};
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// A file system whose end can be seen: the sandbox's clone of it is a mount, and the kernel tells when the last of them is gone.
struct Watched {
    watch: Inotify,
    path: PathBuf,
    _folder: Folder,
}

impl Watched {
    fn new() -> Watched {
        // This thread's mounts are its own from here on.
        unshare(CloneFlags::CLONE_NEWNS).expect("make a mount namespace");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).expect("make the mounts private");
        let folder = Folder::new();
        let path = folder.path("mounted");
        fs::create_dir(&path).expect("make a folder");
        mount(Some("husk-test"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).expect("mount");
        let watch = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).expect("inotify");
        // The end of the file system is told to every watch.
        watch.add_watch(&path, AddWatchFlags::IN_DELETE_SELF).expect("watch");
        Watched { watch, path, _folder: folder }
    }

    /// Waits until no mount of it is left anywhere.
    fn expect_gone(self) {
        umount(&self.path).expect("unmount");
        wait_readable(std::os::fd::AsFd::as_fd(&self.watch).as_raw_fd(), "the end of the mount");
        let events = self.watch.read_events().expect("events");
        assert!(events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_UNMOUNT)), "{events:?}");
    }
}

/// A plan with programs that are as hard to end as can be.
fn stubborn(source: &Path) -> Value {
    let ignore = "trap '' HUP INT TERM QUIT PIPE; ";
    plan(json!({
        "mounts": [{"source": source, "target": "c1/rootfs", "readonly": true}],
        "processes": [
            script("ignores", "root", &[], &format!("{ignore} sleep 1000 & wait; wait")),
            script("stopped", "user", &[], "kill -STOP $$; exec sleep 1000"),
        ],
    }))
}

/// A sandbox whose parent is a process of its own, as the supervisor is: the test keeps the conversation open when that dies.
fn behind_a_supervisor() -> Sandbox {
    Sandbox::behind(Command::new("/bin/sh").args(["-c", "\"$0\" sandbox & wait", HELPER]), vec![])
}

#[derive(Clone, Copy, Debug)]
enum Victim {
    Supervisor,
    Outer,
    Init,
    /// Nobody: the conversation ends.
    Conversation,
}

const VICTIMS: [Victim; 4] = [Victim::Supervisor, Victim::Outer, Victim::Init, Victim::Conversation];

fn outer_of(sandbox: &Sandbox) -> Option<Pid> {
    let parent = sandbox.outer.pid();
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    Some(Pid::from_raw(children.split_whitespace().next()?.parse().expect("a PID")))
}

fn init_of(outer: Pid) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?;
    Some(Pid::from_raw(children.split_whitespace().next()?.parse().expect("a PID")))
}

/// Kills the victim, where it is there yet, else the supervisor.
fn strike(sandbox: &mut Sandbox, victim: Victim) {
    let outer = outer_of(sandbox);
    let target = match victim {
        Victim::Supervisor => None,
        Victim::Outer => outer,
        Victim::Init => outer.and_then(init_of),
        Victim::Conversation => {
            sandbox.control = None;
            return;
        }
    };
    // A process that ended by itself meanwhile is as dead.
    let _ = kill(target.unwrap_or(sandbox.outer.pid()), Signal::SIGKILL);
}

#[test]
fn whoever_is_killed_in_a_running_sandbox_all_is_gone() {
    for victim in VICTIMS {
        let watched = Watched::new();
        let mut sandbox = behind_a_supervisor();
        sandbox.control().send(&stubborn(&watched.path));
        sandbox.expect_launch();
        let pids = [sandbox.init, sandbox.expect_start("ignores"), sandbox.expect_start("stopped")];
        strike(&mut sandbox, victim);
        sandbox.expect_nothing_left();
        for pid in pids {
            assert!(!Path::new(&format!("/proc/{pid}/exe")).exists(), "{victim:?}: {pid}");
        }
        watched.expect_gone();
    }
}

#[test]
fn whoever_is_killed_at_any_moment_of_the_making_all_is_gone() {
    for round in 0..60_u32 {
        for victim in VICTIMS {
            let watched = Watched::new();
            let mut sandbox = behind_a_supervisor();
            sandbox.control().send(&stubborn(&watched.path));
            // The making takes some milliseconds; the moment is what is tried out here.
            std::thread::sleep(Duration::from_micros(u64::from(round) * 150));
            strike(&mut sandbox, victim);
            // Where only the victim was killed, its death must be enough, or else the end of the conversation.
            drop(sandbox.control.take());
            sandbox.expect_nothing_left();
            watched.expect_gone();
        }
    }
}

/// Waits until the helper waits for its plan: it is tied to its parent by then.
fn ready_outer(sandbox: &Sandbox) -> Pid {
    common::eventually("the helper waits for its plan", || {
        let place = outer_of(sandbox).and_then(|outer| fs::read_to_string(format!("/proc/{outer}/wchan")).ok());
        place.is_some_and(|place| place.contains("poll"))
    });
    outer_of(sandbox).expect("the outer process")
}

#[test]
fn killing_the_outer_process_or_its_parent_is_enough_at_any_moment() {
    for round in 0..60_u32 {
        for victim in [Victim::Supervisor, Victim::Outer] {
            let mut sandbox = behind_a_supervisor();
            let outer = ready_outer(&sandbox);
            sandbox.control().send(&stubborn(Path::new("/usr/share")));
            std::thread::sleep(Duration::from_micros(u64::from(round) * 150));
            let victim = if matches!(victim, Victim::Outer) { outer } else { sandbox.outer.pid() };
            kill(victim, Signal::SIGKILL).expect("kill");
            // The test's side of the conversation stays open.
            while sandbox.control().next().is_some() {}
            sandbox.expect_nothing_left();
        }
    }
}

#[test]
fn init_that_is_stopped_does_not_keep_the_sandbox() {
    let mut sandbox = Sandbox::launch(&stubborn(Path::new("/usr/share")), vec![]);
    sandbox.expect_start("ignores");
    sandbox.expect_start("stopped");
    kill(Pid::from_raw(sandbox.init as i32), Signal::SIGSTOP).expect("stop init");
    sandbox.end();
}

#[test]
fn an_outer_process_that_is_stopped_does_not_keep_the_sandbox() {
    let mut sandbox = behind_a_supervisor();
    sandbox.control().send(&stubborn(Path::new("/usr/share")));
    sandbox.expect_launch();
    sandbox.expect_start("ignores");
    sandbox.expect_start("stopped");
    kill(outer_of(&sandbox).expect("the outer process"), Signal::SIGSTOP).expect("stop it");
    sandbox.outer.kill(Signal::SIGKILL);
    sandbox.expect_nothing_left();
}

#[test]
fn what_remains_is_seen_to_when_everything_is_dead() {
    for victim in [Victim::Supervisor, Victim::Conversation] {
        let folder = Folder::new();
        let done = folder.path("done");
        let mut sandbox = behind_a_supervisor();
        let mut plan = stubborn(Path::new("/usr/share"));
        // Read by the shell itself: what it starts has no signal blocked in any case.
        let script = "while read -r name value; do [ $name != SigBlk: ] || echo $value; done < /proc/self/status > $0.new; mv $0.new $0";
        plan["remains"] = json!(["/bin/sh", "-c", script, done]);
        sandbox.control().send(&plan);
        sandbox.expect_launch();
        let pids = [sandbox.init, sandbox.expect_start("ignores"), sandbox.expect_start("stopped")];
        assert!(!done.exists());
        strike(&mut sandbox, victim);
        common::eventually("what remains is seen to", || done.exists());
        assert!(pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "all are dead and reaped before");
        assert_eq!(fs::read_to_string(&done).expect("its word"), "0000000000000000\n");
        sandbox.expect_nothing_left();
    }
}

#[test]
fn what_remains_can_be_changed() {
    let folder = Folder::new();
    let [before, after] = ["before", "after"].map(|name| folder.path(name));
    let mut sandbox = behind_a_supervisor();
    let mut plan = stubborn(Path::new("/usr/share"));
    plan["remains"] = json!(["/bin/touch", before]);
    sandbox.control().send(&plan);
    sandbox.expect_launch();
    sandbox.expect_start("ignores");
    sandbox.expect_start("stopped");
    sandbox.control().send(&json!({"id": 4, "op": "remains", "program": ["/bin/touch", after]}));
    sandbox.control().expect(json!({"id": 4, "ok": true}));
    strike(&mut sandbox, Victim::Supervisor);
    common::eventually("what remains is seen to", || after.exists());
    assert!(!before.exists());
    sandbox.expect_nothing_left();
}

/// How a sandbox comes to its end before its supervisor does.
fn end_before_the_supervisor(sandbox: &mut Sandbox, by_request: bool) {
    sandbox.expect_start("ignores");
    sandbox.expect_start("stopped");
    if by_request {
        assert_eq!(sandbox.request(5, json!({"op": "end"})), json!({"id": 5, "ok": true}));
    } else {
        kill(Pid::from_raw(sandbox.init as i32), Signal::SIGKILL).expect("kill init");
    }
    assert_eq!(sandbox.next(), json!({"event": "ended", "status": 128 + 9}));
}

#[test]
fn what_remains_is_seen_to_where_the_supervisor_dies_after_the_sandbox() {
    for victim in [Victim::Supervisor, Victim::Conversation] {
        for by_request in [false, true] {
            let folder = Folder::new();
            let done = folder.path("done");
            let mut sandbox = behind_a_supervisor();
            let mut plan = stubborn(Path::new("/usr/share"));
            plan["remains"] = json!(["/bin/touch", done]);
            sandbox.control().send(&plan);
            sandbox.expect_launch();
            end_before_the_supervisor(&mut sandbox, by_request);
            assert!(!done.exists());
            strike(&mut sandbox, victim);
            common::eventually("what remains is seen to", || done.exists());
            sandbox.expect_nothing_left();
        }
    }
}

#[test]
fn nothing_remains_to_be_done_where_the_supervisor_has_said_so() {
    for dies_at_once in [false, true] {
        let folder = Folder::new();
        let mut plan = stubborn(Path::new("/usr/share"));
        plan["remains"] = json!(["/bin/touch", folder.path("done")]);
        let mut sandbox = Sandbox::launch(&plan, vec![]);
        end_before_the_supervisor(&mut sandbox, false);
        sandbox.expect_nothing_left();
        assert_eq!(sandbox.request(6, json!({"op": "tap", "name": "tap0"})), json!({"id": 6, "error": "the sandbox has ended"}));
        sandbox.control().send(&json!({"id": 7, "op": "remains", "program": []}));
        if dies_at_once {
            sandbox.control = None;
        } else {
            sandbox.control().expect(json!({"id": 7, "ok": true}));
        }
        assert_eq!(sandbox.outer.wait(), 128 + 9);
        assert!(!folder.path("done").exists());
    }
}

#[test]
fn what_remains_is_seen_to_where_there_is_no_sandbox() {
    for plan in [None, Some(plan(json!({"mounts": [{"source": "/husk-missing", "target": "c1", "readonly": true}]})))] {
        let folder = Folder::new();
        let done = folder.path("done");
        let mut sandbox = behind_a_supervisor();
        sandbox.control().send(&json!({"id": 1, "op": "remains", "program": ["/bin/touch", done]}));
        sandbox.control().expect(json!({"id": 1, "ok": true}));
        if let Some(mut plan) = plan {
            plan["remains"] = json!(["/bin/touch", done]);
            sandbox.control().send(&plan);
            assert_eq!(sandbox.next()["event"], "fatal");
            assert_eq!(sandbox.next(), json!({"event": "ended", "status": 1}));
        }
        assert!(!done.exists());
        strike(&mut sandbox, Victim::Supervisor);
        drop(sandbox.control.take());
        common::eventually("what remains is seen to", || done.exists());
        sandbox.expect_nothing_left();
    }
}

#[test]
fn a_sandbox_of_which_nothing_remains_ends_when_it_is_asked_to() {
    let mut sandbox = Sandbox::launch(&stubborn(Path::new("/usr/share")), vec![]);
    sandbox.expect_start("ignores");
    sandbox.expect_start("stopped");
    assert_eq!(sandbox.request(5, json!({"op": "end"})), json!({"id": 5, "ok": true}));
    assert_eq!(sandbox.control().next(), None);
    assert_eq!(sandbox.outer.wait(), 128 + 9);
    sandbox.expect_nothing_left();
}

#[test]
fn the_end_of_init_is_the_end_of_the_outer_process() {
    let mut sandbox = Sandbox::launch(&stubborn(Path::new("/usr/share")), vec![]);
    sandbox.expect_start("ignores");
    sandbox.expect_start("stopped");
    kill(Pid::from_raw(sandbox.init as i32), Signal::SIGKILL).expect("kill init");
    assert_eq!(sandbox.control().next(), None);
    assert_eq!(sandbox.outer.wait(), 128 + 9);
    sandbox.expect_nothing_left();
}

#[test]
fn the_supervisors_end_before_the_plan_is_the_helpers() {
    let mut sandbox = Sandbox::new(vec![]);
    sandbox.control = None;
    assert_eq!(sandbox.outer.wait(), 0);
    sandbox.expect_nothing_left();

    let mut sandbox = behind_a_supervisor();
    ready_outer(&sandbox);
    sandbox.kill_outer();
    sandbox.expect_nothing_left();
}
