//! `husk-helper rehearsal`: what a sandbox of the pool runs, in a container, before it waits: a program that says a word and ends with its standard
//! input. This one is static, so it is a root file system by itself.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};

pub fn main() -> Result<ExitCode> {
    let mut out = io::stdout();
    out.write_all(b"rehearsed\n").and_then(|()| out.flush()).context("cannot speak")?;
    io::copy(&mut io::stdin(), &mut io::sink()).context("cannot listen")?;
    Ok(ExitCode::SUCCESS)
}
