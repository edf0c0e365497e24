//! `husk-helper front`: what every `husk` call begins with. Most verbs are the command line's, and front becomes it. Those that
//! make a process are sessions: a program of husk does the work aside, and front lends it the caller's standard streams.

mod arguments;
mod session;
mod tail;

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use nix::unistd::execv;

use crate::processes;
use arguments::Call;
pub use tail::Tail;

/// Does what the words after `front` say.
pub fn main(words: &[OsString]) -> Result<ExitCode> {
    let call = Call::parse(words)?;
    if call.is_session() {
        return session::run(&call);
    }
    let Err(error) = execute(call.node, &call.dist.join("husk.js"), call.words);
    Err(error)
}

/// Becomes the program `script`, in Node.
fn execute(node: &Path, script: &Path, words: &[OsString]) -> Result<Infallible> {
    let fixed = [node.as_os_str(), script.as_os_str()];
    let arguments = fixed.into_iter().chain(words.iter().map(OsString::as_os_str)).map(argument).collect::<Result<Vec<CString>>>()?;
    execv(&arguments[0], &arguments).with_context(|| format!("cannot execute {} (run `npm run setup`)", node.display()))
}

fn argument(word: &OsStr) -> Result<CString> {
    processes::argument(word)
}
