//! `husk-helper front`: what every `husk` call begins with. Most verbs are the command line's, and front becomes it. Those that
//! make a process are sessions: a program of husk does the work aside, and front lends it the caller's standard streams. What a container's supervisor can do as
//! well, that is asked to do first.

mod arguments;
pub mod peer;
pub mod pool;
mod session;
mod supervisor;
mod tail;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::words;
use arguments::Call;
pub use tail::Tail;

/// Does what the words after `front` say.
pub fn main(words: &[OsString]) -> Result<ExitCode> {
    let call = Call::parse(words)?;
    carry_out(&call).or_else(|error| {
        words::complain(format_args!("{error:#}"));
        Ok(ExitCode::from(call.failure()))
    })
}

fn carry_out(call: &Call<'_>) -> Result<ExitCode> {
    if call.is_session() {
        return session::run(call);
    }
    if let Some(code) = session::ask(call)? {
        return Ok(code);
    }
    let Err(error) = call.programs.execute(&[], "husk.js", call.words);
    Err(error)
}
