//! Husk's own programs, which Node runs: where they are, and becoming one.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::execv;

use crate::processes;

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

    /// Becomes the program `name`. `flags` are Node's own.
    pub fn execute(&self, flags: &[&str], name: &str, words: &[OsString]) -> Result<Infallible> {
        let script = self.path(name);
        let before = flags.iter().map(OsStr::new).chain([script.as_os_str()]);
        let all = [self.node.as_os_str()].into_iter().chain(before).chain(words.iter().map(OsString::as_os_str));
        let arguments = all.map(processes::argument).collect::<Result<Vec<CString>>>()?;
        execv(&arguments[0], &arguments).with_context(|| format!("cannot execute {} (run `npm run setup`)", self.node.display()))
    }
}
