//! Husk's own programs, which Node runs: where they are, and becoming one.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::execv;

use crate::processes;

/// By itself Node reads its own root certificates, on a thread, whenever HTTP/2 is loaded: 20 ms of processor time, for a program that seldom meets TLS
/// (src/telemetry/certificates.ts, which has them read when it does).
const NO_CERTIFICATES: &str = "--use-openssl-ca";

/// Where somebody may have said otherwise: two words about certificates are too many for Node.
const ABOUT_CERTIFICATES: [&str; 2] = ["NODE_OPTIONS", "NODE_USE_SYSTEM_CA"];

/// Node's flags for a program that loads HTTP/2.
pub fn http2_flags() -> &'static [&'static str] {
    let is_said = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if ABOUT_CERTIFICATES.into_iter().any(is_said) { &[] } else { &[NO_CERTIFICATES] }
}

#[derive(Clone, Copy)]
pub struct Programs<'a> {
    node: &'a Path,
    /// The folder that they are in.
    dist: &'a Path,
}

impl<'a> Programs<'a> {
    /// Parses `--node NODE --dist DIR -- WORDS...`, the words behind `face`. Answers WORDS as well.
    pub fn parse(face: &str, words: &'a [OsString]) -> Result<(Self, &'a [OsString])> {
        match words {
            [node_flag, node, dist_flag, dist, end, words @ ..] if node_flag == "--node" && dist_flag == "--dist" && end == "--" => {
                Ok((Programs { node: Path::new(node), dist: Path::new(dist) }, words))
            }
            _ => bail!("usage: husk-helper {face} --node NODE --dist DIR -- WORDS..."),
        }
    }

    /// The path of one of them.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dist.join(name)
    }

    /// Tells a program apart from one of another installation, or of before an update: DEVICE:INODE:NANOSECONDS, of its file's last change
    /// (src/pool/program-identity.ts). None where it is not there.
    pub fn identity(path: &Path) -> Option<String> {
        let file = fs::metadata(path).ok()?;
        Some(format!("{}:{}:{}", file.dev(), file.ino(), i128::from(file.mtime()) * 1_000_000_000 + i128::from(file.mtime_nsec())))
    }

    /// Becomes the program `name`. `flags` are Node's own.
    pub fn execute(&self, flags: &[&str], name: &str, words: &[OsString]) -> Result<Infallible> {
        let script = self.path(name);
        let before = flags.iter().map(OsStr::new).chain([script.as_os_str()]);
        let all = [self.node.as_os_str()].into_iter().chain(before).chain(words.iter().map(OsString::as_os_str));
        let arguments = all.map(processes::argument).collect::<Result<Vec<CString>>>()?;
        execv(&arguments[0], &arguments).with_context(|| format!("cannot execute {} (run `npm run setup`)", self.node.display()))
    }
}
