//! `run` and `create` from the pool (`husk pool`): front dials a supervisor that has its sandbox already, which reads the command line as one that
//! front starts would, and orders as that would.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;
use serde::Serialize;

use super::arguments::Call;
use super::peer;
use super::session::Hello;
use crate::lines::Lines;
use crate::programs::Programs;
use crate::{processes, unix_socket};

/// What the supervisor must have in common with the caller, who could have started it: it opens the caller's files, makes the host's side of the
/// container and runs its hooks.
pub const IN_COMMON: [&str; 8] = ["root", "ns/mnt", "ns/pid", "ns/net", "ns/ipc", "ns/uts", "ns/user", "ns/cgroup"];

/// How the names of the folders end whose members are for containerd's shim, and ask for another form (shim/standby.rs).
const FOR_SHIMS: &str = "standby-shim";

/// How the names of the folders begin their extension whose members have no sandbox yet.
const SPARE: &str = "spare";

/// What front asks for, in the first line: all that its child would have by inheritance.
#[derive(Serialize)]
struct Request {
    session: &'static str,
    /// The program that front would start, as `Programs::identity` has it: one of another installation has other code.
    program: String,
    words: Vec<String>,
    cwd: String,
    umask: u32,
    environment: Vec<(String, String)>,
    /// When the call began, in microseconds since 1970.
    began: u64,
    hello: Hello,
}

pub struct Pool {
    folder: PathBuf,
    /// None: of any shape.
    shape: Option<String>,
    tried: BTreeSet<PathBuf>,
    request: Request,
}

impl Pool {
    /// The pool for a call. None where there is none, or where another way is the sure one.
    pub fn of(call: &Call<'_>) -> Option<Pool> {
        let verb = call.verb().filter(|verb| matches!(*verb, "run" | "create"))?;
        let folder = folder()?;
        // Most hosts have none.
        fs::metadata(&folder).ok()?;
        let text = |text: std::ffi::OsString| text.into_string().ok();
        let request = Request {
            session: if verb == "run" { "run" } else { "create" },
            program: Programs::identity(&call.programs.path(call.script()))?,
            words: call.text()?.into_iter().map(str::to_owned).collect(),
            cwd: text(std::env::current_dir().ok()?.into())?,
            umask: mask(),
            environment: environment()?,
            began: SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_micros().try_into().ok()?,
            hello: Hello::of_this_process(),
        };
        Some(Pool { folder, shape: None, tried: BTreeSet::new(), request })
    }

    /// The same pool's sandboxes of that shape, unless it was asked for them already.
    pub fn of_shape(mut self, shape: String) -> Option<Pool> {
        if self.shape.is_some() || shape.contains('/') {
            return None;
        }
        self.shape = Some(shape);
        Some(self)
    }

    /// Asks the next supervisor. Answers the conversation with it, and its pidfd.
    pub fn next(&mut self) -> Option<(Lines, OwnedFd)> {
        while let Some(socket) = self.sockets().into_iter().find(|socket| !self.tried.contains(socket)) {
            self.tried.insert(socket.clone());
            if let Some(asked) = self.ask(&socket) {
                return Some(asked);
            }
        }
        None
    }

    fn ask(&self, socket: &Path) -> Option<(Lines, OwnedFd)> {
        let socket = unix_socket::dial(socket).ok()?;
        let end = processes::pidfd(peer::sharing(&socket, &IN_COMMON)?).ok()?;
        let supervisor = Lines::new(socket);
        supervisor.send(&self.request).ok()?;
        Some((supervisor, end))
    }

    /// The sockets at which supervisors wait. Calls that come together begin at different ones, most likely.
    fn sockets(&self) -> Vec<PathBuf> {
        sockets(&self.folder, |folder| !is_for_shims(folder) && self.shape.as_ref().is_none_or(|shape| is_of_shape(folder, shape)))
    }
}

/// The sockets at which members of those pools wait. Calls that come together begin at different ones, most likely.
pub fn sockets(pools: &Path, is_wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let is_socket = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "sock");
    let wanted = entries(pools).into_iter().filter(|folder| is_wanted(folder));
    let mut sockets = wanted.flat_map(|folder| entries(&folder)).filter(is_socket).collect::<Vec<_>>();
    if !sockets.is_empty() {
        let first = std::process::id() as usize % sockets.len();
        sockets.rotate_left(first);
    }
    // Those that have no sandbox last.
    sockets.sort_by_key(|socket| {
        socket.parent().and_then(Path::extension).is_some_and(|extension| extension.to_string_lossy().starts_with(SPARE))
    });
    sockets
}

/// This process's environment; None where it is no text.
pub fn environment() -> Option<Vec<(String, String)>> {
    std::env::vars_os().map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// This process's umask.
pub fn mask() -> u32 {
    let mask = umask(Mode::empty());
    umask(mask);
    mask.bits()
}

/// Where pools are (src/pool/pool-folder.ts): HUSK_POOL, nowhere where that is empty.
pub fn folder() -> Option<PathBuf> {
    match std::env::var_os("HUSK_POOL") {
        Some(folder) => (!folder.is_empty()).then(|| folder.into()),
        None if geteuid().is_root() => Some("/run/husk-pool".into()),
        None => Some(Path::new(&std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty())?).join("husk-pool")),
    }
}

/// Whether a pool's folder is that of a shape: SHAPE itself, or SHAPE.standby, where a template's keeper has one sandbox stand by.
fn is_of_shape(folder: &Path, shape: &str) -> bool {
    folder.file_stem().is_some_and(|stem| stem == shape)
}

/// Whether a pool's members are for containerd's shim.
pub fn is_for_shims(folder: &Path) -> bool {
    folder.extension().is_some_and(|extension| extension == FOR_SHIMS)
}

/// What is in a folder, in order; nothing where it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries = fs::read_dir(folder).map_or(Vec::new(), |entries| entries.flatten().map(|entry| entry.path()).collect());
    entries.sort();
    entries
}
