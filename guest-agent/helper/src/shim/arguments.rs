//! The words that containerd calls a shim with: flags as Go's flag package takes them, then an action.

use std::collections::BTreeMap;
use std::ffi::OsString;

use anyhow::{Context, Result, bail, ensure};

/// Flags with a value: `-x VALUE` or `-x=VALUE`, with one dash or two.
const WITH_VALUE: [&str; 7] = ["namespace", "address", "publish-binary", "id", "bundle", "socket", "debug-socket"];

/// Flags without one; `-x=true` and `-x=false` are theirs as well.
const SWITCHES: [&str; 4] = ["debug", "v", "version", "info"];

/// The longest name of a container or a namespace (containerd's own bound is 76), and of a group, which an annotation may name.
const LONGEST_NAME: usize = 256;

pub enum Action {
    Start,
    Delete,
    Version,
    Info,
}

/// What a shim is called with; what was not given is empty.
#[derive(Debug, Default)]
pub struct Arguments {
    pub namespace: String,
    /// containerd's gRPC socket.
    pub address: String,
    /// The program that publishes events where the socket of TTRPC_ADDRESS cannot be reached.
    pub publish_binary: String,
    pub id: String,
    pub bundle: String,
    /// Where to serve, instead of the place that follows from the group.
    pub socket: String,
    pub debug: bool,
}

/// Parses the words.
pub fn parse(words: &[OsString]) -> Result<(Action, Arguments)> {
    let words = words.iter().map(|word| word.to_str().with_context(|| format!("{word:?} is no text"))).collect::<Result<Vec<_>>>()?;
    let mut words = words.into_iter();
    let mut values = BTreeMap::new();
    let mut switches = BTreeMap::new();
    let mut action = None;
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix('-').filter(|flag| !flag.is_empty()) else {
            action = Some(word);
            break;
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        if WITH_VALUE.contains(&name) {
            let value = value.or_else(|| words.next()).with_context(|| format!("-{name} needs a value"))?;
            values.insert(name, value.to_owned());
        } else if SWITCHES.contains(&name) {
            let on = match value {
                None | Some("true" | "1" | "t" | "T" | "TRUE" | "True") => true,
                Some("false" | "0" | "f" | "F" | "FALSE" | "False") => false,
                Some(other) => bail!("-{name}={other}: expected true or false"),
            };
            switches.insert(name, on);
        } else {
            bail!("unknown flag {word}");
        }
    }
    let is_set = |name: &str| switches.get(name).copied().unwrap_or(false);
    let action = if is_set("v") || is_set("version") {
        Action::Version
    } else if is_set("info") {
        Action::Info
    } else {
        let rest = words.collect::<Vec<_>>();
        match action {
            Some(name @ ("start" | "delete")) => {
                ensure!(rest.is_empty(), "{name} takes no further words, got {}", rest.join(" "));
                if name == "start" { Action::Start } else { Action::Delete }
            }
            Some(other) => bail!("unknown action {other}, expected start or delete; containerd starts this program"),
            None => bail!("no action, expected start or delete; containerd starts this program"),
        }
    };
    let debug = is_set("debug");
    let mut take = |name: &str| values.remove(name).unwrap_or_default();
    let arguments = Arguments {
        namespace: take("namespace"),
        address: take("address"),
        publish_binary: take("publish-binary"),
        id: take("id"),
        bundle: take("bundle"),
        socket: take("socket"),
        debug,
    };
    Ok((action, arguments))
}

impl Arguments {
    /// Refuses a call in whose name nothing can be found or made.
    pub fn check(&self) -> Result<()> {
        check_name("-namespace", &self.namespace)?;
        check_name("-id", &self.id)
    }

    /// The words for husk's own programs: each flag that was given, with its value as a word of its own.
    pub fn words(&self) -> Vec<OsString> {
        let values = [
            ("-namespace", &self.namespace),
            ("-address", &self.address),
            ("-publish-binary", &self.publish_binary),
            ("-id", &self.id),
            ("-bundle", &self.bundle),
            ("-socket", &self.socket),
        ];
        let given = values.into_iter().filter(|(_, value)| !value.is_empty());
        let words = given.flat_map(|(name, value)| [name.into(), value.into()]);
        words.chain(self.debug.then(|| "-debug".into())).collect()
    }
}

/// A name becomes a part of paths, so it is none that leads elsewhere.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    ensure!(!name.is_empty(), "{what} is missing");
    ensure!(name.len() <= LONGEST_NAME, "{what} is longer than {LONGEST_NAME} characters");
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let first = name.as_bytes()[0];
    ensure!(
        first.is_ascii_alphanumeric() && name.bytes().all(fine),
        "{what} is no name: expected letters, digits, dots, dashes, got {name:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(Action, Arguments)> {
        parse(&text.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn flags_are_taken_in_all_forms_of_go() {
        for text in [
            "-namespace ns -address /a -publish-binary /b -id c1 -debug start",
            "--namespace ns --address /a --publish-binary=/b --id=c1 --debug start",
            "-namespace=ns -address=/a -publish-binary=/b -id=c1 -debug=true start",
        ] {
            let (action, arguments) = parsed(text).expect(text);
            assert!(matches!(action, Action::Start), "{text}");
            arguments.check().expect(text);
            let words = arguments.words().join(std::ffi::OsStr::new(" "));
            assert_eq!(words, "-namespace ns -address /a -publish-binary /b -id c1 -debug", "{text}");
        }
        assert!(matches!(parsed("-id x -bundle /b delete"), Ok((Action::Delete, Arguments { debug: false, .. }))));
        assert!(matches!(parsed("-v"), Ok((Action::Version, _))));
        assert!(matches!(parsed("-info"), Ok((Action::Info, _))));
        assert!(matches!(parsed("-v=false -debug=0 -id -x start"), Ok((Action::Start, Arguments { debug: false, .. }))));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |text: &str| parsed(text).and_then(|(_, arguments)| arguments.check()).expect_err(text).to_string();
        assert_eq!(message(""), "no action, expected start or delete; containerd starts this program");
        assert_eq!(message("-id x serve"), "unknown action serve, expected start or delete; containerd starts this program");
        assert_eq!(message("-color start"), "unknown flag -color");
        assert_eq!(message("-id"), "-id needs a value");
        assert_eq!(message("-debug=maybe start"), "-debug=maybe: expected true or false");
        assert_eq!(message("start now then"), "start takes no further words, got now then");
        assert_eq!(message("-namespace ns start"), "-id is missing");
        assert_eq!(message("-id x start"), "-namespace is missing");
        let rule = "is no name: expected letters, digits, dots, dashes, got";
        assert_eq!(message("-namespace ns -id ../x start"), format!("-id {rule} \"../x\""));
        assert_eq!(message("-namespace .. -id x start"), format!("-namespace {rule} \"..\""));
        assert_eq!(message(&format!("-namespace ns -id {} start", "x".repeat(257))), "-id is longer than 256 characters");
    }
}
