//! What of the runtime's options concerns a shim's start: they are one message of several types, of which containerd's clients, Docker and CRI choose.

use anyhow::{Context, Result};
use serde::Deserialize;

use super::bootstrap::{Value, fields};

/// runc's, which clients send to any shim.
const RUNC: &str = "containerd.runc.v1.Options";

/// What the Go clients of containerd 1.x send to every shim but runc's own.
const OLDER: &str = "containerd.linux.runc.CreateOptions";

/// CRI's for every shim but runc's.
const GENERIC: &str = "runtimeoptions.v1.Options";

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The cgroup that the shim is to be in, seen from each hierarchy's root.
    pub shim_cgroup: String,
    /// husk's configuration, in place of the host's.
    pub config_path: String,
}

/// What CRI's configuration says in runc's words.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    #[serde(rename = "ShimCgroup")]
    shim_cgroup: String,
}

impl Options {
    /// Reads a google.protobuf.Any. Of other types nothing follows here: the container's creation refuses them.
    pub fn parse(any: &[u8]) -> Result<Options> {
        let (mut name, mut content) = (&b""[..], &b""[..]);
        for (number, value) in fields(any)? {
            match (number, value) {
                (1, Value::Bytes(bytes)) => name = bytes,
                (2, Value::Bytes(bytes)) => content = bytes,
                _ => {}
            }
        }
        let name = String::from_utf8_lossy(name);
        let mut options = Options::default();
        match name.rsplit('/').next() {
            Some(name @ (RUNC | OLDER)) => {
                let shim_cgroup = if name == RUNC { 3 } else { 9 };
                for (number, value) in fields(content).with_context(|| format!("the runtime options are no {name}"))? {
                    match value {
                        Value::Bytes(bytes) if number == shim_cgroup => options.shim_cgroup = text("shim_cgroup", bytes)?,
                        _ => {}
                    }
                }
            }
            Some(GENERIC) => {
                for (number, value) in fields(content).with_context(|| format!("the runtime options are no {GENERIC}"))? {
                    match (number, value) {
                        (2, Value::Bytes(bytes)) => options.config_path = text("ConfigPath", bytes)?,
                        (3, Value::Bytes(bytes)) => {
                            let body = basic_toml::from_slice::<Body>(bytes).context("the runtime options cannot be understood")?;
                            options.shim_cgroup = body.shim_cgroup;
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(options)
    }
}

fn text(name: &str, bytes: &[u8]) -> Result<String> {
    Ok(std::str::from_utf8(bytes).with_context(|| format!("the runtime option {name} is no text"))?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(name: &str, content: &[u8]) -> Vec<u8> {
        [&[0x0a, name.len() as u8], name.as_bytes(), &[0x12, content.len() as u8], content].concat()
    }

    fn options(shim_cgroup: &str, config_path: &str) -> Options {
        Options { shim_cgroup: shim_cgroup.into(), config_path: config_path.into() }
    }

    #[test]
    fn each_types_own_words_are_read() {
        for (name, content, expected) in [
            (RUNC, &b"\x1a\x02/s\x32\x04runc\x48\x01"[..], options("/s", "")),
            ("type.googleapis.com/containerd.runc.v1.Options", b"\x1a\x02/s", options("/s", "")),
            (RUNC, b"\x32\x04runc", options("", "")),
            (OLDER, b"\x08\x01\x4a\x02/s\x50\x05", options("/s", "")),
            (OLDER, b"\x1a\x02/s", options("", "")),
            (GENERIC, b"\x0a\x01t\x12\x02/c", options("", "/c")),
            (GENERIC, b"\x1a\x26SystemdCgroup = true\nShimCgroup = '/s'", options("/s", "")),
            ("example.Options", b"\x1a\x02/s", options("", "")),
        ] {
            assert_eq!(Options::parse(&any(name, content)).expect(name), expected, "{name} {content:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |name, content| format!("{:#}", Options::parse(&any(name, content)).expect_err(name));
        assert_eq!(error(RUNC, &b"\x1a\x09/s"[..]), "the runtime options are no containerd.runc.v1.Options: it ends too early");
        assert!(error(RUNC, b"\x1a\x01\xff").starts_with("the runtime option shim_cgroup is no text: "));
        assert!(error(GENERIC, b"\x1a\x03a =").starts_with("the runtime options cannot be understood: "));
    }
}
