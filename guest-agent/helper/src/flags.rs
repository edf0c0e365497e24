//! The flags of the one-shot commands: `--name VALUE`, and switches without a value.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

pub struct Flags(BTreeMap<String, String>);

impl Flags {
    /// Parses the words of a command. Every flag must be one of those named, and is given at most once.
    pub fn parse(words: &[OsString], with_value: &[&str], switches: &[&str]) -> Result<Flags> {
        let mut flags = BTreeMap::new();
        let mut words = words.iter().map(|word| word.to_str().with_context(|| format!("{word:?} is no text")));
        while let Some(word) = words.next() {
            let name = word?;
            let value = if switches.contains(&name) {
                ""
            } else if with_value.contains(&name) {
                words.next().with_context(|| format!("{name} needs a value"))??
            } else {
                bail!("unknown flag {name}, expected {}", [with_value, switches].concat().join(", "));
            };
            if flags.insert(name.to_owned(), value.to_owned()).is_some() {
                bail!("{name} is given twice");
            }
        }
        Ok(Flags(flags))
    }

    /// The value of a flag that must be there.
    pub fn text(&self, name: &str) -> Result<&str> {
        self.0.get(name).map(String::as_str).with_context(|| format!("{name} is missing"))
    }

    pub fn number<T: FromStr>(&self, name: &str) -> Result<T> {
        let text = self.text(name)?;
        text.parse().ok().with_context(|| format!("{name}: {text} is not a number that can be used here"))
    }

    pub fn is_set(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Flags> {
        let words = text.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        Flags::parse(&words, &["--port", "--tap"], &["--quick"])
    }

    #[test]
    fn flags_are_found_by_name() {
        let flags = parse("--port 7 --quick").expect("these are flags");
        assert_eq!(flags.number::<u32>("--port").expect("a number"), 7);
        assert!(flags.is_set("--quick"));
        assert!(!flags.is_set("--tap"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |text: &str| parse(text).and_then(|flags| flags.number::<u8>("--port")).expect_err(text).to_string();
        assert_eq!(message("--quick"), "--port is missing");
        assert_eq!(message("--port"), "--port needs a value");
        assert_eq!(message("--port 256"), "--port: 256 is not a number that can be used here");
        assert_eq!(message("--port 1 --port 2"), "--port is given twice");
        assert_eq!(message("--porter 1"), "unknown flag --porter, expected --port, --tap, --quick");
    }
}
