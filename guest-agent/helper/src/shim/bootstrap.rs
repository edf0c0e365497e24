//! The two messages of containerd's bootstrap protocol (2.3 and later): what a shim finds on its standard input, and what it answers.
//! Older ones write the runtime's options there, a google.protobuf.Any.

use anyhow::{Context, Result, bail, ensure};

use super::options::Options;

/// What `containerd.runtime.bootstrap.v1.BootstrapParams` says, as far as a shim's start needs it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Params {
    pub instance_id: String,
    pub namespace: String,
    /// As log/slog counts: 0 informs, -4 debugs, -8 traces.
    pub log_level: i64,
    pub ttrpc_address: String,
    pub grpc_address: String,
    pub containerd_binary: String,
    pub socket_dir: String,
}

/// The highest number of a field in google.protobuf.Any.
const LAST_OF_ANY: u64 = 2;

/// Reads standard input's content: its parameters, `None` where it is not of this protocol (empty, or the options alone), and the runtime's options.
pub fn parse(bytes: &[u8]) -> Result<(Option<Params>, Options)> {
    let mut params = Params::default();
    let mut options = Options::default();
    let mut highest = 0;
    for (number, value) in fields(bytes).context("standard input holds no message that a shim knows")? {
        highest = highest.max(number);
        let place = match (number, value) {
            (3, Value::Number(level)) => {
                params.log_level = level as i64;
                continue;
            }
            (8, Value::Bytes(extension)) => {
                for (_, any) in fields(extension)?.into_iter().filter(|(number, _)| *number == 1) {
                    let Value::Bytes(any) = any else { continue };
                    options = Some(Options::parse(any)?).filter(|found| *found != Options::default()).unwrap_or(options);
                }
                continue;
            }
            (1, _) => &mut params.instance_id,
            (2, _) => &mut params.namespace,
            (5, _) => &mut params.ttrpc_address,
            (6, _) => &mut params.grpc_address,
            (7, _) => &mut params.containerd_binary,
            (9, _) => &mut params.socket_dir,
            _ => continue,
        };
        if let Value::Bytes(bytes) = value {
            // An Any's value is no text; whether this is one shows in the end.
            *place = String::from_utf8_lossy(bytes).into_owned();
        }
    }
    if highest > LAST_OF_ANY { Ok((Some(params), options)) } else { Ok((None, Options::parse(bytes)?)) }
}

/// `containerd.runtime.bootstrap.v1.BootstrapResult`.
pub fn result(version: u8, address: &str, protocol: &str) -> Vec<u8> {
    let mut message = vec![1 << 3, version];
    for (number, text) in [(2, address), (3, protocol)] {
        message.push(number << 3 | 2);
        let mut length = text.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(text.as_bytes());
    }
    message
}

#[derive(Clone, Copy)]
pub enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

/// A message's fields: their numbers and values.
pub fn fields(mut bytes: &[u8]) -> Result<Vec<(u64, Value<'_>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (number, value, rest) = field(bytes)?;
        found.push((number, value));
        bytes = rest;
    }
    Ok(found)
}

/// Takes the first field: its number, its value, and what follows it.
fn field(bytes: &[u8]) -> Result<(u64, Value<'_>, &[u8])> {
    let (key, rest) = number(bytes)?;
    let skip = |length: usize| rest.get(length..).map(|rest| (Value::Other, rest)).context("it ends too early");
    let (value, rest) = match key & 7 {
        0 => number(rest).map(|(value, rest)| (Value::Number(value), rest))?,
        1 => skip(8)?,
        2 => {
            let (length, rest) = number(rest)?;
            ensure!(length <= rest.len() as u64, "it ends too early");
            let (value, rest) = rest.split_at(length as usize);
            (Value::Bytes(value), rest)
        }
        5 => skip(4)?,
        kind => bail!("a field of kind {kind}"),
    };
    ensure!(key >> 3 != 0, "a field of number 0");
    Ok((key >> 3, value, rest))
}

/// Takes a number in seven bits a byte, the low ones first.
fn number(bytes: &[u8]) -> Result<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[index + 1..]));
        }
    }
    bail!("a number without an end")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As protoc encodes `instance_id: "c1" namespace: "ns" log_level: -4 containerd_version: "v2.3.0" socket_dir: "/s"` and an extension.
    const PARAMS: &[u8] =
        b"\x0a\x02c1\x12\x02ns\x18\xfc\xff\xff\xff\xff\xff\xff\xff\xff\x01\x22\x06v2.3.0\x3a\x02/c\x42\x04\x0a\x02\x0a\x00\x4a\x02/s";

    #[test]
    fn parameters_are_told_from_options() {
        let expected = Params {
            instance_id: "c1".into(),
            namespace: "ns".into(),
            log_level: -4,
            containerd_binary: "/c".into(),
            socket_dir: "/s".into(),
            ..Params::default()
        };
        assert_eq!(parse(PARAMS).expect("a message"), (Some(expected), Options::default()));
        assert_eq!(parse(b"").expect("nothing"), (None, Options::default()));
        assert_eq!(parse(b"\x0a\x15containerd.runc.v1.Op\x12\x04\x32\x02\xff\xfe").expect("an Any"), (None, Options::default()));
    }

    #[test]
    fn what_is_no_message_is_refused_wherever_it_ends() {
        for length in 1..PARAMS.len() {
            // Some prefixes are whole messages; none may be read beyond its end.
            let _ = parse(&PARAMS[..length]);
        }
        let big = [&[0x0a][..], &[0xff; 9], &[0x01]].concat();
        for bytes in
            [&b"hello"[..], b"\x0a\x05abc", b"\x00\x01", b"\x0f", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x09abc", &big]
        {
            let error = parse(bytes).expect_err("no message");
            assert_eq!(error.to_string(), "standard input holds no message that a shim knows", "{bytes:?}");
        }
    }

    #[test]
    fn the_answer_is_as_protoc_encodes_it() {
        assert_eq!(result(3, "unix:///s/1", "ttrpc"), b"\x08\x03\x12\x0bunix:///s/1\x1a\x05ttrpc");
        let address = "a".repeat(300);
        assert_eq!(result(3, &address, "")[..5], [0x08, 3, 0x12, 0xac, 0x02]);
    }
}
