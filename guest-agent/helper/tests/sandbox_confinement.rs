//! What a program of a sandbox is, has and sees.

mod common;

use std::fs;

use common::sandbox::{Sandbox, USER, output_of, plan, script};
use common::{Conversation, Folder, names, pair, pipe, read_text, status_field};
use serde_json::json;

#[test]
fn qemu_runs_with_nothing_but_what_it_was_given() {
    let (qmp, theirs) = pair();
    let argv = "/usr/bin/qemu-system-x86_64 -machine none -nodefaults -display none -chardev socket,id=q,fd=4 -mon chardev=q,mode=control \
                -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
    let process = json!({"name": "qemu", "argv": argv.split_whitespace().collect::<Vec<_>>(), "user": "user", "fds": [4]});
    let mut sandbox = Sandbox::launch(&plan(json!({"processes": [process]})), vec![(4, theirs.into())]);
    let qemu = sandbox.expect_start("qemu");
    let mut qmp = Conversation::new(qmp);
    assert!(qmp.next().expect("a greeting")["QMP"]["version"].is_object());

    for (field, expected) in [
        ("Uid", [USER; 4].map(|id| id.to_string()).join(" ")),
        ("Gid", [USER; 4].map(|id| id.to_string()).join(" ")),
        ("Groups", String::new()),
        ("CapPrm", "0000000000000000".into()),
        ("CapEff", "0000000000000000".into()),
        ("CapBnd", "0000000000000000".into()),
        ("CapAmb", "0000000000000000".into()),
        ("NoNewPrivs", "1".into()),
        ("Seccomp", "2".into()),
        ("SigIgn", "0000000000001000".into()), // SIGPIPE, by QEMU itself
    ] {
        assert_eq!(status_field(qemu, field), expected, "{field}");
    }
    for namespace in ["pid", "mnt", "net", "ipc", "uts"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).expect("a namespace");
        assert_eq!(of(&qemu.to_string()), of(&sandbox.init.to_string()), "{namespace}");
        assert_ne!(of(&qemu.to_string()), of("self"), "{namespace}");
    }
    assert_eq!(names(format!("/proc/{qemu}/root")), ["bin", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "shared", "tmp", "usr"]);
    let limits = fs::read_to_string(format!("/proc/{qemu}/limits")).expect("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core")).expect("a limit of core files");
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"]);

    // Init has given the monitor away: its end is QEMU's.
    assert_eq!(sandbox.request(1, json!({"op": "signal", "name": "qemu", "signal": 9})), json!({"id": 1, "ok": true}));
    assert_eq!(sandbox.next(), json!({"event": "exit", "name": "qemu", "signal": 9}));
    assert_eq!(qmp.next(), None);
    sandbox.end();
}

#[test]
fn a_program_sees_a_small_tree_that_it_cannot_change() {
    let text = r#"
        for path in / /usr /etc /dev /shared /proc/sys/kernel; do ( : > "$path/x" ) 2>/dev/null && echo "can write $path"; done
        for path in /run /tmp; do ( : > "$path/x" ) 2>/dev/null || echo "cannot write $path"; done
        ls /shared >/dev/null 2>&1 && echo "can list /shared"
        ls -ld /proc/1 >/dev/null 2>&1 && echo "can see PID 1"
        kill -0 1 2>/dev/null && echo "can signal PID 1"
        echo "$$ $(id -u) $(cat /proc/sys/kernel/hostname) [$(env | sort | tr '\n' ' ')]"
        ls /etc /dev
        ls /proc/self/fd/
        grep -v ' ro,' /proc/mounts | cut -d ' ' -f 2
        sed 's/:.*/:/; 1,2d' /proc/net/dev
        echo done | tee /dev/null > /dev/full || true
    "#;
    let output = output_of(json!({}), "user", text);
    let lines = output.lines().collect::<Vec<_>>();
    assert_eq!(lines[0], format!("2 {USER} husk [LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PWD=/ ]"));
    let rest = lines[1..].join(" ");
    // 3 is the folder that ls itself looks at.
    let expected = "/dev: full null random urandom zero /etc: ld.so.cache 0 1 2 3 4 /shared /run /tmp lo: \
                    tee: 'standard output': No space left on device";
    assert_eq!(sorted(&rest), sorted(expected), "{rest}");
}

fn sorted(text: &str) -> Vec<&str> {
    let mut words = text.split_whitespace().collect::<Vec<_>>();
    words.sort_unstable();
    words
}

#[test]
fn root_programs_keep_what_virtiofsd_needs_and_no_more() {
    let output =
        output_of(json!({}), "root", "grep -E '^(Uid|Groups|Cap(Prm|Eff|Bnd|Inh|Amb)|NoNewPrivs)' /proc/self/status | tr -s '\\t\\n' ' '");
    // chown, dac_override, dac_read_search, fowner, fsetid, setgid, setuid, setpcap, sys_chroot, mknod, setfcap
    let kept = "00000000880401df";
    let none = "0000000000000000";
    assert_eq!(
        sorted(&output),
        sorted(&format!("Uid: 0 0 0 0 Groups: CapInh: {none} CapPrm: {kept} CapEff: {kept} CapBnd: {kept} CapAmb: {none} NoNewPrivs: 1"))
    );
}

#[test]
fn devices_belong_to_the_user_and_absent_ones_are_an_error() {
    let tree = json!({"readonly": ["/usr", "/bin", "/lib", "/lib64"], "devices": ["net/tun"]});
    let output =
        output_of(json!({"tree": tree}), "user", "stat -c '%n %u %a %t:%T' /dev/net/tun /dev/null; : <>/dev/net/tun && echo opened");
    assert_eq!(output, format!("/dev/net/tun {USER} 600 a:c8\n/dev/null 0 666 1:3\nopened\n"));

    for (device, message) in
        [("mem", "mem is no device that a sandbox may have"), ("../etc/passwd", "../etc/passwd is no device that a sandbox may have")]
    {
        let mut sandbox = Sandbox::new(vec![]);
        sandbox.control().send(&plan(json!({"tree": {"devices": [device]}})));
        sandbox.control().expect(json!({"event": "fatal", "message": message}));
        assert_eq!(sandbox.control().next(), None);
        assert_eq!(sandbox.outer.wait(), 1);
    }
}

#[test]
fn the_tree_shows_files_folders_and_links_of_the_host() {
    let folder = Folder::new();
    let file = folder.file("deep/er/file", "content");
    let other = folder.file("folder/inner", "inside");
    let link = folder.path("link");
    std::os::unix::fs::symlink("folder", &link).expect("make a link");
    let outer = other.parent().expect("a folder").to_owned();
    let tree = json!({"readonly": ["/usr", "/bin", "/lib", "/lib64", file, outer, link, other], "devices": []});
    let text = format!(
        "cat {0}; cat {1}/inner; ls {2}; (echo > {0}; echo > {1}/inner) 2>&1 | grep -c Read-only",
        file.display(),
        link.display(),
        folder.0.display()
    );
    assert_eq!(output_of(json!({"tree": tree}), "root", &text), "contentinsidedeep\nfolder\nlink\n2\n");

    let mut sandbox = Sandbox::new(vec![]);
    sandbox.control().send(&plan(json!({"tree": {"readonly": [folder.path("absent")]}})));
    let message = format!("cannot show {} in the sandbox: No such file or directory (os error 2)", folder.path("absent").display());
    sandbox.control().expect(json!({"event": "fatal", "message": message}));
    assert_eq!(sandbox.outer.wait(), 1);
}

#[test]
fn files_and_sockets_of_the_host_arrive_as_numbered_descriptors() {
    let folder = Folder::new();
    let (readable, writable) = (folder.file("readable", "abc"), folder.file("writable", ""));
    let socket = folder.path("listening.sock");
    let (reader, writer) = pipe();
    let text = "exec >&9; cat <&7; echo written >&8; (echo no >&7) 2>/dev/null || echo refused; \
                readlink /proc/self/fd/6 | cut -c1-7; ls /proc/self/fd/ | tr '\\n' ' '";
    let changes = json!({
        "listen": [{"fd": 6, "path": socket}],
        "open": [{"fd": 7, "path": readable, "write": false}, {"fd": 8, "path": writable, "write": true}],
        "processes": [script("probe", "user", &[6, 7, 8, 9], text)],
    });
    let mut sandbox = Sandbox::launch(&plan(changes), vec![(9, writer)]);
    sandbox.expect_start("probe");
    assert_eq!(read_text(reader), "abcrefused\nsocket:\n0 1 2 3 6 7 8 9 ");
    assert_eq!(fs::read_to_string(&writable).expect("the file"), "written\n");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(&socket).expect("the socket").mode() & 0o777, 0o600);
    sandbox.next();
    sandbox.end();

    // A second sandbox may not take the socket over.
    let mut sandbox = Sandbox::new(vec![]);
    sandbox.control().send(&plan(json!({"listen": [{"fd": 6, "path": socket}]})));
    let message = format!("cannot make the socket {}: EADDRINUSE: Address already in use", socket.display());
    sandbox.control().expect(json!({"event": "fatal", "message": message}));
    for (path, message) in [
        (folder.0.clone(), format!("{} is no file and no block device", folder.0.display())),
        (folder.path("absent"), format!("cannot open {}: No such file or directory (os error 2)", folder.path("absent").display())),
    ] {
        let mut sandbox = Sandbox::new(vec![]);
        sandbox.control().send(&plan(json!({"open": [{"fd": 6, "path": path}]})));
        sandbox.control().expect(json!({"event": "fatal", "message": message}));
    }
}

#[test]
fn descriptors_that_several_programs_share_are_closed_when_all_of_them_end() {
    let (reader, writer) = pipe();
    let processes = json!([script("one", "user", &[4], "echo one >&4"), script("two", "root", &[4], "echo two >&4")]);
    let mut sandbox = Sandbox::launch(&plan(json!({"processes": processes})), vec![(4, writer)]);
    let output = read_text(reader);
    assert_eq!(sorted(&output), ["one", "two"]);
    assert!(sandbox.next()["event"].is_string());
    sandbox.end();
}

#[test]
fn a_sandbox_joins_the_cgroups_that_it_is_told() {
    let cgroup = common::Cgroup::new();
    let text = "cat /proc/self/cgroup";
    let output = output_of(json!({"cgroups": [cgroup.0]}), "user", text);
    let name = cgroup.0.file_name().expect("a name").to_str().expect("text");
    assert!(output.lines().any(|line| line.ends_with(name)), "{output}");

    let mut sandbox = Sandbox::new(vec![]);
    sandbox.control().send(&plan(json!({"cgroups": ["/sys/fs/cgroup/absent"]})));
    let message = "cannot join the cgroup through /sys/fs/cgroup/absent/cgroup.procs";
    let event = sandbox.next();
    assert!(event["message"].as_str().expect("a message").starts_with(message), "{event}");
}
