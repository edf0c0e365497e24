//! Which devices a container may use: the spec's rules, runc's defaults, and what is nobody's but the agent's.

use std::fs;
use std::sync::OnceLock;

use crate::error::{Failure, Result};
use crate::spec::DeviceRule;

/// Read, write and make, as the kernel's BPF_DEVCG_ACC_* bits.
pub const MAKE: u32 = 1;
/// See [`MAKE`].
pub const READ: u32 = 2;
/// See [`MAKE`].
pub const WRITE: u32 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    All,
    Character,
    Block,
}

/// One rule; the last that fits an access decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub kind: Kind,
    /// None: any.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: u32,
    pub allow: bool,
}

impl Rule {
    /// Whether it fits every access that the other one fits.
    fn covers(&self, other: &Rule) -> bool {
        let number = |own: Option<u32>, other| own.is_none() || own == other;
        (self.kind == Kind::All || self.kind == other.kind)
            && number(self.major, other.major)
            && number(self.minor, other.minor)
            && other.access & !self.access == 0
    }
}

const ALL: u32 = MAKE | READ | WRITE;
const EVERYTHING: Rule = allow(Kind::All, None, None, ALL);
const PTY_SLAVES: u32 = 136;

const fn allow(kind: Kind, major: Option<u32>, minor: Option<u32>, access: u32) -> Rule {
    Rule {
        kind,
        major,
        minor,
        access,
        allow: true,
    }
}

/// What every container may do: make any node (using it is another matter), and use the harmless devices, the terminals, and tun.
const DEFAULT: [Rule; 11] = [
    allow(Kind::Character, None, None, MAKE),
    allow(Kind::Block, None, None, MAKE),
    allow(Kind::Character, Some(1), Some(3), ALL),
    allow(Kind::Character, Some(1), Some(5), ALL),
    allow(Kind::Character, Some(1), Some(7), ALL),
    allow(Kind::Character, Some(1), Some(8), ALL),
    allow(Kind::Character, Some(1), Some(9), ALL),
    allow(Kind::Character, Some(5), Some(0), ALL),
    allow(Kind::Character, Some(5), Some(2), ALL),
    allow(Kind::Character, Some(PTY_SLAVES), None, ALL),
    allow(Kind::Character, Some(10), Some(200), ALL),
];

/// The spec's rules between the beginning (nothing is allowed) and the end (the defaults are; the agent's own devices never are).
pub fn complete(rules: &[DeviceRule]) -> Result<Vec<Rule>> {
    let rules = rules.iter().map(convert).collect::<Result<Vec<_>>>()?;
    let mut complete = essence(&rules);
    complete.extend(DEFAULT);
    complete.extend(known_majors().into_iter().map(|major| Rule {
        kind: Kind::Character,
        major: Some(major),
        minor: None,
        access: READ | WRITE,
        allow: false,
    }));
    Ok(complete)
}

/// The rules without those that make no difference between the beginning and the end: what comes before one that fits every access, which itself says
/// nothing where it denies, and what the defaults allow anyway. Most containers are left with none.
fn essence(rules: &[Rule]) -> Vec<Rule> {
    let fits_all = |rule: &Rule| rule.covers(&EVERYTHING);
    let begin = rules
        .iter()
        .rposition(fits_all)
        .map_or(0, |last| if rules[last].allow { last } else { last + 1 });
    let is_default = |rule: &Rule| rule.allow && DEFAULT.iter().any(|other| other.covers(rule));
    rules[begin..]
        .iter()
        .filter(|rule| !is_default(rule))
        .copied()
        .collect()
}

/// The majors of this machine's ports to the host, which it has had from its boot on where it has any: the kernel's list is long.
fn known_majors() -> Vec<u32> {
    static KNOWN: OnceLock<Vec<u32>> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return known.clone();
    }
    let majors = own_majors(&fs::read_to_string("/proc/devices").unwrap_or_default());
    if !majors.is_empty() {
        let _ = KNOWN.set(majors.clone()); // another was faster, and has read the same
    }
    majors
}

/// The majors of the ports to the host: virtio-serial ports, of which one is the agent's channel, and the consoles of the same driver.
fn own_majors(devices: &str) -> Vec<u32> {
    let ours = |name: &str| name.starts_with("virtio-portsdev") || name == "hvc";
    let characters = devices.split("Block devices:").next().unwrap_or_default();
    characters
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .filter(|(_, name)| ours(name.trim()))
        .filter_map(|(major, _)| major.parse().ok())
        .collect()
}

fn convert(rule: &DeviceRule) -> Result<Rule> {
    let kind = match rule.r#type.as_str() {
        "" | "a" => Kind::All,
        "c" | "u" => Kind::Character,
        "b" => Kind::Block,
        other => {
            return Err(Failure::unsupported(format!(
                "linux.resources.devices: unknown type {other:?}"
            )));
        }
    };
    let mut access = 0;
    for letter in rule.access.chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MAKE,
            _ => {
                return Err(Failure::unsupported(format!(
                    "linux.resources.devices: unknown access {:?}",
                    rule.access
                )));
            }
        };
    }
    if access == 0 {
        access = ALL;
    }
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number).map(Some).map_err(|_| {
            Failure::unsupported(format!(
                "linux.resources.devices: no device has the number {number}"
            ))
        }),
    };
    Ok(Rule {
        kind,
        major: number(rule.major)?,
        minor: number(rule.minor)?,
        access,
        allow: rule.allow,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_to_the_host_are_found_by_name() {
        let devices = "Character devices:\n  1 mem\n229 hvc\n246 virtio-portsdev\n\nBlock devices:\n246 virtio-portsdev\n";
        assert_eq!(own_majors(devices), [229, 246]);
    }

    #[test]
    fn a_rule_of_the_spec() {
        let json = br#"{"allow": true, "type": "b", "major": 8, "minor": -1, "access": "rm"}"#;
        let rule = convert(&crate::spec::parse("rule", json).expect("a rule"));
        assert_eq!(
            rule,
            Ok(Rule {
                kind: Kind::Block,
                major: Some(8),
                minor: None,
                access: READ | MAKE,
                allow: true
            })
        );
    }

    const NULL: Rule = allow(Kind::Character, Some(1), Some(3), READ | WRITE);
    const DISK: Rule = allow(Kind::Block, Some(8), Some(0), READ);
    const NOTHING: Rule = Rule {
        allow: false,
        ..EVERYTHING
    };

    #[test]
    fn what_the_defaults_say_need_not_be_said() {
        assert_eq!(essence(&[]), []);
        assert_eq!(essence(&[NOTHING]), []);
        assert_eq!(essence(&[NOTHING, NULL, DISK]), [DISK]);
        assert_eq!(essence(&[DISK, NOTHING, NULL]), []);
    }

    #[test]
    fn what_makes_a_difference_stays() {
        let forbidden = Rule {
            allow: false,
            ..NULL
        };
        let null_and_more = Rule {
            minor: None,
            ..NULL
        };
        for rules in [
            vec![EVERYTHING, forbidden],
            vec![forbidden],
            vec![null_and_more],
        ] {
            assert_eq!(essence(&rules), rules);
        }
        assert_eq!(essence(&[DISK, EVERYTHING]), [EVERYTHING]);
    }

    #[test]
    fn nonsense_is_refused() {
        let rule = DeviceRule {
            access: "rx".into(),
            ..DeviceRule::default()
        };
        assert_eq!(
            convert(&rule),
            Err(Failure::unsupported(
                "linux.resources.devices: unknown access \"rx\""
            ))
        );
    }
}
