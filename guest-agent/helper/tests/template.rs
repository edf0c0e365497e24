//! `husk-helper template`: copies of a template's memory, their sum, and the file that a hypervisor's state is written to.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output};

use common::{Folder, HELPER};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

const PAGE: u64 = 4096;

/// A memory of 64 pages with something in three of them, the last included; a fourth was written, with zeroes.
fn memory(folder: &Path, name: &str) -> File {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(folder.join(name)).expect("make a file");
    file.set_len(64 * PAGE).expect("make it 64 pages long");
    for (page, byte) in [(3, 7), (4, 8), (40, 0), (63, 9)] {
        file.write_all_at(&[byte; PAGE as usize], page * PAGE).expect("fill a page");
    }
    file
}

fn empty(folder: &Path, name: &str) -> File {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(folder.join(name)).expect("make a file");
    file.set_len(64 * PAGE).expect("make it 64 pages long");
    file
}

/// Lets children have the descriptor, under the same number.
fn pass_on(file: &impl AsRawFd) -> String {
    let number = file.as_raw_fd();
    // SAFETY: the file is open as long as it is borrowed.
    let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty())).expect("pass the descriptor on");
    number.to_string()
}

fn run(words: &[&str]) -> Output {
    Command::new(HELPER).arg("template").args(words).output().expect("run the helper")
}

fn sum(file: &File) -> String {
    let output = run(&["sum", "--from", &pass_on(file)]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn copy(from: &File, to: &File, sum: &str) -> Output {
    run(&["copy", "--from", &pass_on(from), "--to", &pass_on(to), "--sum", sum])
}

#[test]
fn a_copy_has_the_same_bytes_and_no_page_of_zeroes() {
    let folder = Folder::new();
    let (from, to) = (memory(&folder.0, "from"), empty(&folder.0, "to"));
    let output = copy(&from, &to, &sum(&from));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read(folder.0.join("to")).expect("read"), fs::read(folder.0.join("from")).expect("read"));
    assert!(to.metadata().expect("look").blocks() <= 3 * PAGE / 512);
}

#[test]
fn the_sum_is_of_what_is_there_and_of_where_it_is() {
    let folder = Folder::new();
    let file = memory(&folder.0, "a");
    let before = sum(&file);
    assert_eq!(sum(&memory(&folder.0, "b")), before);
    file.write_all_at(&[0; PAGE as usize], 50 * PAGE).expect("write zeroes, which change nothing");
    assert_eq!(sum(&file), before);
    file.write_all_at(&[1], 5 * PAGE).expect("change a byte");
    assert_ne!(sum(&file), before);
    let moved = empty(&folder.0, "moved");
    for (page, byte) in [(3, 7), (5, 8), (63, 9)] {
        moved.write_all_at(&[byte; PAGE as usize], page * PAGE).expect("fill a page");
    }
    assert_ne!(sum(&moved), before);
}

#[test]
fn a_memory_that_is_not_what_it_was_is_no_success() {
    let folder = Folder::new();
    let (from, to) = (memory(&folder.0, "from"), empty(&folder.0, "to"));
    let output = copy(&from, &to, "00000000");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the template's memory is damaged: its sum is") && said.contains("not 00000000"), "{said}");
    from.set_len(1000).expect("cut the memory off");
    let said = String::from_utf8_lossy(&copy(&from, &to, "00000000").stderr).into_owned();
    assert!(said.contains("has 1000 bytes, which is no number of pages"), "{said}");
}

#[test]
fn what_is_saved_can_be_copied_back_and_its_zeroes_are_nowhere() {
    let folder = Folder::new();
    let (from, to) = (memory(&folder.0, "from"), empty(&folder.0, "to"));
    let original = fs::read(folder.0.join("from")).expect("read");
    let before = from.metadata().expect("look").blocks();
    let save = |switches: &[&str]| {
        let output = run(&[&["save", "--from", &pass_on(&from), "--to", &pass_on(&to)], switches].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    let said = save(&[]);
    assert_eq!(said, format!("{} {}", sum(&from), 3 * PAGE));
    assert_eq!(from.metadata().expect("look").blocks(), before);
    assert_eq!(save(&["--give-back"]), said);
    assert!(from.metadata().expect("look").blocks() <= 3 * PAGE / 512);
    assert!(to.metadata().expect("look").blocks() <= 3 * PAGE / 512);
    for name in ["from", "to"] {
        assert_eq!(fs::read(folder.0.join(name)).expect("read"), original);
    }
    // A disk is no number of pages.
    from.set_len(64 * PAGE + 100).expect("make it longer");
    from.write_all_at(&[3; 100], 64 * PAGE).expect("fill the rest");
    assert_eq!(save(&[]), format!("{} {}", sum(&from), 3 * PAGE + 100));
    assert_eq!(fs::read(folder.0.join("to")).expect("read"), fs::read(folder.0.join("from")).expect("read"));
}

#[test]
fn what_is_saved_packed_has_no_holes_and_can_be_unpacked_as_long_as_it_is_whole() {
    let folder = Folder::new();
    let (from, packed, to) = (memory(&folder.0, "from"), empty(&folder.0, "packed"), empty(&folder.0, "to"));
    packed.set_len(0).expect("empty the file");
    let output = run(&["save", "--packed", "--from", &pass_on(&from), "--to", &pass_on(&packed)]);
    assert!(output.status.success(), "{output:?}");
    let expected = sum(&from);
    // Two pages beside each other are one piece.
    let length = 3 * PAGE + 2 * 16;
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("{expected} {length}"));
    assert_eq!(packed.metadata().expect("look").len(), length);
    let unpack = || {
        let output = run(&["unpack", "--from", &pass_on(&packed), "--to", &pass_on(&to), "--sum", &expected]);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(unpack(), (true, String::new()));
    assert_eq!(fs::read(folder.0.join("to")).expect("read"), fs::read(folder.0.join("from")).expect("read"));
    let refused = |at: u64, bytes: &[u8], why: &str| {
        let before = fs::read(folder.0.join("packed")).expect("read");
        packed.write_all_at(bytes, at).expect("damage it");
        let (succeeded, said) = unpack();
        assert!(!succeeded && said.contains(why), "{said}");
        fs::write(folder.0.join("packed"), before).expect("mend it");
    };
    refused(16, &[1], "is damaged: its sum is");
    refused(0, &(64 * PAGE).to_le_bytes(), "8192 bytes at 262144 are not possible");
    refused(0, &u64::MAX.to_le_bytes(), "are not possible");
    refused(0, &1_u64.to_le_bytes(), "8192 bytes at 1 are not possible");
    refused(8, &u64::MAX.to_le_bytes(), "are not possible");
    refused(8, &0_u64.to_le_bytes(), "0 bytes at 12288 are not possible");
    packed.set_len(length - 1).expect("cut it off");
    assert!(unpack().1.contains("are not possible"));
    packed.set_len(length - PAGE - 8).expect("cut it off");
    assert!(unpack().1.contains("it is cut off"));
}

#[test]
fn what_comes_on_the_first_connection_is_in_the_file() {
    let folder = Folder::new();
    let socket = folder.0.join("socket");
    let listener = OwnedFd::from(UnixListener::bind(&socket).expect("listen"));
    let file = empty(&folder.0, "state");
    file.set_len(0).expect("empty the file");
    let words = ["template", "receive", "--from", &pass_on(&listener), "--to", &pass_on(&file)];
    let mut helper = Command::new(HELPER).args(words).spawn().expect("start the helper");
    let mut connection = UnixStream::connect(&socket).expect("connect");
    let state = [5; 100_000];
    connection.write_all(&state).expect("send");
    drop(connection);
    assert!(helper.wait().expect("wait").success());
    assert_eq!(fs::read(folder.0.join("state")).expect("read"), state);
}
