//! What of the host is shown below /shared, and to whom.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use common::sandbox::{Sandbox, plan};
use common::{Folder, eventually, names};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

fn private_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("make a mount namespace");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).expect("make the mounts private");
}

fn tmpfs(path: &Path) {
    fs::create_dir_all(path).expect("make a folder");
    mount(Some("husk-test"), path, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).expect("mount");
}

/// A path below /shared, as the sandbox has it.
fn shown(sandbox: &Sandbox, target: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root/shared", sandbox.init)).join(target)
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref()).unwrap_or_else(|error| error.to_string())
}

fn ok(id: u64) -> Value {
    json!({"id": id, "ok": true})
}

#[test]
fn files_folders_and_trees_are_shown_and_hidden_again() {
    private_mounts();
    let folder = Folder::new();
    let file = folder.file("file", "of the host");
    folder.file("tree/top", "top");
    let inner = folder.path("tree/inner");
    tmpfs(&inner);
    fs::write(inner.join("deep"), "deep").expect("write");
    symlink("tree", folder.path("link")).expect("make a link");

    let mounts = json!([
        {"source": folder.path("tree"), "target": "c1/rootfs", "readonly": false},
        {"source": file, "target": "c1/files/one", "readonly": false},
    ]);
    let mut sandbox = Sandbox::launch(&plan(json!({"mounts": mounts})), vec![]);
    // The answer to a request tells that the plan was carried out.
    let mount =
        |source: &Path, target: &str, readonly: bool| json!({"op": "mount", "source": source, "target": target, "readonly": readonly});
    assert_eq!(sandbox.request(1, mount(&folder.path("link"), "c1/readonly", true)), ok(1));
    assert_eq!(read(shown(&sandbox, "c1/rootfs/top")), "top");
    assert_eq!(read(shown(&sandbox, "c1/rootfs/inner/deep")), "deep");
    assert_eq!(read(shown(&sandbox, "c1/files/one")), "of the host");
    assert_eq!(read(shown(&sandbox, "c1/readonly/inner/deep")), "deep");

    // What is written arrives at the host; what is read-only is so in all its parts.
    fs::write(shown(&sandbox, "c1/rootfs/inner/new"), "from the guest").expect("write");
    assert_eq!(read(inner.join("new")), "from the guest");
    fs::write(shown(&sandbox, "c1/files/one"), "changed").expect("write");
    assert_eq!(read(&file), "changed");
    for path in ["c1/readonly/top", "c1/readonly/inner/deep"] {
        let error = fs::write(shown(&sandbox, path), "no").expect_err("it is read-only");
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{path}");
    }

    assert_eq!(sandbox.request(2, json!({"op": "unmount", "target": "c1/files/one"})), ok(2));
    assert_eq!(sandbox.request(3, json!({"op": "unmount", "target": "c1/rootfs"})), ok(3));
    assert_eq!(names(shown(&sandbox, "c1")), ["readonly"]);
    assert_eq!(sandbox.request(4, json!({"op": "unmount", "target": "c1/readonly"})), ok(4));
    assert_eq!(names(shown(&sandbox, "")), Vec::<String>::new());
    let error = "cannot unshare c1/readonly: ENOENT: No such file or directory";
    assert_eq!(sandbox.request(5, json!({"op": "unmount", "target": "c1/readonly"})), json!({"id": 5, "error": error}));
    // The same place can be used again.
    assert_eq!(sandbox.request(6, mount(&file, "c1/readonly", true)), ok(6));
    assert_eq!(read(shown(&sandbox, "c1/readonly")), "changed");
    sandbox.end();
    assert_eq!(read(inner.join("deep")), "deep", "the host's own mounts are untouched");
}

#[test]
fn a_mount_that_is_read_only_itself_leaves_those_below_it_writable() {
    private_mounts();
    let folder = Folder::new();
    folder.file("tree/top", "top");
    tmpfs(&folder.path("tree/inner"));
    let asked = json!({"source": folder.path("tree"), "target": "t", "readonly": true, "writableBelow": true});
    let mut following = asked.clone();
    following["target"] = "following".into();
    following["follows"] = true.into();
    let top = json!({"source": folder.path("tree"), "target": "top", "readonly": true, "recursive": false});
    let mut sandbox = Sandbox::launch(&plan(json!({"mounts": [asked, following, top]})), vec![]);
    assert_eq!(sandbox.request(1, json!({"op": "signal", "name": "x", "signal": 1}))["id"], 1);
    for target in ["t", "following"] {
        let error = fs::write(shown(&sandbox, &format!("{target}/top")), "no").expect_err("it is read-only");
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{target}");
        fs::write(shown(&sandbox, &format!("{target}/inner/new")), target).expect("write");
        assert_eq!(read(folder.path("tree/inner/new")), target);
    }
    // Without those below it, their places are empty.
    assert_eq!(names(shown(&sandbox, "top")), ["inner", "top"]);
    assert_eq!(names(shown(&sandbox, "top/inner")), Vec::<String>::new());
    let error = fs::write(shown(&sandbox, "top/inner/no"), "no").expect_err("it is read-only");
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    sandbox.end();
}

#[test]
fn nothing_propagates_between_the_host_and_a_sandbox() {
    private_mounts();
    let folder = Folder::new();
    let source = folder.path("source");
    tmpfs(&source);
    mount(None::<&str>, &source, None::<&str>, MsFlags::MS_SHARED, None::<&str>).expect("make it shared");
    for name in ["before", "after"] {
        fs::create_dir(source.join(name)).expect("make a folder");
    }
    tmpfs(&source.join("before"));
    fs::write(source.join("before/file"), "x").expect("write");

    let mounts = json!([{"source": source, "target": "t", "readonly": false}]);
    let mut sandbox = Sandbox::launch(&plan(json!({"mounts": mounts})), vec![]);
    assert_eq!(sandbox.request(1, json!({"op": "signal", "name": "x", "signal": 1}))["id"], 1);
    tmpfs(&source.join("after"));
    fs::write(source.join("after/file"), "x").expect("write");
    assert_eq!(names(shown(&sandbox, "t/after")), Vec::<String>::new());
    assert_eq!(sandbox.request(2, json!({"op": "unmount", "target": "t"})), ok(2));
    assert_eq!(names(source.join("before")), ["file"]);
    sandbox.end();
    assert_eq!(names(source.join("before")), ["file"]);
}

#[test]
fn what_the_host_mounts_later_shows_where_it_is_to_follow() {
    private_mounts();
    let folder = Folder::new();
    let source = folder.path("source");
    tmpfs(&source);
    mount(None::<&str>, &source, None::<&str>, MsFlags::MS_SHARED, None::<&str>).expect("make it shared");
    fs::create_dir(source.join("after")).expect("make a folder");
    let mounts = json!([{"source": source, "target": "t", "readonly": false, "follows": true}]);
    let mut sandbox = Sandbox::launch(&plan(json!({"mounts": mounts})), vec![]);
    assert_eq!(sandbox.request(1, json!({"op": "signal", "name": "x", "signal": 1}))["id"], 1);
    tmpfs(&source.join("after"));
    fs::write(source.join("after/file"), "x").expect("write");
    assert_eq!(names(shown(&sandbox, "t/after")), ["file"]);
    nix::mount::umount(&source.join("after")).expect("unmount");
    assert_eq!(names(shown(&sandbox, "t/after")), Vec::<String>::new());
    // Nothing that happens to the sandbox's mounts happens to the host's.
    tmpfs(&source.join("after"));
    assert_eq!(sandbox.request(2, json!({"op": "unmount", "target": "t"})), ok(2));
    fs::write(source.join("after/file"), "x").expect("write");
    assert_eq!(names(source.join("after")), ["file"]);
    sandbox.end();
    assert_eq!(names(source.join("after")), ["file"]);
}

#[test]
fn sources_and_targets_that_are_not_what_they_should_be_are_named() {
    let folder = Folder::new();
    let source = folder.path("rootfs");
    fs::create_dir(&source).expect("make a folder");
    symlink("/", source.join("escape")).expect("make a link");
    let mounts = json!([{"source": source, "target": "c1", "readonly": false}]);
    let mut sandbox = Sandbox::launch(&plan(json!({"mounts": mounts})), vec![]);
    let absent = folder.path("absent");
    for (id, (source, target, error)) in [
        (absent.clone(), "x", format!("cannot share {}: ENOENT: No such file or directory", absent.display())),
        ("relative".into(), "x", "the mount's source relative must be absolute".into()),
        (source.clone(), "../x", "the mount's target ../x must be relative and without ..".into()),
        // Nothing is mounted inside of what a container controls.
        (source.clone(), "c1/escape/tmp", "cannot share at c1/escape/tmp: EXDEV: Cross-device link".into()),
        (source.clone(), "c1/inside", "cannot share at c1/inside: EXDEV: Cross-device link".into()),
    ]
    .into_iter()
    .enumerate()
    {
        let id = id as u64 + 1;
        let answer = sandbox.request(id, json!({"op": "mount", "source": source, "target": target}));
        assert_eq!(answer, json!({"id": id, "error": error}));
    }
    assert_eq!(names(&source), ["escape"], "nothing was made in the container's files");
    sandbox.end();
}

/// A virtiofsd of either kind, wherever it is: the one that husk builds, those of Debian's packages.
fn virtiofsd() -> Vec<Value> {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/virtiofsd");
    let rust =
        ["--fd=5", "--shared-dir=/shared", "--sandbox=chroot", "--announce-submounts", "--rlimit-nofile=0", "--modcaps=+dac_read_search"];
    let c = ["-f", "--fd=5", "-o", "source=/shared,sandbox=chroot,announce_submounts,log_level=err", "--rlimit-nofile=0"];
    let programs = [(built, &rust[..]), ("/usr/libexec/virtiofsd", &rust), ("/usr/lib/qemu/virtiofsd", &c)];
    let found = programs.into_iter().filter(|(program, _)| Path::new(program).exists()).map(|(program, options)| {
        let program = fs::canonicalize(program).expect("a path");
        let argv = [&[program.to_str().expect("text")], options].concat();
        json!({"name": "virtiofsd", "argv": argv, "user": "root", "fds": [], "socket": "/run/fs.sock", "socketFd": 5})
    });
    let found = found.collect::<Vec<_>>();
    assert!(!found.is_empty(), "no virtiofsd is installed");
    found
}

#[test]
fn virtiofsd_sees_what_is_mounted_after_its_start() {
    for virtiofsd in virtiofsd() {
        let folder = Folder::new();
        folder.file("first/file", "first");
        folder.file("second/file", "second");
        let mounts = json!([{"source": folder.path("first"), "target": "c1", "readonly": false}]);
        let program = PathBuf::from(virtiofsd["argv"][0].as_str().expect("a path"));
        let tree = json!({"readonly": ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", program], "devices": []});
        let mut sandbox = Sandbox::launch(&plan(json!({"mounts": mounts, "processes": [virtiofsd], "tree": tree})), vec![]);
        let server = sandbox.expect_start("virtiofsd");
        let root = PathBuf::from(format!("/proc/{server}/root"));
        // One of the two confines itself only as soon as its peer, which is QEMU as a rule, has connected.
        let _peer = UnixStream::connect(format!("/proc/{}/root/run/fs.sock", sandbox.init)).expect("connect");
        eventually("virtiofsd has changed its root", || root.join("c1/file").exists());
        assert_eq!(names(&root), ["c1"]);
        assert_eq!(sandbox.request(1, json!({"op": "mount", "source": folder.path("second"), "target": "c2", "readonly": true})), ok(1));
        assert_eq!(read(root.join("c2/file")), "second");
        assert_eq!(sandbox.request(2, json!({"op": "unmount", "target": "c2"})), ok(2));
        assert_eq!(names(&root), ["c1"]);
        sandbox.end();
    }
}
