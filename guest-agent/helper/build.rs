//! Builds what QEMU is preloaded with: a shared library, which Cargo cannot build beside static programs. The helper carries it in itself.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "preload/private_memory.rs";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo names the folder")).join("private_memory.so");
    let compiler = env::var_os("RUSTC").expect("Cargo names the compiler");
    let flags = ["--edition=2024", "--crate-type=cdylib", "-Cpanic=abort", "-Copt-level=s", "-Cstrip=symbols"];
    let status = Command::new(compiler)
        .args(flags)
        .args(["-Clink-arg=-nostdlib", "-Clink-arg=-nostartfiles", "-Dwarnings"])
        .arg(SOURCE)
        .arg("-o")
        .arg(out)
        .status();
    assert!(status.is_ok_and(|status| status.success()), "cannot compile {SOURCE}");
}
