//! What the agent and the process that sets up a container's process say to each other, on a socket that is the latter's standard input.
//!
//! ```text
//! agent                          first stage                    second stage (in the new PID namespace)
//!                             <- Waiting
//!   plan, with stdio descriptors ->
//!                                  joins the cgroup
//!                             <- MapUser                        (only with a user namespace)
//!   Go ->
//!                                  makes and joins namespaces, forks
//!                             <- Forked
//!                                  ends
//!                                                               mounts, pivots, limits, identity
//!                             <--------------------------------- Terminal, with the pty  (only with a terminal)
//!                             <--------------------------------- Ready
//!   Start ------------------------------------------------------>
//!                                                               hooks, seccomp, execve
//!                             <--------------------------------- end of file: the program runs
//! ```
//! `Failed` instead of any message ends it. A message is its length (4 bytes, little endian) and JSON; after the plan come the spec and the process object, each
//! in the same way.

use serde::{Deserialize, Serialize};

use crate::error::{Context, Failure, Result};

/// The most bytes of a message: a plan holds a spec, whose environment can be large.
pub const MAX_MESSAGE: usize = 32 * 1024 * 1024;

/// The first message: all that the process is to become.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    pub container_id: String,
    /// The container's cgroup, a folder below /sys/fs/cgroup.
    pub cgroup: String,
    /// An exec joins that one or none, and not init's in its place.
    pub exact_cgroup: bool,
    /// config.json. It comes after the plan: within it, it would have to be quoted, and read twice.
    #[serde(skip)]
    pub spec: String,
    /// The spec's process object of this process. Likewise.
    #[serde(skip)]
    pub process: String,
    pub terminal: Option<TerminalSize>,
    /// The terminal puts no carriage return before a line feed.
    pub plain_newlines: bool,
    pub kind: Kind,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub enum Kind {
    Init(InitPlan),
    Exec {
        init_pid: i32,
    },
    /// The first process of the PID namespace that containers without one of their own share.
    #[default]
    SandboxInit,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct InitPlan {
    /// Where the root file system is mounted in the guest.
    pub rootfs: String,
    /// Namespaces of other processes to join: the spec's type, the process.
    pub join: Vec<(String, i32)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}

/// From the child to the agent.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToAgent {
    /// I am here, and wait for a plan.
    Waiting,
    /// Write my user and group mappings.
    MapUser,
    /// The second stage, by its PID in the agent's namespace.
    Forked {
        pid: i32,
    },
    /// The descriptor that comes along is the pty's master.
    Terminal,
    Ready,
    Failed(Failure),
}

/// From the agent to the child.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToChild {
    Go,
    Start,
}

/// A message as it is sent.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(message).context(|| "encode a message")?;
    let mut bytes = Vec::with_capacity(4 + json.len());
    append(&mut bytes, &json)?;
    Ok(bytes)
}

/// A plan as it is sent.
pub fn encode_plan(plan: &Plan) -> Result<Vec<u8>> {
    let mut bytes = encode(plan)?;
    for json in [&plan.spec, &plan.process] {
        append(&mut bytes, json.as_bytes())?;
    }
    Ok(bytes)
}

fn append(bytes: &mut Vec<u8>, json: &[u8]) -> Result<()> {
    let length = u32::try_from(json.len())
        .ok()
        .filter(|&length| length as usize <= MAX_MESSAGE);
    let length = length.ok_or_else(|| {
        Failure::invalid(format!("a message of {} bytes is too long", json.len()))
    })?;
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(json);
    Ok(())
}

/// How many bytes of JSON follow the header.
pub fn decode_length(header: [u8; 4]) -> Result<usize> {
    let length = u32::from_le_bytes(header) as usize;
    if length > MAX_MESSAGE {
        return Err(Failure::other(format!(
            "a message of {length} bytes is too long"
        )));
    }
    Ok(length)
}

/// Reads the JSON of a message.
pub fn decode<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).context(|| "decode a message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    #[test]
    fn a_message_comes_back_as_it_was() {
        let failure = ToAgent::Failed(Failure::new(Class::CwdNotFound, "no /x"));
        let bytes = encode(&failure).expect("bytes");
        let (header, json) = bytes.split_first_chunk().expect("a header");
        assert_eq!(decode_length(*header), Ok(json.len()));
        assert_eq!(decode::<ToAgent>(json), Ok(failure));
    }

    #[test]
    fn a_plan_is_followed_by_its_spec_and_its_process_as_they_came() {
        let plan = Plan {
            container_id: "c".to_owned(),
            spec: "{\"a\": \"\\n\"}".to_owned(),
            process: "{}".to_owned(),
            ..Plan::default()
        };
        let bytes = encode_plan(&plan).expect("bytes");
        let mut rest = bytes.as_slice();
        let mut next = || {
            let (header, more) = rest.split_first_chunk().expect("a header");
            let (json, more) = more.split_at(decode_length(*header).expect("a length"));
            rest = more;
            json
        };
        assert_eq!(decode::<Plan>(next()).expect("a plan").container_id, "c");
        assert_eq!(next(), plan.spec.as_bytes());
        assert_eq!(next(), plan.process.as_bytes());
        assert!(rest.is_empty());
    }

    #[test]
    fn a_length_is_bounded() {
        assert!(decode_length(u32::MAX.to_le_bytes()).is_err());
    }
}
