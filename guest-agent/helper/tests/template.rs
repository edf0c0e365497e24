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
