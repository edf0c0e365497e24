//! Calls without Node: front dials the container's supervisor itself, which reads the command line as Node would, and orders as Node would.

use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use serde::Serialize;

use super::arguments::{Call, Target};
use super::peer;
use super::session::Hello;
use crate::lines::Lines;
use crate::unix_socket;

/// Where containers are, for root, unless --root says otherwise (src/sandbox/run-folder.ts).
const ROOT: &str = "/run/husk";

/// What front asks for, in the first line.
#[derive(Serialize)]
struct Request<'a> {
    session: &'static str,
    words: &'a [&'a str],
    cwd: &'a str,
    hello: Hello,
}

/// Asks the supervisor of the container that the command line names. None where there is none to ask, or where another way is the sure one.
pub fn ask(call: &Call<'_>) -> Option<Lines> {
    let words = call.text()?;
    let Target { root, id, session } = call.target()?;
    let root = match root {
        Some(root) => Path::new(root),
        None if geteuid().is_root() => Path::new(ROOT),
        None => return None,
    };
    if id.contains('/') {
        return None;
    }
    let cwd = std::env::current_dir().ok()?;
    // An id of ".." leads to no socket: the supervisor's is in the folder of its container.
    let socket: PathBuf = root.join(id).join("sock");
    let socket = unix_socket::dial(&socket).ok()?;
    // It opens the files of the command line.
    peer::sharing(&socket, &["ns/mnt", "root"])?;
    let supervisor = Lines::new(socket);
    supervisor.send(&Request { session, words: &words, cwd: cwd.to_str()?, hello: Hello::of_this_process() }).ok()?;
    Some(supervisor)
}
