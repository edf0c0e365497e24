//! The words of a `husk` call, as far as front looks at them: enough to find the verb.

use std::ffi::OsString;

use anyhow::Result;

use crate::programs::Programs;

/// Global flags that take a value: `--flag VALUE` or `--flag=VALUE`, with one dash or two.
const FLAGS_WITH_VALUE: [&str; 4] = ["root", "log", "log-format", "rootless"];

/// Verbs that make a process whose standard streams are the caller's.
const SESSIONS: [&str; 4] = ["run", "create", "exec", "restore"];

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

    pub fn is_session(&self) -> bool {
        self.verb().is_some_and(|verb| SESSIONS.contains(&verb))
    }

    /// The program that serves a session.
    pub fn script(&self) -> &'static str {
        if self.verb() == Some("exec") { "husk.js" } else { "supervisor.js" }
    }
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
    fn a_call_without_its_frame_is_refused() {
        let words = ["--node", "/n", "run"].map(OsString::from);
        assert!(Call::parse(&words).is_err());
    }
}
