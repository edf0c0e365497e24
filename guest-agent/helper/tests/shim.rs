//! What containerd meets when it starts a shim.

mod common;

use std::fs;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::session::{also, line, null, outcome};
use common::shim::{SOCKETS, Shims};
use common::{Process, names, pipe, read_text};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;

fn socket_of(address: &str) -> PathBuf {
    address.strip_prefix("unix://").expect("a unix socket").into()
}

fn log_of(bundle: &Path) -> PathBuf {
    let log = bundle.join("log");
    mkfifo(&log, Mode::from_bits_truncate(0o700)).expect("make a fifo");
    log
}

#[test]
fn a_shim_is_started_with_all_that_it_needs_and_nothing_else() {
    let shims = Shims::new();
    let bundle = shims.bundle("c1", json!({}));
    // As containerd has it open.
    let log = fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(log_of(&bundle)).expect("open");
    let mut command = shims.start_command("c1");
    also(&mut command, 9, null());
    // The output ends though the server lives: it has none of it.
    let (status, address, stderr) = outcome(&mut command);
    assert_eq!((status, stderr), (0, String::new()), "{address}");

    // printf /run/c.sock/ns/c1 | sha256sum
    let socket = Path::new(SOCKETS).join("30cd0d8ad5844af52972444c90b865bab4636e03aed14bf8f8e7404190932823");
    assert_eq!(address, format!("unix://{}", socket.display()));
    assert_eq!(fs::read_to_string(bundle.join("address")).expect("the address"), address);
    assert_eq!(names(&bundle), ["address", "config.json", "log"]);
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(Path::new(SOCKETS)), mode(Path::new("/run/containerd"))), (0o600, 0o700, 0o711));
    UnixStream::connect(&socket).expect("somebody listens");

    let seen = shims.server();
    let bundle = bundle.display();
    let words = format!("-namespace ns -address /run/c.sock -publish-binary /bin/c -id c1 -bundle {bundle} -socket {}", socket.display());
    assert_eq!(seen.words, format!("serve -group c1 {words}"));
    assert_eq!(seen.cwd, bundle.to_string());
    assert_eq!(seen.ttrpc_address, "/run/containerd/containerd.sock.ttrpc");
    let log_name = format!("{bundle}/log");
    assert_eq!(seen.streams[..3], ["/dev/null", &log_name, &log_name]);
    assert!(seen.streams[3].starts_with("socket:"), "{}", seen.streams[3]);
    // 4 and 10 are the shell's own, for this line and its script.
    assert_eq!(seen.open, "0 1 2 3 4 10 ");
    assert_eq!(seen.session, seen.pid.as_raw(), "it leads a session of its own");
    let own = fs::read_to_string("/proc/self/oom_score_adj").expect("a score").trim().parse::<i32>().expect("a number");
    assert_eq!(seen.oom_score, (own + 1).min(1000));
    assert_eq!(line(log), "said by the server\n");
}

#[test]
fn a_shim_that_runs_is_found_and_one_that_is_gone_is_replaced() {
    let shims = Shims::new();
    let bundle = shims.bundle("c1", json!({}));
    let address = shims.start("c1");
    let first = shims.server();
    fs::remove_file(bundle.join("address")).expect("remove");
    assert_eq!(shims.start("c1"), address);
    assert_eq!(fs::read_to_string(bundle.join("address")).expect("the address"), address);
    assert_eq!(shims.servers(1).len(), 1);

    shims.kill(&first);
    assert!(fs::symlink_metadata(socket_of(&address)).expect("it is there").file_type().is_socket(), "a stale socket is left");
    assert_eq!(shims.start("c1"), address);
    assert_eq!(shims.servers(2).len(), 2);
    UnixStream::connect(socket_of(&address)).expect("somebody listens again");
}

#[test]
fn a_shim_with_many_callers_is_found_without_waiting() {
    let shims = Shims::new();
    shims.bundle("c1", json!({}));
    let address = shims.start("c1");
    // The server accepts nobody, and its queue is full.
    let mut callers = Vec::new();
    let socket = nix::sys::socket::UnixAddr::new(&socket_of(&address)).expect("an address");
    loop {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType};
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let caller = nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, flags, None).expect("a socket");
        if nix::sys::socket::connect(std::os::fd::AsRawFd::as_raw_fd(&caller), &socket).is_err() {
            break;
        }
        callers.push(caller);
    }
    assert_eq!(shims.start("c1"), address);
    assert_eq!(shims.servers(1).len(), 1);
}

#[test]
fn of_many_starts_at_once_one_makes_the_shim() {
    let shims = Shims::new();
    let ids = (0..12).map(|number| format!("c{number}")).collect::<Vec<_>>();
    for id in &ids {
        shims.bundle(id, json!({"io.kubernetes.cri.sandbox-id": "pod"}));
    }
    // One that is gone has left its socket.
    fs::create_dir_all(SOCKETS).expect("make the folder");
    drop(UnixListener::bind(Path::new(SOCKETS).join("80fb3dd7b443fdf0f4db850a17d5cc93665821de26a7d1ec87a6e9929ddd111d")).expect("listen"));
    let started = ids.iter().map(|id| {
        let (reader, writer) = pipe();
        let mut command = shims.start_command(id);
        (Process::start(command.stdin(Stdio::null()).stdout(writer)), reader)
    });
    let started = started.collect::<Vec<_>>();
    for (mut process, reader) in started {
        assert_eq!(
            (process.wait(), read_text(reader)),
            (0, format!("unix://{SOCKETS}/80fb3dd7b443fdf0f4db850a17d5cc93665821de26a7d1ec87a6e9929ddd111d"))
        );
    }
    let servers = shims.servers(1);
    assert_eq!(servers.len(), 1);
    assert!(servers[0].words.starts_with("serve -group pod -namespace ns "), "{}", servers[0].words);
    for id in &ids {
        let address = shims.folder.path("bundles").join(id).join("address");
        assert_eq!(
            fs::read_to_string(address).expect("the address"),
            format!("unix://{SOCKETS}/80fb3dd7b443fdf0f4db850a17d5cc93665821de26a7d1ec87a6e9929ddd111d")
        );
    }
}

#[test]
fn a_container_that_joins_a_network_joins_its_shim() {
    let shims = Shims::new();
    let namespace = shims.folder.file("netns", "");
    let metadata = fs::metadata(&namespace).expect("it is there");
    let entry = Path::new("/run/husk-shim/netns").join(format!(
        "{}-{}",
        std::os::unix::fs::MetadataExt::dev(&metadata),
        std::os::unix::fs::MetadataExt::ino(&metadata)
    ));
    fs::create_dir_all("/run/husk-shim/netns").expect("make a folder");
    let listener = UnixListener::bind("/run/other.sock").expect("listen");
    fs::write(&entry, "unix:///run/other.sock\n").expect("write");
    let config = |annotations| {
        let namespaces = json!([{"type": "pid", "path": "/x"}, {"type": "network", "path": namespace}]);
        json!({"annotations": annotations, "linux": {"namespaces": namespaces}}).to_string()
    };
    let bundle = shims.bundle_with("c1", &config(json!({})));
    assert_eq!(shims.start("c1"), "unix:///run/other.sock");
    assert_eq!(fs::read_to_string(bundle.join("address")).expect("the address"), "unix:///run/other.sock");
    // An annotation says it better.
    shims.bundle_with("c2", &config(json!({"io.kubernetes.cri.sandbox-id": "c2"})));
    let own = shims.start("c2");
    assert!(own.starts_with(&format!("unix://{SOCKETS}/")), "{own}");
    // A shim that is gone, and entries that are nonsense.
    drop(listener);
    for (id, content) in [("c3", "unix:///run/other.sock"), ("c4", ""), ("c5", "unix://relative"), ("c6", "/run/other.sock\0")] {
        fs::write(&entry, content).expect("write");
        shims.bundle_with(id, &config(json!({})));
        assert!(shims.start(id).starts_with(&format!("unix://{SOCKETS}/")), "{content}");
    }
    // The host's own namespace is nobody's.
    let host = fs::metadata("/proc/self/ns/net").expect("it is there");
    let _listener = UnixListener::bind("/run/another.sock").expect("listen");
    let name = format!("{}-{}", std::os::unix::fs::MetadataExt::dev(&host), std::os::unix::fs::MetadataExt::ino(&host));
    fs::write(Path::new("/run/husk-shim/netns").join(name), "unix:///run/another.sock").expect("write");
    let config = json!({"linux": {"namespaces": [{"type": "network", "path": "/proc/self/ns/net"}]}});
    shims.bundle_with("c7", &config.to_string());
    assert!(shims.start("c7").starts_with(&format!("unix://{SOCKETS}/")));
    shims.servers(6);
}

#[test]
fn the_log_is_the_bundles_fifo_where_somebody_reads_it() {
    let shims = Shims::new();
    let null = ["/dev/null", "/dev/null", "/dev/null"];
    for (id, prepare) in [
        ("missing", (|_| ()) as fn(&Path)),
        ("unread", |bundle| drop(log_of(bundle))),
        ("file", |bundle| fs::write(bundle.join("log"), "").expect("write")),
        ("link", |bundle| std::os::unix::fs::symlink("/dev/full", bundle.join("log")).expect("make a link")),
    ] {
        let bundle = shims.bundle(id, json!({}));
        prepare(&bundle);
        shims.start(id);
        let servers = shims.servers(1);
        let [server] = &servers[..] else { panic!("one server, and not {}", servers.len()) };
        assert_eq!(server.streams[..3], null, "{id}");
        shims.kill(server);
        fs::remove_file(shims.folder.path(&format!("server.{}", server.pid))).expect("remove");
    }
}

#[test]
fn the_answer_is_in_the_form_that_the_caller_understands() {
    let shims = Shims::new();
    shims.bundle("c1", json!({}));
    let address = shims.start("c1");
    let (status, answer, _) = outcome(shims.start_command("c1").env("HUSK_SHIM_API", "3"));
    assert_eq!(status, 0);
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer, json!({"version": 3, "address": address, "protocol": "ttrpc"}));
    assert_eq!(outcome(shims.start_command("c1").env("HUSK_SHIM_API", "2")).1, address);
    let (status, _, error) = outcome(shims.start_command("c1").env("HUSK_SHIM_API", "4"));
    assert_eq!((status, error.as_str()), (1, "husk: HUSK_SHIM_API: expected 2 or 3"));
}

#[test]
fn bootstrap_parameters_are_obeyed_and_answered() {
    let shims = Shims::new();
    shims.bundle("c1", json!({}));
    let start = |input: &[u8], words: &[&str]| {
        let mut command = shims.command(words);
        let input = shims.folder.file("input", str::from_utf8(input).expect("text"));
        command.env_remove("TTRPC_ADDRESS").current_dir(shims.folder.path("bundles/c1"));
        let ((out, stdout), (err, stderr)) = (pipe(), pipe());
        let mut process = Process::start(command.stdin(fs::File::open(input).expect("open")).stdout(stdout).stderr(stderr));
        drop(command);
        (process.wait(), read_text(out), read_text(err))
    };
    // instance_id, namespace, ttrpc_address, grpc_address, socket_dir
    let params = b"\x0a\x02c1\x12\x02ns\x2a\x06/t.soc\x32\x06/g.soc\x4a\x05/run/";
    let (status, answer, error) = start(params, &["start"]);
    assert_eq!((status, error.as_str()), (0, ""));
    // printf /g.soc/ns/c1 | sha256sum
    let address = "unix:///run/e06bb6676562323bc29196888f75bd782b53f42fe834271b9c336d8964354a72";
    assert_eq!(answer, format!("\x08\x03\x12\x4c{address}\x1a\x05ttrpc"));
    let seen = shims.server();
    assert_eq!(seen.ttrpc_address, "/t.soc");
    assert!(seen.words.contains(" -address /g.soc -id c1 "), "{}", seen.words);

    let (status, _, error) = start(params, &["-namespace", "ns", "-id", "c2", "start"]);
    assert_eq!(status, 1);
    assert_eq!(error, "husk: standard input is for another shim: -id is \"c2\" here and \"c1\" there");
    // Options alone, as older versions write them.
    let options = b"\x0a\x1acontainerd.runc.v1.Options\x12\x06\x32\x04runc";
    assert_eq!(start(options, &["-namespace", "ns", "-address", "/g.soc", "-id", "c1", "start"]).0, 0);
    let (status, _, error) = start(b"hello", &["-namespace", "ns", "-id", "c1", "start"]);
    assert_eq!(status, 1);
    assert!(error.starts_with("husk: standard input holds no message that a shim knows: "), "{error}");
    shims.servers(2);
}

#[test]
fn a_pod_need_not_have_a_config() {
    let shims = Shims::new();
    let bundle = shims.bundle("pod", json!({}));
    fs::remove_file(bundle.join("config.json")).expect("remove");
    let (status, address, stderr) = outcome(&mut shims.start_command("pod"));
    assert_eq!((status, stderr), (0, String::new()), "{address}");
    assert!(shims.server().words.starts_with("serve -group pod "), "it is a shim of its own");
}

#[test]
fn a_start_that_fails_says_why_in_a_line_and_leaves_nothing() {
    let shims = Shims::new();
    let dist = shims.folder.path("shim.js");
    let no_text = json!({"io.kubernetes.cri.sandbox-id": ["pod"]});
    let huge = json!({"io.containerd.runc.v2.group": "x".repeat(1 << 20)});
    let deep = format!("{{\"annotations\":{}", "[".repeat(100_000));
    for (id, config, message) in [
        ("text", "hello".into(), "husk: config.json cannot be understood: expected value at line 1 column 1"),
        ("list", json!({"annotations": no_text}).to_string(), "husk: the annotation io.kubernetes.cri.sandbox-id is no text"),
        (
            "huge",
            json!({"annotations": huge}).to_string(),
            "husk: the annotation io.containerd.runc.v2.group is longer than 256 characters",
        ),
        ("deep", deep, "husk: config.json cannot be understood: "),
        ("large", " ".repeat((4 << 20) + 1), "husk: config.json is larger than 4 MiB"),
    ] {
        let bundle = shims.bundle_with(id, &config);
        let failure = shims.failure(id);
        assert!(failure.starts_with(message) && failure.lines().count() == 1, "{failure}");
        assert_eq!(names(&bundle), ["config.json"], "{id}");
        assert!(!Path::new(SOCKETS).exists(), "{id}");
    }

    // A fifo is not waited for.
    let fifo = shims.bundle("fifo", json!({}));
    fs::remove_file(fifo.join("config.json")).expect("remove");
    mkfifo(&fifo.join("config.json"), Mode::from_bits_truncate(0o600)).expect("make a fifo");
    assert_eq!(shims.failure("fifo"), "husk: config.json is no file");

    // The bundle's address cannot be written, and Node cannot be started: the socket is gone again.
    let bundle = shims.bundle("full", json!({}));
    fs::create_dir(bundle.join("address")).expect("make a folder");
    assert_eq!(shims.failure("full"), "husk: cannot write the bundle's address: Is a directory (os error 21)");
    assert_eq!((names(SOCKETS).len(), names(&bundle)), (0, vec!["address".to_owned(), "config.json".into()]));
    let bundle = shims.bundle("c1", json!({}));
    fs::set_permissions(shims.folder.path("node"), fs::Permissions::from_mode(0o644)).expect("make it no program");
    let message = format!("husk: cannot execute {} (run `npm run setup`): EACCES: Permission denied", shims.folder.path("node").display());
    assert_eq!(shims.failure("c1"), message);
    assert_eq!((names(SOCKETS).len(), names(&bundle)), (0, vec!["config.json".to_owned()]));
    fs::remove_file(&dist).expect("remove");
    assert_eq!(shims.failure("c1"), format!("husk: {} is missing (run `npm run setup`)", dist.display()));

    // Something else is where the socket would be.
    shims.folder.file("shim.js", "exit 1");
    let socket = shims.folder.file("in-the-way", "");
    let words = ["-namespace", "ns", "-id", "c1", "-socket", socket.to_str().expect("text"), "start"];
    let message = format!("husk: {} is in the way: it is no socket", socket.display());
    assert_eq!(outcome(shims.command(&words).current_dir(&bundle)), (1, String::new(), message));
    assert!(socket.exists());
}

#[test]
fn an_answer_that_nobody_takes_undoes_the_start() {
    let shims = Shims::new();
    let bundle = shims.bundle("c1", json!({}));
    let mut command = shims.start_command("c1");
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("open");
    let (reader, stderr) = pipe();
    let mut process = Process::start(command.stdin(Stdio::null()).stdout(full).stderr(stderr));
    drop(command);
    assert_eq!(process.wait(), 1);
    assert_eq!(read_text(reader), "husk: cannot print the answer: No space left on device (os error 28)");
    assert_eq!((names(SOCKETS).len(), names(&bundle)), (0, vec!["config.json".to_owned()]));
}

/// `delete`, as containerd calls it after the task of a bundle: what Node is called with, or nothing where it is not.
fn deleted(shims: &Shims, bundle: &Path) -> Option<String> {
    let words = ["-namespace", "ns", "--id=c1", "-bundle", bundle.to_str().expect("text"), "-debug", "delete"];
    let output = shims.command(&words).output().expect("run");
    match output.status.code() {
        Some(7) => Some(String::from_utf8(output.stdout).expect("text")),
        status => {
            assert_eq!((status, String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
            // Field 2 is 137, and field 3 has begun.
            assert_eq!(output.stdout[..4], [0x10, 0x89, 0x01, 0x1a], "{:?}", output.stdout);
            None
        }
    }
}

#[test]
fn a_task_whose_shim_has_given_everything_back_is_deleted_without_node() {
    let shims = Shims::new();
    let bundle = shims.bundle("c1", json!({}));
    assert_eq!(deleted(&shims, &bundle), None, "its start never got so far");

    let rootfs = bundle.join("rootfs");
    fs::create_dir(&rootfs).expect("make a folder");
    for _ in 0..2 {
        mount(Some("husk-test"), &rootfs, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount");
    }
    fs::create_dir_all(SOCKETS).expect("make the folder");
    let socket = Path::new(SOCKETS).join("a");
    drop(UnixListener::bind(&socket).expect("listen"));
    fs::write(bundle.join("address"), format!("unix://{}", socket.display())).expect("write");
    assert_eq!(deleted(&shims, &bundle), None);
    assert!(!socket.exists(), "the stale socket is left");
    assert!(!fs::read_to_string("/proc/thread-self/mountinfo").expect("read").contains(rootfs.to_str().expect("text")));
    assert_eq!(deleted(&shims, &bundle), None, "again");
}

#[test]
fn a_task_of_which_something_is_left_is_deleted_by_node() {
    let shims = Shims::new();
    let bundle = shims.bundle("c1", json!({}));
    fs::create_dir_all(SOCKETS).expect("make the folder");
    let socket = Path::new(SOCKETS).join("a");
    fs::write(bundle.join("address"), format!("unix://{}\n", socket.display())).expect("write");
    let passed_on = Some(format!("delete -namespace ns -id c1 -bundle {} -debug\n", bundle.display()));
    // printf /run/containerd/s/a | sha256sum
    let tasks = Path::new("/run/husk-shim/c1004cf78293d4155aeb2e4d69f673e4/tasks");
    fs::create_dir_all(tasks).expect("make a folder");

    assert_eq!(deleted(&shims, &bundle), passed_on, "the shim is dead");
    let _listener = UnixListener::bind(&socket).expect("listen");
    assert_eq!(deleted(&shims, &bundle), None, "the shim goes on, and has forgotten the task");
    fs::write(tasks.join("c1.jsonl"), "").expect("write");
    assert_eq!(deleted(&shims, &bundle), passed_on, "the shim goes on with the task");
}

#[test]
fn other_calls_are_passed_on_or_answered() {
    let shims = Shims::new();
    assert_eq!(outcome(&mut shims.command(&["-info"])), (7, "info\n".into(), "to the log\n".into()));
    let version = format!("containerd-shim-husk-v2: version {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(outcome(&mut shims.command(&["-v"])), (0, version, String::new()));
    for (words, message) in [
        (&[][..], "husk: no action, expected start or delete; containerd starts this program"),
        (&["-x", "start"], "husk: unknown flag -x"),
        (&["-id", "c1", "delete"], "husk: -namespace is missing"),
    ] {
        assert_eq!(outcome(&mut shims.command(words)), (1, String::new(), message.into()));
    }
    let usage = "husk: usage: husk-helper shim --node NODE --dist DIR -- WORDS...";
    assert_eq!(outcome(std::process::Command::new(common::HELPER).arg("shim")), (1, String::new(), usage.into()));
}
