//! The dial line: how both ends of a stream that outlives its sessions find a session's first byte.

/// The version of proto/agent/v1 and of this handshake.
pub const VERSION: u32 = 1;

const PREFIX: &str = "husk-dial ";
const NONCE_LENGTH: usize = 32;
/// The prefix, a version of at most ten digits, a space, the nonce.
const LONGEST: usize = PREFIX.len() + 10 + 1 + NONCE_LENGTH;

/// A dial line of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial {
    pub version: u32,
    nonce: String,
}

impl Dial {
    /// Reads a line without its newline. What a broken session left before the dial stands on the same line.
    fn parse(line: &[u8]) -> Option<Dial> {
        let start = line
            .windows(PREFIX.len())
            .rposition(|window| window == PREFIX.as_bytes())?;
        let words = std::str::from_utf8(&line[start + PREFIX.len()..]).ok()?;
        let (version, nonce) = words.split_once(' ')?;
        let all_hexadecimal =
            nonce.len() == NONCE_LENGTH && nonce.bytes().all(|byte| byte.is_ascii_hexdigit());
        let version = version.parse().ok()?;
        all_hexadecimal.then(|| Dial {
            version,
            nonce: nonce.to_owned(),
        })
    }

    /// The agent's answer: its own version, and the host's nonce.
    pub fn answer(&self) -> String {
        format!("husk-accept {VERSION} {}\n", self.nonce)
    }
}

/// The whole line of a dial with that nonce, as the host of our version sends it; None: it is no nonce.
pub fn line(nonce: &str) -> Option<Vec<u8>> {
    let line = format!("{PREFIX}{VERSION} {nonce}");
    Dial::parse(line.as_bytes()).map(|_| format!("{line}\n").into_bytes())
}

/// Looks for a dial line in what arrives, and forgets everything else.
#[derive(Default)]
pub struct Scanner {
    line: Vec<u8>,
}

impl Scanner {
    /// The next dial line, and how many of these bytes it took; None: all of them were taken, and there was none.
    pub fn push(&mut self, bytes: &[u8]) -> Option<(Dial, usize)> {
        for (index, &byte) in bytes.iter().enumerate() {
            if byte == b'\n' {
                let dial = Dial::parse(&self.line);
                self.line.clear();
                if let Some(dial) = dial {
                    return Some((dial, index + 1));
                }
            } else {
                if self.line.len() >= 2 * LONGEST {
                    self.line.drain(..LONGEST);
                }
                self.line.push(byte);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn finds_the_line_and_leaves_what_follows() {
        let input = format!("husk-dial 1 {NONCE}\nPRI * HTTP/2.0");
        let (dial, consumed) = Scanner::default().push(input.as_bytes()).expect("a dial");
        assert_eq!(dial.version, 1);
        assert_eq!(&input[consumed..], "PRI * HTTP/2.0");
        assert_eq!(dial.answer(), format!("husk-accept 1 {NONCE}\n"));
    }

    #[test]
    fn discards_what_a_broken_session_left_on_the_same_line() {
        let mut input = vec![0xff; 100_000];
        input.extend_from_slice(format!("husk-dial 1 {NONCE}\n").as_bytes());
        let (_, consumed) = Scanner::default().push(&input).expect("a dial");
        assert_eq!(consumed, input.len());
    }

    #[test]
    fn finds_a_line_that_arrives_byte_by_byte() {
        let mut scanner = Scanner::default();
        let input = format!("\nx\nhusk-dial 7 {NONCE}\n");
        let found: Vec<Dial> = input
            .bytes()
            .filter_map(|byte| scanner.push(&[byte]))
            .map(|(dial, _)| dial)
            .collect();
        assert_eq!(
            found,
            [Dial {
                version: 7,
                nonce: NONCE.into()
            }]
        );
    }

    #[test]
    fn a_line_is_made_of_a_nonce_alone() {
        let line = line(NONCE).expect("a line");
        assert_eq!(line, format!("husk-dial 1 {NONCE}\n").into_bytes());
        assert_eq!(super::line("00"), None);
    }

    #[test]
    fn a_dial_has_a_number_and_a_nonce_of_32_digits() {
        for line in [
            "husk-dial 1 00",
            "husk-dial x 00112233445566778899aabbccddeeff",
            "husk-dial 1",
            "husk-dial ",
        ] {
            assert_eq!(
                Scanner::default().push(format!("{line}\n").as_bytes()),
                None,
                "{line}"
            );
        }
    }
}
