//! rtnetlink messages as bytes: a builder, and a walk over what the kernel answers.

use std::net::IpAddr;

/// struct nlmsghdr: length, type, flags, sequence, port.
pub const HEADER: usize = 16;

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// A request in the making.
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A request of a type with flags, and the fixed part that the type has (struct ifinfomsg, ifaddrmsg, ...).
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(fixed);
        bytes.resize(align(bytes.len()), 0);
        Message { bytes }
    }

    /// Adds an attribute.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        // A length that does not fit is refused by whoever checked the value: names and addresses are short.
        let length = (4 + value.len()) as u16;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(align(self.bytes.len()), 0);
        self
    }

    /// Adds an attribute of 32 bits.
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Adds an address.
    pub fn address(self, kind: u16, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.attribute(kind, &address.octets()),
            IpAddr::V6(address) => self.attribute(kind, &address.octets()),
        }
    }

    /// The request as it is sent.
    pub fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// AF_INET or AF_INET6.
pub fn family(address: IpAddr) -> u8 {
    (if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    }) as u8
}

/// One message of an answer.
pub struct Answer<'a> {
    pub kind: u16,
    pub sequence: u32,
    pub body: &'a [u8],
}

/// The messages of a datagram.
pub fn answers(mut bytes: &[u8]) -> Vec<Answer<'_>> {
    let mut found = Vec::new();
    while let Some(length) = number(bytes, 0)
        .map(|length| length as usize)
        .filter(|length| (HEADER..=bytes.len()).contains(length))
    {
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        let sequence = number(bytes, 8).unwrap_or_default();
        found.push(Answer {
            kind,
            sequence,
            body: &bytes[HEADER..length],
        });
        bytes = bytes.get(align(length)..).unwrap_or_default();
    }
    found
}

/// The value of an attribute after a fixed part.
pub fn find_attribute(body: &[u8], fixed: usize, wanted: u16) -> Option<&[u8]> {
    let mut rest = body.get(align(fixed)..)?;
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        let kind = u16::from_ne_bytes([rest[2], rest[3]]);
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(align(length)..)?;
    }
    None
}

/// The 32 bits at an offset.
pub fn number(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(
        bytes.get(offset..offset + 4)?.try_into().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_built() {
        let bytes = Message::new(16, 0, &[7; 16])
            .attribute(3, b"eth0\0")
            .number(4, 1500)
            .finish(9);
        let answers = answers(&bytes);
        assert_eq!(
            (answers.len(), answers[0].kind, answers[0].sequence),
            (1, 16, 9)
        );
        assert_eq!(find_attribute(answers[0].body, 16, 3), Some(&b"eth0\0"[..]));
        assert_eq!(
            find_attribute(answers[0].body, 16, 4).and_then(|value| number(value, 0)),
            Some(1500)
        );
        assert_eq!(find_attribute(answers[0].body, 16, 5), None);
    }

    #[test]
    fn torn_messages_end_the_walk() {
        let bytes = Message::new(16, 0, &[]).finish(1);
        assert_eq!(answers(&bytes[..bytes.len() - 1]).len(), 0);
        assert_eq!(answers(&[0; 32]).len(), 0);
        assert_eq!(find_attribute(&[9, 0, 1, 0, 0], 0, 1), None);
    }
}
