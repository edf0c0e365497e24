//! The words of a `husk` call, as far as front looks at them: enough to find the verb.

use std::ffi::OsString;
use std::os::fd::RawFd;

use anyhow::Result;

use crate::programs::Programs;

/// Global flags that take a value: `--flag VALUE` or `--flag=VALUE`, with one dash or two.
const FLAGS_WITH_VALUE: [&str; 6] = ["root", "log", "log-format", "cgroup-manager", "rootless", "criu"];

/// Flags of exec that take a value, and those that take none, in all their spellings (src/cli/session-verbs.ts).
const EXEC_WITH_VALUE: [&str; 18] = [
    "user",
    "u",
    "additional-gids",
    "g",
    "env",
    "e",
    "cwd",
    "process",
    "p",
    "pid-file",
    "pidfd-socket",
    "console-socket",
    "cap",
    "c",
    "apparmor",
    "process-label",
    "cgroup",
    "preserve-fds",
];
const EXEC_SWITCHES: [&str; 6] = ["tty", "t", "detach", "d", "no-new-privs", "ignore-paused"];

/// What a container's supervisor is asked for first, beside `exec`: verbs that need nothing that it has not. Their flags are switches.
const FOR_SUPERVISOR: [&str; 5] = ["start", "kill", "pause", "resume", "state"];
const KILL_SWITCHES: [&str; 2] = ["all", "a"];

/// The program that makes a container and stays with it.
pub const SUPERVISOR: &str = "supervisor.js";

/// Verbs that make a process whose standard streams are the caller's.
const SESSIONS: [&str; 4] = ["run", "create", "exec", "restore"];

/// The container that a call is for.
#[derive(Debug, PartialEq)]
pub struct Target<'a> {
    /// The value of --root, if it has one.
    pub root: Option<&'a str>,
    pub id: &'a str,
    /// What its supervisor knows the call as (src/sandbox/control.ts).
    pub session: &'static str,
}

pub struct Call<'a> {
    pub programs: Programs<'a>,
    /// What the user wrote after `husk`.
    pub words: &'a [OsString],
}

impl<'a> Call<'a> {
    /// Parses `--node NODE --dist DIR -- WORDS...`.
    pub fn parse(words: &'a [OsString]) -> Result<Self> {
        let (programs, words) = Programs::parse("front", words)?;
        Ok(Call { programs, words })
    }

    /// The first word that is neither a global flag nor the value of one.
    pub fn verb(&self) -> Option<&'a str> {
        let mut words = self.words.iter().map(|word| word.to_str().unwrap_or(""));
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix('-') else { return Some(word) };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            if FLAGS_WITH_VALUE.contains(&flag) {
                words.next();
            } else if matches!(flag, "h" | "help" | "v" | "version") {
                return None;
            }
        }
        None
    }

    /// The words as text, where all of them are.
    pub fn text(&self) -> Option<Vec<&'a str>> {
        self.words.iter().map(|word| word.to_str()).collect()
    }

    /// What its container's supervisor may be asked for. None where that is nothing, or not plain: help is asked for, a flag is unknown, a value or the container
    /// is missing.
    pub fn target(&self) -> Option<Target<'a>> {
        let mut words = self.text()?.into_iter();
        let mut root = None;
        let verb = loop {
            let word = words.next()?;
            match flag(word) {
                None if word == "exec" || FOR_SUPERVISOR.contains(&word) => break word,
                Some((name, value)) if FLAGS_WITH_VALUE.contains(&name) => {
                    let value = value.or_else(|| words.next())?;
                    if name == "root" {
                        root = Some(value).filter(|root| !root.is_empty());
                    }
                }
                Some(("debug" | "systemd-cgroup" | "no-pivot", _)) => {}
                _ => return None,
            }
        };
        let (with_value, switches): (&[&str], &[&str]) = match verb {
            "exec" => (&EXEC_WITH_VALUE, &EXEC_SWITCHES),
            "kill" => (&[], &KILL_SWITCHES),
            _ => (&[], &[]),
        };
        loop {
            let word = words.next()?;
            match flag(word) {
                None => return Some(Target { root, id: word, session: if verb == "exec" { "exec" } else { "verb" } }),
                Some((name, None)) if with_value.contains(&name) => _ = words.next()?,
                Some((name, _)) if with_value.contains(&name) || switches.contains(&name) => {}
                _ => return None,
            }
        }
    }

    /// The descriptors of the caller's that are to be read for `exec`, as a shell's <(...) names them: the values of --process, and nobody else's.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let words = self.text().filter(|_| self.verb() == Some("exec")).unwrap_or_default();
        let named = |word: &str| matches!(flag(word), Some(("process" | "p", None)));
        let inline = words.iter().filter_map(|word| flag(word).filter(|(name, _)| matches!(*name, "process" | "p"))?.1);
        let following = words.windows(2).filter(|pair| named(pair[0])).map(|pair| pair[1]);
        let number = |path: &str| ["/dev/fd/", "/proc/self/fd/"].iter().find_map(|folder| path.strip_prefix(folder)?.parse().ok());
        inline.chain(following).filter_map(number).collect()
    }

    pub fn is_session(&self) -> bool {
        self.verb().is_some_and(|verb| SESSIONS.contains(&verb))
    }

    /// What the call ends with where husk fails: see src/cli/failure-status.ts.
    pub fn failure(&self) -> u8 {
        match self.verb() {
            Some("run" | "restore") => 125,
            Some("exec") => 255,
            _ => 1,
        }
    }

    /// The program that serves a session.
    pub fn script(&self) -> &'static str {
        if self.verb() == Some("exec") { "husk.js" } else { SUPERVISOR }
    }
}

/// The name of a flag, and its value where that is a part of the word. None: the word is no flag.
fn flag(word: &str) -> Option<(&str, Option<&str>)> {
    let flag = word.strip_prefix('-').filter(|rest| !rest.is_empty())?;
    let flag = flag.strip_prefix('-').unwrap_or(flag);
    Some(flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        "--node /n --dist /d --".split(' ').chain(text.split(' ').filter(|word| !word.is_empty())).map(OsString::from).collect()
    }

    fn verb(text: &str) -> Option<String> {
        Call::parse(&words(text)).expect("a call").verb().map(str::to_owned)
    }

    #[test]
    fn the_verb_is_found_behind_global_flags_in_both_forms() {
        for text in [
            "run x",
            "--root /r run x",
            "--root=/r run x",
            "--debug --log /l --log-format json --systemd-cgroup run --root x",
            "--log-format=json --log=/l run",
            "--root create run",
            "-root /r -log=/l -log-format json --rootless auto run",
        ] {
            assert_eq!(verb(text).as_deref(), Some("run"), "{text}");
        }
        for text in ["", "--root", "--debug", "--help run", "-v", "--version"] {
            assert_eq!(verb(text), None, "{text}");
        }
    }

    #[test]
    fn verbs_that_make_processes_are_sessions() {
        let script = |text: &str| {
            let words = words(text);
            let call = Call::parse(&words).expect("a call");
            call.is_session().then(|| call.script())
        };
        assert_eq!(script("run a"), Some("supervisor.js"));
        assert_eq!(script("create a"), Some("supervisor.js"));
        assert_eq!(script("restore a"), Some("supervisor.js"));
        assert_eq!(script("exec a"), Some("husk.js"));
        assert_eq!(script("state run"), None);
        assert_eq!(script("runs"), None);
    }

    #[test]
    fn the_container_of_a_call_for_its_supervisor_is_found_where_it_is_plain() {
        let target = |text: &str| {
            let words = words(text);
            let call = Call::parse(&words).expect("a call");
            call.target().map(|Target { root, id, session }| (root.map(str::to_owned), id.to_owned(), session))
        };
        let found = |root: Option<&str>, id: &str, session| Some((root.map(str::to_owned), id.to_owned(), session));
        assert_eq!(target("exec box ls -l"), found(None, "box", "exec"));
        assert_eq!(
            target("--debug --root /r --log=/l exec -t -u 0:0 --env=A=-b -e B=c -d box sh --help"),
            found(Some("/r"), "box", "exec")
        );
        assert_eq!(target("--root= --systemd-cgroup exec -tty=false box"), found(None, "box", "exec"));
        assert_eq!(target("--root /r kill --all box KILL"), found(Some("/r"), "box", "verb"));
        assert_eq!(target("kill -a=false box -1"), found(None, "box", "verb"));
        for verb in ["start", "pause", "resume", "state"] {
            assert_eq!(target(&format!("--log /l --log-format json {verb} box")), found(None, "box", "verb"));
        }
        for text in [
            "exec",
            "exec -t",
            "exec --help box",
            "exec -u",
            "exec -x box",
            "exec -- box ls",
            "--version exec box",
            "exec -td box",
            "run box",
            "kill",
            "kill -9 box",
            "kill --help box",
            "kill -- box",
            "start --all box",
            "start",
            "delete box",
        ] {
            assert_eq!(target(text), None, "{text}");
        }
    }

    #[test]
    fn a_call_without_its_frame_is_refused() {
        let words = ["--node", "/n", "run"].map(OsString::from);
        assert!(Call::parse(&words).is_err());
    }
}
