//! What the kernel's command line tells the agent.

use crate::channel::Channel;
use crate::error::{Context, Failure, Result};

/// The channel that `husk.channel=serial` or `husk.channel=vsock:PORT` names; serial where nothing does.
pub fn channel(command_line: &str) -> Result<Channel> {
    let value = command_line
        .split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix("husk.channel="))
        .next_back();
    match value {
        None | Some("serial") => Ok(Channel::Serial),
        Some(value) => {
            let port = value.strip_prefix("vsock:").ok_or_else(|| {
                Failure::other(format!(
                    "husk.channel={value}: expected serial or vsock:PORT"
                ))
            })?;
            let port = port
                .parse()
                .context(|| format!("husk.channel={value}: the port"))?;
            Ok(Channel::Vsock(port))
        }
    }
}

/// Whether the machine becomes a template, whose shared folder's device is to wait for a clone (`husk.park`).
pub fn parks_share(command_line: &str) -> bool {
    command_line
        .split_ascii_whitespace()
        .any(|word| word == "husk.park")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_channel() {
        assert_eq!(channel("console=ttyS0 quiet\n"), Ok(Channel::Serial));
        assert_eq!(channel("husk.channel=serial"), Ok(Channel::Serial));
        assert_eq!(
            channel("quiet husk.channel=vsock:1024 panic=-1"),
            Ok(Channel::Vsock(1024))
        );
    }

    #[test]
    fn says_whether_the_share_is_parked() {
        assert!(parks_share("quiet husk.park panic=-1\n"));
        assert!(!parks_share("quiet husk.parking husk.channel=serial\n"));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert_eq!(
            channel("husk.channel=carrier-pigeon").map_err(|failure| failure.message),
            Err("husk.channel=carrier-pigeon: expected serial or vsock:PORT".into())
        );
        assert_eq!(
            channel("husk.channel=vsock:x").map_err(|failure| failure.message),
            Err("husk.channel=vsock:x: the port: invalid digit found in string".into())
        );
    }
}
