//! Netlink messages: building requests, and reading what the kernel answers. Attributes that are not asked for are skipped, so that a
//! newer kernel's answers can be read. See netlink(7) and rtnetlink(7).

/// A request under construction: a header, a fixed structure, attributes.
pub struct Request {
    pub kind: u16,
    pub flags: u16,
    body: Vec<u8>,
}

/// A nested attribute that has been opened, and must be closed.
#[must_use]
pub struct Nest(usize);

impl Request {
    /// `fixed`: the structure that every message of this kind begins with.
    pub fn new(kind: u16, flags: i32, fixed: &[u8]) -> Request {
        let mut request = Request { kind, flags: flags as u16, body: fixed.to_vec() };
        request.pad();
        request
    }

    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let nest = self.open(kind);
        self.body.extend_from_slice(value);
        self.close(nest);
        self
    }

    pub fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// A text with its zero byte.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat())
    }

    pub fn open(&mut self, kind: u16) -> Nest {
        let start = self.body.len();
        self.body.extend_from_slice(&[0, 0]);
        self.body.extend_from_slice(&kind.to_ne_bytes());
        Nest(start)
    }

    /// Ends a nested attribute, whose length is known by now.
    pub fn close(&mut self, nest: Nest) {
        let length = (self.body.len() - nest.0) as u16;
        self.body[nest.0..nest.0 + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }

    /// The bytes for the wire.
    pub fn encode(&self, sequence: u32) -> Vec<u8> {
        let length = (HEADER + self.body.len()) as u32;
        let mut bytes = Vec::with_capacity(length as usize);
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&self.kind.to_ne_bytes());
        bytes.extend_from_slice(&(self.flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// The length of a message's header.
const HEADER: usize = 16;

/// One message of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub body: &'a [u8],
}

/// The messages of one packet.
pub fn messages(mut packet: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(packet, 0)? as usize;
        let body = packet.get(HEADER..length)?;
        let message = Message { kind: u16_at(packet, 4)?, flags: u16_at(packet, 6)?, sequence: u32_at(packet, 8)?, body };
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    })
}

/// The attributes that follow a fixed structure of `fixed` bytes.
pub fn attributes(body: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    /// Flags in an attribute's kind: nested, and network byte order.
    const FLAGS: u16 = 0xc000;
    let mut rest = body.get(fixed..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let value = rest.get(4..length)?;
        let kind = u16_at(rest, 2)? & !FLAGS;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The value of one attribute.
pub fn attribute(body: &[u8], fixed: usize, kind: u16) -> Option<&[u8]> {
    attributes(body, fixed).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

/// A text without its zero byte.
pub fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Vec<u8> {
        let mut request = Request::new(18, 5, &[1, 2, 3, 4]);
        request.text(3, "eth0");
        let nest = request.open(18);
        request.number(4, 7).attribute(1, &[9]);
        request.close(nest);
        request.encode(77)
    }

    #[test]
    fn what_is_built_can_be_read() {
        let bytes = example();
        let found = messages(&bytes).collect::<Vec<_>>();
        let [message] = found[..] else { panic!("{found:?}") };
        assert_eq!((message.kind, message.flags, message.sequence), (18, 5 | libc::NLM_F_REQUEST as u16, 77));
        assert_eq!(attribute(message.body, 4, 3).map(text), Some("eth0".into()));
        let nested = attribute(message.body, 4, 18).expect("the nested attribute");
        assert_eq!(attributes(nested, 0).collect::<Vec<_>>(), [(4, &7_u32.to_ne_bytes()[..]), (1, &[9][..])]);
        assert_eq!(attribute(message.body, 4, 99), None);
    }

    #[test]
    fn an_answer_that_is_cut_anywhere_is_no_danger() {
        let bytes = [example(), example()].concat();
        for end in 0..bytes.len() {
            for message in messages(&bytes[..end]) {
                assert!(attributes(message.body, 4).count() <= 2);
            }
        }
        let nonsense = [[3_u8, 0, 0, 0].to_vec(), vec![0xff; 40], vec![0; 40]].concat();
        for start in 0..nonsense.len() {
            assert!(messages(&nonsense[start..]).count() <= 1);
            assert_eq!(attributes(&nonsense[start..], 0).take(100).filter(|(_, value)| value.len() > 80).count(), 0);
        }
    }
}
