//! Husk's own words to the user.

use std::fmt::Display;
use std::io::{self, Write};

/// Says "husk: MESSAGE" on standard error. One that nobody reads any more is no reason to end otherwise (`eprintln!` would panic).
pub fn complain(message: impl Display) {
    say(&format!("husk: {message}\n"));
}

/// Writes text to standard error as it is.
pub fn say(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
