//! A template's memory that several sandboxes have in common: who makes it, who may have it, and that nobody can change it.

mod common;

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::{Command, Output};

use common::sandbox::{Sandbox, plan};
use common::{Folder, HELPER, pipe, read_text};
use nix::fcntl::{FcntlArg, FdFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::{Value, json};

const PAGE: u64 = 4096;
const PAGES: u64 = 1024;
const NAME: &str = "husk-key-sum-state";

/// The template's file: something in a few pages, with a short hole and long ones between them.
struct Template {
    folder: Folder,
    ram: File,
    sum: String,
}

impl Template {
    fn new() -> Template {
        let folder = Folder::new();
        let ram = OpenOptions::new().read(true).write(true).create_new(true).open(folder.path("ram")).expect("make a file");
        ram.set_len(PAGES * PAGE).expect("make it long");
        for (page, byte) in [(3, 7), (5, 8), (200, 9), (PAGES - 1, 10)] {
            ram.write_all_at(&[byte; PAGE as usize], page * PAGE).expect("fill a page");
        }
        let sum = text(run(&["sum", "--from", &pass_on(&ram)]));
        Template { folder, ram, sum }
    }

    fn memory(&self) -> Value {
        let template = json!({"name": NAME, "ram": self.folder.path("ram"), "sum": self.sum, "record": self.folder.path("holder")});
        json!([{"fd": 300, "bytes": PAGES * PAGE, "template": template}])
    }

    fn record(&self, holder: &Value) {
        fs::write(self.folder.path("holder"), holder.to_string()).expect("write the record");
    }

    fn recorded(&self) -> Value {
        serde_json::from_slice(&fs::read(self.folder.path("holder")).expect("there is a record")).expect("JSON")
    }

    /// A clone that has a program with the memory. Both run until the clone's end.
    fn launch(&self, python: &str) -> Clone {
        let (reader, writer) = pipe();
        let script =
            format!("import mmap, os\nout = os.fdopen(4, 'w')\n{python}\nprint(os.fstat(300).st_ino, file=out, flush=True)\nos.read(5, 1)");
        let process =
            json!({"name": "probe", "argv": ["/usr/bin/python3", "-c", script], "user": "user", "fds": [4, 5, 300], "privateMemory": true});
        let (theirs, ours) = pipe();
        let changes = json!({"memory": self.memory(), "processes": [process]});
        let mut sandbox = Sandbox::launch(&plan(changes), vec![(4, writer), (5, theirs)]);
        let pid = sandbox.expect_start("probe");
        let mut said = String::new();
        let mut reader = File::from(reader);
        while !said.ends_with('\n') {
            let mut block = [0; 256];
            let length = reader.read(&mut block).expect("read");
            assert!(length > 0, "the program ended: {said}");
            said.push_str(std::str::from_utf8(&block[..length]).expect("text"));
        }
        let inode = said.lines().last().expect("a line").parse().expect("an inode");
        Clone { sandbox, pid, inode, _stays: ours }
    }
}

struct Clone {
    sandbox: Sandbox,
    pid: i64,
    /// Of the memory's file.
    inode: u64,
    _stays: OwnedFd,
}

impl Clone {
    /// The memory's file as the program has it.
    fn file(&self) -> File {
        OpenOptions::new().read(true).write(true).open(format!("/proc/{}/fd/300", self.pid)).expect("open the memory")
    }
}

/// Lets children have the descriptor, under the same number.
fn pass_on(file: &impl AsRawFd) -> String {
    let number = file.as_raw_fd();
    // SAFETY: the file is open as long as it is borrowed.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty())).expect("pass the descriptor on");
    number.to_string()
}

fn run(words: &[&str]) -> Output {
    Command::new(HELPER).arg("template").args(words).output().expect("run the helper")
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; (PAGES * PAGE) as usize];
    file.read_exact_at(&mut bytes, 0).expect("read the memory");
    bytes
}

#[test]
fn clones_have_one_memory_which_nobody_can_change_as_long_as_one_of_them_lives() {
    let template = Template::new();
    let original = content(&template.ram);
    let first = template.launch("");
    let second = template.launch("");
    assert_eq!(second.inode, first.inode);
    assert_eq!(template.recorded()["pid"], first.sandbox.outer.pid().as_raw());
    let memory = second.file();
    assert_eq!(content(&memory), original);
    assert!(memory.metadata().expect("look").blocks() <= 4 * PAGE / 512);
    let refused = |error: std::io::Error| assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    refused(memory.write_at(b"x", 3 * PAGE).expect_err("it cannot be written"));
    refused(memory.set_len(PAGE).expect_err("it cannot be cut off"));
    refused(memory.set_len(2 * PAGES * PAGE).expect_err("it cannot grow"));
    let hole = nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
    assert_eq!(nix::fcntl::fallocate(&memory, hole, 0, PAGE as i64), Err(nix::errno::Errno::EPERM));
    // What the template's file has become since is nothing to those who have its memory.
    template.ram.write_all_at(b"damaged", 3 * PAGE).expect("damage the file");
    assert_eq!(template.launch("").inode, first.inode);
    template.ram.write_all_at(&[7; PAGE as usize], 3 * PAGE).expect("mend the file");
    // The one that is recorded ends: its record costs the next one a copy, and is replaced.
    first.sandbox.end();
    let next = template.launch("");
    assert_ne!(next.inode, second.inode);
    assert_eq!(template.recorded()["pid"], next.sandbox.outer.pid().as_raw());
    assert_eq!(content(&second.file()), original);
    second.sandbox.end();
    assert_eq!(template.launch("").inode, next.inode);
    next.sandbox.end();
}

#[test]
fn what_a_clone_writes_is_its_own_and_takes_its_room_once() {
    let template = Template::new();
    let original = content(&template.ram);
    let write = "memory = mmap.mmap(300, 0)\nassert memory[200 * 4096] == 9 and memory[4096] == 0 and memory[-1] == 10\n";
    let one = template.launch(&format!("{write}for page in range(600): memory[page * 4096] = 1"));
    let other = template.launch(&format!("{write}memory[200 * 4096] = 2"));
    assert_eq!((content(&one.file()), other.inode), (original.clone(), one.inode));
    // The pages of the short hole may be there: they are mapped with those around them.
    assert!(one.file().metadata().expect("look").blocks() <= 5 * PAGE / 512);

    // From the outside, each has what it wrote, and the template's elsewhere.
    let saved = |clone: &Clone, switches: &[&str]| {
        let to =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(template.folder.path("saved")).expect("make a file");
        let (from, pid) = (clone.file(), clone.pid.to_string());
        let said = text(run(&[&["save", "--from", &pass_on(&from), "--to", &pass_on(&to), "--process", &pid], switches].concat()));
        (said, to)
    };
    let mut expected = original.clone();
    (0..600).for_each(|page| expected[page * PAGE as usize] = 1);
    let (said, to) = saved(&one, &[]);
    assert_eq!(content(&to), expected);
    assert_eq!(said, format!("{} {}", text(run(&["sum", "--from", &pass_on(&to)])), 601 * PAGE));
    let resident = |clone: &Clone| text(run(&["resident", "--from", &pass_on(&clone.file()), "--process", &clone.pid.to_string()]));
    assert_eq!(resident(&one), (601 * PAGE).to_string());

    expected = original;
    expected[200 * PAGE as usize] = 2;
    let (said, packed) = saved(&other, &["--packed"]);
    let to = File::create_new(template.folder.path("unpacked")).expect("make a file");
    to.set_len(PAGES * PAGE).expect("make it long");
    let (sum, _) = said.split_once(' ').expect("two words");
    text(run(&["unpack", "--from", &pass_on(&packed), "--to", &pass_on(&to), "--sum", sum]));
    assert_eq!(fs::read(template.folder.path("unpacked")).expect("read"), expected);
}

#[test]
fn a_record_of_what_is_not_the_memory_costs_a_copy() {
    let template = Template::new();
    let start = fs::read_to_string("/proc/self/stat")
        .expect("read")
        .rsplit_once(") ")
        .expect("it has a name")
        .1
        .split(' ')
        .nth(19)
        .map(str::to_owned);
    let start = start.expect("a start time").parse::<u64>().expect("a number");
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    let all = seals | SealFlag::F_SEAL_SEAL;
    let make = |name: &str, pages: u64, seals: SealFlag| {
        let file = memfd_create(CString::new(name).expect("a name").as_c_str(), MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING);
        let file = File::from(file.expect("make a memory file"));
        file.set_len(pages * PAGE).expect("make it long");
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).expect("seal it");
        file
    };
    let pid = std::process::id();
    let taken = |file: &File, holder: Value| {
        template.record(&holder);
        let clone = template.launch("");
        let is_taken = clone.inode == file.metadata().expect("look").ino();
        assert_eq!(content(&clone.file()) == content(&template.ram), !is_taken);
        assert_eq!(template.recorded() == holder, is_taken);
        clone.sandbox.end();
        is_taken
    };
    let holder = |file: &File| json!({"pid": pid, "start": start, "fd": file.as_raw_fd()});
    // The test knows what is looked at: this one has all of it, and is taken.
    let right = make(NAME, PAGES, all);
    assert!(taken(&right, holder(&right)));
    for wrong in
        [make("husk-key-sum-other", PAGES, all), make(NAME, PAGES, seals), make(NAME, PAGES, SealFlag::F_SEAL_GROW), make(NAME, 1, all)]
    {
        assert!(!taken(&wrong, holder(&wrong)));
    }
    assert!(!taken(&right, json!({"pid": pid, "start": start + 1, "fd": right.as_raw_fd()})));
    assert!(!taken(&right, json!({"pid": 0x3fff_ffff, "start": start, "fd": right.as_raw_fd()})));
    assert!(!taken(&right, json!("something else")));
    let foreign = make(NAME, PAGES, all);
    nix::unistd::fchown(&foreign, Some(nix::unistd::Uid::from_raw(common::sandbox::USER)), None).expect("give it away");
    assert!(!taken(&foreign, holder(&foreign)));
}

#[test]
fn a_damaged_template_is_no_memory() {
    let template = Template::new();
    let refused = |why: &str| {
        let mut sandbox = Sandbox::new(vec![]);
        sandbox.control().send(&plan(json!({"memory": template.memory()})));
        let event = sandbox.next();
        assert!(event["event"] == "fatal" && event["message"].as_str().is_some_and(|message| message.contains(why)), "{event}");
        assert!(!template.folder.path("holder").exists());
    };
    template.ram.write_all_at(b"x", 3 * PAGE).expect("damage it");
    refused("the template's memory is damaged: its sum is");
    template.ram.set_len(PAGE).expect("cut it off");
    refused("the template's memory is damaged: it has not 4194304 bytes");
}

#[test]
fn a_folder_that_cannot_be_written_to_leaves_the_memory_to_the_clone() {
    let template = Template::new();
    let mut memory = template.memory();
    memory[0]["template"]["record"] = json!("/proc/holder");
    let (reader, writer) = pipe();
    let process = json!({"name": "probe", "argv": ["/usr/bin/sha256sum", "/proc/self/fd/300"], "user": "user", "fds": [300, 4]});
    let mut sandbox = Sandbox::launch(&plan(json!({"memory": memory, "processes": [process]})), vec![(4, writer)]);
    sandbox.expect_start("probe");
    assert_eq!(sandbox.next(), json!({"event": "exit", "name": "probe", "code": 0}));
    assert_eq!(read_text(reader), "");
    sandbox.end();
}

/// Asks for memory to be filled, before there is a plan.
fn fill(sandbox: &mut Sandbox, template: &Template, sum: &str) -> Value {
    sandbox.request(1, json!({"op": "fill", "ram": template.folder.path("ram"), "bytes": PAGES * PAGE, "sum": sum}))
}

/// A plan with that memory, of so many bytes, and a program that tells what is in it, and changes it.
fn plan_filled(sum: &str, bytes: u64) -> Value {
    let script = "import os\nout = os.fdopen(4, 'w')\nprint(os.pread(300, 1, 200 * 4096)[0], os.fstat(300).st_size, os.fstat(300).st_blocks // 8, file=out)\n\
        os.pwrite(300, b'x', 0)";
    let process = json!({"name": "probe", "argv": ["/usr/bin/python3", "-c", script], "user": "user", "fds": [4, 300]});
    plan(json!({"memory": [{"fd": 300, "bytes": bytes, "filled": sum}], "processes": [process]}))
}

#[test]
fn memory_is_filled_before_the_plan() {
    let template = Template::new();
    let (reader, writer) = pipe();
    let mut sandbox = Sandbox::new(vec![(4, writer)]);
    assert_eq!(fill(&mut sandbox, &template, &template.sum), json!({"id": 1, "ok": true}));
    sandbox.control().send(&plan_filled(&template.sum, PAGES * PAGE));
    sandbox.expect_launch();
    sandbox.expect_start("probe");
    assert_eq!(read_text(reader), format!("9 {} 4\n", PAGES * PAGE));
    assert_eq!(sandbox.next()["code"], 0);
    sandbox.end();
    // It was a copy.
    let mut first = [1];
    template.ram.read_exact_at(&mut first, 0).expect("read");
    assert_eq!(first, [0]);
}

#[test]
fn what_was_filled_is_what_the_plan_has_in_mind_or_nothing() {
    let template = Template::new();
    let mut sandbox = Sandbox::new(vec![]);
    let error = fill(&mut sandbox, &template, "00000000");
    assert!(error["error"].as_str().is_some_and(|text| text.contains("its sum is") && text.contains("not 00000000")), "{error}");
    for (is_filled, sum, bytes) in [(false, "00000000", PAGES * PAGE), (true, "00000000", PAGES * PAGE), (true, &template.sum, PAGE)] {
        let (_reader, writer) = pipe();
        let mut sandbox = Sandbox::new(vec![(4, writer)]);
        if is_filled {
            fill(&mut sandbox, &template, &template.sum);
        }
        sandbox.control().send(&plan_filled(sum, bytes));
        let event = sandbox.next();
        let expected = if is_filled { "the memory was filled with" } else { "no memory was filled" };
        assert!(event["message"].as_str().is_some_and(|text| text.starts_with(expected)), "{event}");
        assert_eq!(sandbox.outer.wait(), 1);
    }
    sandbox.control().send(&json!({"id": 2, "op": "tap", "name": "tap0"}));
    sandbox.control().expect(json!({"id": 2, "error": "there is no sandbox yet"}));
}
