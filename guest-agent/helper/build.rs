//! Builds what QEMU is preloaded with: shared libraries, which Cargo cannot build beside static programs. The helper carries them in itself.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=preload");
    for library in ["private", "zygote"] {
        build(library);
    }
}

fn build(library: &str) {
    let source = format!("preload/{library}.rs");
    let out = Path::new(&env::var_os("OUT_DIR").expect("Cargo names the folder")).join(format!("{library}.so"));
    let compiler = env::var_os("RUSTC").expect("Cargo names the compiler");
    let flags = ["--edition=2024", "--crate-type=cdylib", "-Cpanic=abort", "-Copt-level=s", "-Cstrip=symbols"];
    let status = Command::new(compiler)
        .args(flags)
        .args(["-Clink-arg=-nostdlib", "-Clink-arg=-nostartfiles", "-Dwarnings"])
        .arg(&source)
        .arg("-o")
        .arg(out)
        .status();
    assert!(status.is_ok_and(|status| status.success()), "cannot compile {source}");
}
