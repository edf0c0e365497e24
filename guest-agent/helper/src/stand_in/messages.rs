//! The messages between a stand-in and the supervisor.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::namespaces::Names;
use crate::window::WindowSize;

/// The first line on each connection.
#[derive(Serialize)]
pub struct Attach<'a> {
    attach: &'a str,
    stream: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
}

impl<'a> Attach<'a> {
    pub fn control(token: &'a str, pid: u32) -> Self {
        Attach { attach: token, stream: "control", pid: Some(pid) }
    }

    pub fn stream(token: &'a str, stream: Stream) -> Self {
        Attach { attach: token, stream: stream.name(), pid: None }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    Stdin,
    Stdout,
    Stderr,
}

impl Stream {
    pub fn name(self) -> &'static str {
        ["stdin", "stdout", "stderr"][self as usize]
    }

    /// The descriptor of the standard stream.
    pub fn number(self) -> i32 {
        self as i32
    }
}

/// What the supervisor says.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Order {
    Place(Place),
    Exit {
        code: Option<i32>,
        signal: Option<i32>,
        #[serde(default)]
        stays: bool,
    },
    Fail {
        message: String,
        status: i32,
        #[serde(default)]
        stays: bool,
    },
    /// A word of husk's own, on standard error.
    Say {
        text: String,
    },
}

/// Where the stand-in is to be, and what it carries.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    pub netns: Option<PathBuf>,
    pub rootfs: Option<PathBuf>,
    /// A process whose namespaces of names, IPC and cgroups are this one's too. None: it gets its own, with the names below.
    pub beside: Option<i32>,
    #[serde(default)]
    pub names: Names,
    #[serde(default)]
    pub cgroups: Vec<PathBuf>,
    #[serde(default)]
    pub streams: Vec<Stream>,
    #[serde(default)]
    pub terminal: bool,
    pub console_socket: Option<PathBuf>,
    pub size: Option<WindowSize>,
    /// The words of the process that it stands for.
    #[serde(default)]
    pub title: Vec<String>,
    #[serde(default = "yes")]
    pub signals: bool,
}

fn yes() -> bool {
    true
}

/// What the stand-in says.
#[derive(Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Report {
    Placed { size: Option<WindowSize> },
    Failed { message: String },
    Signal { signal: i32 },
    Resize { size: WindowSize },
}
