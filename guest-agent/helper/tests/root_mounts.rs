//! A container's root file system, mounted on the host as containerd asks for it, and unmounted again.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::session::outcome;
use common::{Folder, HELPER, Process, names, pipe, read_text};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

/// A folder in a mount namespace of the calling thread, on a file system that an overlay can write to.
struct Host {
    folder: Folder,
    target: PathBuf,
}

impl Host {
    fn new() -> Host {
        unshare(CloneFlags::CLONE_NEWNS).expect("make a mount namespace");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).expect("make the mounts private");
        let folder = Folder::new();
        tmpfs(&folder.0);
        let target = folder.path("a root fs");
        fs::create_dir(&target).expect("make a folder");
        Host { folder, target }
    }

    /// `husk-helper mount`: its status, and what it says.
    fn mount(&self, mounts: &Value) -> (i32, String) {
        self.mount_text(&json!({"target": self.target, "mounts": mounts, "unknown": 1}).to_string())
    }

    fn mount_text(&self, plan: &str) -> (i32, String) {
        let ((stdin, feeder), (reader, stderr)) = (pipe(), pipe());
        let mut process = Process::start(Command::new(HELPER).arg("mount").stdin(stdin).stdout(Stdio::null()).stderr(stderr));
        fs::File::from(feeder).write_all(plan.as_bytes()).expect("write");
        let words = read_text(reader);
        (process.wait(), words)
    }

    fn unmount(&self, target: &Path) -> (i32, String, String) {
        outcome(Command::new(HELPER).args(["unmount", "--target"]).arg(target))
    }

    /// Where something is mounted below the folder, the folder itself aside.
    fn mounted(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").expect("the mounts");
        let paths = table.lines().filter_map(|line| line.split(' ').nth(4)).map(|path| path.replace("\\040", " "));
        paths
            .filter_map(|path| Some(Path::new(&path).strip_prefix(&self.folder.0).ok()?.to_str()?.to_owned()))
            .filter(|path| !path.is_empty())
            .collect()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.target.join(name)).unwrap_or_else(|error| error.to_string())
    }

    fn write_error(&self, name: &str) -> Option<i32> {
        fs::write(self.target.join(name), "x").err().and_then(|error| error.raw_os_error())
    }
}

fn tmpfs(path: &Path) {
    fs::create_dir_all(path).expect("make a folder");
    mount(Some("husk-test"), path, Some("tmpfs"), MsFlags::empty(), Some("size=8m")).expect("mount");
}

fn ok() -> (i32, String) {
    (0, String::new())
}

#[test]
fn an_overlay_is_mounted_as_snapshotters_ask_for_it() {
    let host = Host::new();
    host.folder.file("snapshots/1/fs/lower", "lower");
    for name in ["2/fs", "2/work"] {
        fs::create_dir_all(host.folder.path("snapshots").join(name)).expect("make a folder");
    }
    let path = |name: &str| host.folder.path("snapshots").join(name).display().to_string();
    let options =
        json!([format!("workdir={}", path("2/work")), format!("upperdir={}", path("2/fs")), format!("lowerdir={}", path("1/fs"))]);
    assert_eq!(host.mount(&json!([{"type": "overlay", "source": "overlay", "options": options}])), ok());
    assert_eq!(host.read("lower"), "lower");
    assert_eq!(host.write_error("upper"), None);
    assert_eq!(fs::read_to_string(host.folder.path("snapshots/2/fs/upper")).expect("it is in the upper folder"), "x");
    assert_eq!(host.unmount(&host.target), (0, String::new(), String::new()));
    assert_eq!(host.mounted(), Vec::<String>::new());
    // Once more is no error, nor is what was never there.
    assert_eq!(host.unmount(&host.target).0, 0);
    assert_eq!(host.unmount(&host.folder.path("absent/rootfs")).0, 0);
}

#[test]
fn an_overlay_of_more_folders_than_fit_in_a_page_is_mounted() {
    let host = Host::new();
    let layers = (0..60).map(|number| {
        let name = format!("{}/{number}", "s".repeat(100));
        host.folder.file(&format!("{name}/file-{number}"), "");
        host.folder.path(&name).display().to_string()
    });
    let lower = layers.collect::<Vec<_>>().join(":");
    assert!(lower.len() > 4096);
    assert_eq!(host.mount(&json!([{"type": "overlay", "source": "overlay", "options": [format!("lowerdir={lower}")]}])), ok());
    assert_eq!(names(&host.target).len(), 60);
    assert_eq!(host.unmount(&host.target).0, 0);

    // Folders that have nothing in common cannot be named any shorter.
    let options = [format!("lowerdir=/a:{lower}")];
    let (status, error) = host.mount(&json!([{"type": "overlay", "source": "overlay", "options": options}]));
    assert_eq!(status, 1);
    let length = options[0].len();
    assert_eq!(error, format!("husk: cannot mount overlay (overlay): its options are {length} bytes long, and the kernel takes 4095\n"));
}

#[test]
fn folders_are_bound_and_stacked_and_go_again_without_a_trace_in_their_source() {
    let host = Host::new();
    host.folder.file("source/file", "bound");
    tmpfs(&host.folder.path("source/inner"));
    host.folder.file("source/inner/deep", "deep");
    // What is unmounted at one of two shared places is unmounted at the other.
    mount(None::<&str>, &host.folder.0, None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>).expect("share the mounts");
    let source = host.folder.path("source");

    assert_eq!(host.mount(&json!([{"type": "bind", "source": source, "options": ["rbind", "rw"]}])), ok());
    assert_eq!((host.read("file"), host.read("inner/deep")), ("bound".into(), "deep".into()));
    assert_eq!(host.write_error("inner/new"), None);
    // A second one on top, read-only in all its parts, and without what is mounted below its source.
    assert_eq!(host.mount(&json!([{"type": "bind", "source": source, "options": ["rbind", "ro", "nosuid"]}])), ok());
    assert_eq!((host.write_error("file"), host.write_error("inner/new")), (Some(libc::EROFS), Some(libc::EROFS)));
    assert_eq!(host.mount(&json!([{"type": "bind", "source": source, "options": ["ro", "bind"]}])), ok());
    assert_eq!(host.read("inner/deep"), "No such file or directory (os error 2)");
    assert_eq!(host.write_error("file"), Some(libc::EROFS));
    // A plan may mount inside of what it has mounted; no link leads out.
    symlink("/inner", source.join("link")).expect("make a link");
    let two = json!([
        {"type": "bind", "source": source, "options": ["rbind"]},
        {"type": "tmpfs", "source": "tmpfs", "target": "link", "options": ["size=64k", "noexec", "mode=700"]},
    ]);
    assert_eq!(host.mount(&two), ok());
    assert_eq!(names(host.target.join("inner")), Vec::<String>::new());
    assert_eq!(host.write_error("inner/gone"), None);

    // One of somebody else's making, which is the source's peer.
    mount(Some(&source), &host.target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>).expect("bind");
    assert_eq!(host.unmount(&host.target), (0, String::new(), String::new()));
    assert_eq!(host.mounted(), ["source/inner"]);
    assert_eq!(names(host.folder.path("source/inner")), ["deep", "new"]);
}

#[test]
fn mounts_below_the_target_go_as_well() {
    let host = Host::new();
    for name in ["a", "a/b", "with blank", "a"] {
        tmpfs(&host.target.join(name));
    }
    tmpfs(&host.folder.path("a root fs beside"));
    let link = host.folder.path("link");
    symlink(&host.target, &link).expect("make a link");
    // A link is not followed.
    assert_eq!(host.unmount(&link).0, 0);
    assert_eq!(host.mounted().len(), 5);
    assert_eq!(host.unmount(&host.target), (0, String::new(), String::new()));
    assert_eq!(host.mounted(), ["a root fs beside"]);
}

#[test]
fn an_image_is_mounted_by_a_loop_device_that_ends_with_the_mount() {
    let host = Host::new();
    let image = host.folder.path("image");
    fs::File::create(&image).expect("make a file").set_len(4 << 20).expect("make it large");
    let made = Command::new("mkfs.ext4").arg("-q").arg(&image).status().expect("mkfs.ext4 (apt-get install e2fsprogs)");
    assert!(made.success());
    let devices = || {
        let used = |name: &str| {
            fs::read_to_string(format!("/sys/block/{name}/loop/backing_file"))
                .is_ok_and(|file| file.trim() == image.to_str().expect("text"))
        };
        names("/sys/block").into_iter().filter(|name| used(name)).collect::<Vec<_>>()
    };
    assert_eq!(host.mount(&json!([{"type": "ext4", "source": image, "options": ["loop"]}])), ok());
    assert_eq!(names(&host.target), ["lost+found"]);
    assert_eq!((host.write_error("file"), devices().len()), (None, 1));
    assert_eq!(host.unmount(&host.target).0, 0);
    assert_eq!(host.mount(&json!([{"type": "ext4", "source": image, "options": ["ro", "loop"]}])), ok());
    assert_eq!((host.read("file"), host.write_error("file")), ("x".into(), Some(libc::EROFS)));
    assert_eq!(host.unmount(&host.target).0, 0);
    common::eventually("the device is free again", || devices().is_empty());
    // A device that cannot be mounted is given back.
    let (status, error) = host.mount(&json!([{"type": "xfs", "source": image, "options": ["loop"]}]));
    assert_eq!(status, 1, "{error}");
    common::eventually("the device is free again", || devices().is_empty());
}

#[test]
fn a_plan_that_fails_leaves_nothing_and_says_what_failed() {
    let host = Host::new();
    host.folder.file("source/file", "");
    let source = host.folder.path("source");
    let bind = json!({"type": "bind", "source": source, "options": ["rbind", "ro"]});
    let absent = host.folder.path("absent");
    for (mount, message) in [
        (json!({"type": "bind", "source": absent}), format!("cannot mount {} (bind): ENOENT: No such file or directory", absent.display())),
        (json!({"type": "nonsense", "source": "x"}), "cannot mount x (nonsense): ENODEV: No such device".into()),
        (
            json!({"type": "tmpfs", "source": "tmpfs", "target": "../../../nowhere"}),
            format!(
                "cannot mount tmpfs (tmpfs): cannot open {}/../../../nowhere: ENOENT: No such file or directory",
                host.target.display()
            ),
        ),
        (
            json!({"type": "overlay", "source": "o", "options": ["X-containerd.x=1"]}),
            "the mount option X-containerd.x=1 is not supported".into(),
        ),
        (
            json!({"type": "ext4", "source": source, "options": ["loop"]}),
            format!("cannot mount {0} (ext4): cannot open {0}: Is a directory (os error 21)", source.display()),
        ),
    ] {
        let inner = json!({"type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]});
        assert_eq!(host.mount(&json!([bind, inner, mount])), (1, format!("husk: {message}\n")));
        assert_eq!(host.mounted(), Vec::<String>::new());
    }
    assert_eq!(host.mount_text("{}"), (1, "husk: standard input cannot be understood: missing field `target` at line 1 column 2\n".into()));
    assert_eq!(host.mount_text(r#"{"target":"x","mounts":[]}"#), (1, "husk: the target x must be absolute\n".into()));
    let link = host.folder.path("link");
    symlink(&host.target, &link).expect("make a link");
    let (status, error) = host.mount_text(&json!({"target": link, "mounts": [bind]}).to_string());
    assert_eq!((status, host.mounted()), (1, Vec::new()), "{error}");
    assert_eq!(host.unmount(Path::new("x")), (1, String::new(), "husk: the target x must be absolute\n".into()));
}
