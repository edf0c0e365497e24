//! Failures: one line for the user, and the class that a caller can match on.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};
use tonic::{Code, Status, metadata::MetadataValue};

/// The trailing metadata that carries the class.
const CLASS_METADATA: &str = "husk-error";

/// What kind of failure it is, where that matters to a caller; the names are those of agent.proto.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    ProgramNotFound,
    ProgramNotExecutable,
    UserNotFound,
    CwdNotFound,
    ContainerNotFound,
    ProcessNotFound,
    AlreadyExists,
    WrongState,
    SpecUnsupported,
    MountFailed,
    HookFailed,
    /// A field of the request that no caller of good faith sends.
    InvalidArgument,
    /// Anything else: the kernel said no.
    Other,
}

impl Class {
    fn name(self) -> Option<&'static str> {
        Some(match self {
            Class::ProgramNotFound => "program-not-found",
            Class::ProgramNotExecutable => "program-not-executable",
            Class::UserNotFound => "user-not-found",
            Class::CwdNotFound => "cwd-not-found",
            Class::ContainerNotFound => "container-not-found",
            Class::ProcessNotFound => "process-not-found",
            Class::AlreadyExists => "already-exists",
            Class::WrongState => "wrong-state",
            Class::SpecUnsupported => "spec-unsupported",
            Class::MountFailed => "mount-failed",
            Class::HookFailed => "hook-failed",
            Class::InvalidArgument | Class::Other => return None,
        })
    }

    fn code(self) -> Code {
        match self {
            Class::ProgramNotFound | Class::ContainerNotFound | Class::ProcessNotFound => {
                Code::NotFound
            }
            Class::ProgramNotExecutable
            | Class::UserNotFound
            | Class::CwdNotFound
            | Class::WrongState => Code::FailedPrecondition,
            Class::AlreadyExists => Code::AlreadyExists,
            Class::SpecUnsupported | Class::InvalidArgument => Code::InvalidArgument,
            Class::MountFailed | Class::HookFailed | Class::Other => Code::Internal,
        }
    }
}

/// A failed operation: its class and one line that says what failed, on what, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub class: Class,
    pub message: String,
}

/// What nearly everything here answers.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure of a class, with its one line.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Failure {
            class,
            message: message.into(),
        }
    }

    /// A failure without a class of its own.
    pub fn other(message: impl Into<String>) -> Self {
        Failure::new(Class::Other, message)
    }

    /// A request that cannot be meant so.
    pub fn invalid(message: impl Into<String>) -> Self {
        Failure::new(Class::InvalidArgument, message)
    }

    /// A field of the spec that this guest cannot honour.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Failure::new(Class::SpecUnsupported, message)
    }
}

impl Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let mut status = Status::new(failure.class.code(), failure.message.replace('\n', " | "));
        if let Some(name) = failure.class.name() {
            status
                .metadata_mut()
                .insert(CLASS_METADATA, MetadataValue::from_static(name));
        }
        status
    }
}

/// Says what was attempted when an operation failed.
pub trait Context<T> {
    /// The failure `"{what}: {cause}"`, without a class.
    fn context<D: Display>(self, what: impl FnOnce() -> D) -> Result<T>;
    /// The failure `"{what}: {cause}"`, of a class.
    fn class<D: Display>(self, class: Class, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Display> Context<T> for std::result::Result<T, E> {
    fn context<D: Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.class(Class::Other, what)
    }

    fn class<D: Display>(self, class: Class, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|cause| Failure::new(class, format!("{}: {cause}", what())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_travels_as_trailing_metadata() {
        let status = Status::from(Failure::new(Class::ProgramNotFound, "no\nsuch"));
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.message(), "no | such");
        assert_eq!(
            status
                .metadata()
                .get(CLASS_METADATA)
                .map(|value| value.as_bytes()),
            Some(&b"program-not-found"[..])
        );
    }

    #[test]
    fn a_failure_without_a_class_has_no_metadata() {
        let status = Status::from(Failure::other("x"));
        assert_eq!(status.code(), Code::Internal);
        assert!(status.metadata().get(CLASS_METADATA).is_none());
    }

    #[test]
    fn the_context_comes_before_the_cause() {
        let result: Result<()> = Err(nix::errno::Errno::ENOENT).context(|| "open x");
        assert_eq!(
            result,
            Err(Failure::other("open x: ENOENT: No such file or directory"))
        );
    }
}
