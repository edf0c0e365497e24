//! `husk-helper shim`: what containerd starts, by the name containerd-shim-husk-v2. A shim that runs already is found, or a new one
//! started, without any start of Node that containerd would have to wait for.

mod arguments;
mod bootstrap;
mod daemon;
mod delete;
mod group;
mod options;
mod standby;
mod start;

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::programs::Programs;
use arguments::Action;

/// The program that serves containerd, in Node.
const SCRIPT: &str = "shim.js";

/// Node's warnings would be taken for the shim's answer, or for an error of it.
const NODE_FLAGS: [&str; 1] = ["--no-warnings"];

/// Of the server as well: it has little to compute and much to pass on, and is to stay small. It sets others of V8's flags itself, once it has started
/// (src/shim/frugal.ts): with them on its command line, Node's own modules would be compiled anew at each start, since V8 takes no code that was kept under
/// other flags. This one is none of those.
const SERVER_FLAGS: [&str; 2] = [NODE_FLAGS[0], "--max-semi-space-size=1"];

/// Does what the words after `shim` say.
pub fn main(words: &[OsString]) -> Result<ExitCode> {
    let (programs, words) = Programs::parse("shim", words)?;
    let (action, arguments) = arguments::parse(words)?;
    match action {
        Action::Start => start::run(programs, arguments)?,
        Action::Delete => {
            arguments.check()?;
            match delete::run(&arguments)? {
                Some(answer) => print(&answer)?,
                None => drop(execute(programs, "delete", arguments.words())?),
            }
        }
        Action::Info => {
            execute(programs, "info", arguments.words())?;
        }
        Action::Version => print(format!("containerd-shim-husk-v2: version {}\n", env!("CARGO_PKG_VERSION")).as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Becomes Node's side of the shim.
fn execute(programs: Programs<'_>, action: &str, words: Vec<OsString>) -> Result<Infallible> {
    programs.execute(&NODE_FLAGS, SCRIPT, &[vec![action.into()], words].concat())
}

fn print(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).context("cannot print the answer")
}
