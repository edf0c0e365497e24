//! The messages that make a table: one batch, which the kernel carries out whole or not at all. Numbers in attributes are big-endian.

use std::net::IpAddr;

use crate::{Protocol, Rule};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;

const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const APPEND: u16 = (libc::NLM_F_CREATE | libc::NLM_F_APPEND | libc::NLM_F_ACK) as u16;

/// NFT_TABLE_F_OWNER
const OWNED: u32 = 2;
/// NF_INET_LOCAL_OUT, and the place of translations there (NF_IP_PRI_NAT_DST).
const OUTPUT: u32 = 3;
const PRIORITY: i32 = -100;
const CHAIN: &[u8] = b"output\0";
/// NFT_REG_1: the register that all expressions use.
const REGISTER: u32 = 1;

const META_PROTOCOL_FAMILY: u32 = 15;
const META_PROTOCOL: u32 = 16;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const DESTINATION_PORT: u32 = 2;

const HEADER: usize = 16;

/// The batch, and the sequence number of its last message that is acknowledged.
pub fn encode(table: &str, rules: &[Rule]) -> (Vec<u8>, u32) {
    let name = [table.as_bytes(), &[0]].concat();
    let nested = libc::NLA_F_NESTED as u16;
    let mut bytes = message(BATCH_BEGIN, 0, 0, SUBSYSTEM, &[]);
    let create = [attribute(1, &name), number(2, OWNED)].concat();
    bytes.extend(message(NEW_TABLE, CREATE, 1, 0, &create));
    let hook = [number(1, OUTPUT), number(2, PRIORITY as u32)].concat();
    let chain = [attribute(1, &name), attribute(3, CHAIN), attribute(4 | nested, &hook), attribute(7, b"nat\0")].concat();
    bytes.extend(message(NEW_CHAIN, CREATE, 2, 0, &chain));
    let mut sequence = 2;
    for rule in rules {
        sequence += 1;
        let body = [attribute(1, &name), attribute(2, CHAIN), attribute(4 | nested, &expressions(rule))].concat();
        bytes.extend(message(NEW_RULE, APPEND, sequence, 0, &body));
    }
    bytes.extend(message(BATCH_END, 0, sequence + 1, SUBSYSTEM, &[]));
    (bytes, sequence)
}

/// Sequence numbers and errors (0: done) of what the kernel answers.
pub fn answers(mut packet: &[u8]) -> impl Iterator<Item = (u32, i32)> {
    std::iter::from_fn(move || {
        loop {
            let length = u32_at(packet, 0)? as usize;
            let message = packet.get(..length).filter(|message| message.len() >= HEADER)?;
            packet = packet.get(length.next_multiple_of(4)..).unwrap_or(&[]);
            let is_answer = message.get(4..6) == Some(&(libc::NLMSG_ERROR as u16).to_ne_bytes());
            if let (true, Some(error)) = (is_answer, u32_at(message, HEADER)) {
                return Some((u32_at(message, 8)?, -(error as i32)));
            }
        }
    })
}

/// What a packet must be, and where it then goes.
fn expressions(rule: &Rule) -> Vec<u8> {
    let (family, offset, address) = match rule.address {
        IpAddr::V4(address) => (libc::NFPROTO_IPV4, 16, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::NFPROTO_IPV6, 24, address.octets().to_vec()),
    };
    let protocol = match rule.protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
    };
    let mut all = vec![
        meta(META_PROTOCOL_FAMILY),
        equals(&[family as u8]),
        payload(NETWORK_HEADER, offset, address.len() as u32),
        equals(&address),
        meta(META_PROTOCOL),
        equals(&[protocol as u8]),
    ];
    if let Some(port) = rule.port {
        all.extend([payload(TRANSPORT_HEADER, DESTINATION_PORT, 2), equals(&port.to_be_bytes())]);
    }
    let to = [number(1, REGISTER), attribute(2, &attribute(1, &rule.to.to_be_bytes()))].concat();
    all.extend([expression("immediate", &to), expression("redir", &number(1, REGISTER))]);
    all.concat()
}

fn meta(key: u32) -> Vec<u8> {
    expression("meta", &[number(1, REGISTER), number(2, key)].concat())
}

fn payload(base: u32, offset: u32, length: u32) -> Vec<u8> {
    expression("payload", &[number(1, REGISTER), number(2, base), number(3, offset), number(4, length)].concat())
}

fn equals(value: &[u8]) -> Vec<u8> {
    expression("cmp", &[number(1, REGISTER), number(2, 0), attribute(3, &attribute(1, value))].concat())
}

/// One element of a rule's list.
fn expression(name: &str, data: &[u8]) -> Vec<u8> {
    attribute(1, &[attribute(1, &[name.as_bytes(), &[0]].concat()), attribute(2, data)].concat())
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + value.len().next_multiple_of(4));
    bytes.extend(((4 + value.len()) as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A message of struct nlmsghdr, struct nfgenmsg (family inet) and attributes.
fn message(kind: u16, flags: u16, sequence: u32, resource: u16, attributes: &[u8]) -> Vec<u8> {
    let family = if attributes.is_empty() { libc::AF_UNSPEC as u8 } else { libc::NFPROTO_INET as u8 };
    let mut bytes = Vec::new();
    bytes.extend(((HEADER + 4 + attributes.len()) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(attributes);
    bytes
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_of_a_batch_is_whole() {
        let rule = Rule { address: "::1".parse().expect("an address"), protocol: Protocol::Tcp, port: Some(53), to: 4096 };
        let (bytes, last) = encode("husk", &[rule, rule]);
        let mut rest = bytes.as_slice();
        let mut kinds = Vec::new();
        while let Some(length) = u32_at(rest, 0) {
            kinds.push((u16::from_ne_bytes([rest[4], rest[5]]), u32_at(rest, 8).expect("a sequence number")));
            rest = &rest[length as usize..];
        }
        assert_eq!(rest, []);
        let expected = [(BATCH_BEGIN, 0), (NEW_TABLE, 1), (NEW_CHAIN, 2), (NEW_RULE, 3), (NEW_RULE, 4), (BATCH_END, 5)];
        assert_eq!((kinds.as_slice(), last), (expected.as_slice(), 4));
    }

    #[test]
    fn answers_are_read_and_torn_ones_are_not() {
        let answer = |sequence: u32, error: i32| {
            let mut bytes = vec![36, 0, 0, 0, 2, 0, 0, 0];
            bytes.extend(sequence.to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(error.to_ne_bytes());
            bytes.resize(36, 0);
            bytes
        };
        let bytes = [answer(3, 0), answer(4, -libc::EPERM)].concat();
        assert_eq!(answers(&bytes).collect::<Vec<_>>(), [(3, 0), (4, libc::EPERM)]);
        assert_eq!(answers(&bytes[..40]).collect::<Vec<_>>(), [(3, 0)]);
        assert_eq!(answers(&[0; 64]).count(), 0);
    }
}
