//! The byte stream between the host and the agent, and the line with which each session on it begins.

mod dial;
mod serial;
mod stream;
mod vsock;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::console;
use crate::error::{Context, Result};
use dial::Scanner;
pub use stream::DeviceStream;

/// Where the host is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The virtio-serial port named husk.agent.
    Serial,
    /// A vsock port of the host, which the agent dials.
    Vsock(u32),
}

impl Channel {
    /// Makes the channel ready to be dialled by the host.
    pub async fn open(self) -> Result<Listener> {
        let port = match self {
            Channel::Serial => Some(serial::open().await?),
            Channel::Vsock(_) => None,
        };
        Ok(Listener {
            channel: self,
            port,
        })
    }
}

/// A channel that waits for sessions, one after another.
pub struct Listener {
    channel: Channel,
    /// The serial port: one descriptor for the life of the machine.
    port: Option<DeviceStream>,
}

/// A session: the stream, and what the host has already sent on it after the dial line.
pub struct Connection<'a> {
    pub stream: &'a mut DeviceStream,
    pub early: Vec<u8>,
}

impl Listener {
    /// Answers when the host has dialled, and has been answered.
    pub async fn accept(&mut self) -> Result<Connection<'_>> {
        if let Channel::Vsock(port) = self.channel {
            self.port = Some(vsock::dial(port).await);
        }
        let early = loop {
            let Some(stream) = self.port.as_mut() else {
                return Err(crate::error::Failure::other("the channel is not open"));
            };
            if let Some(early) = greet(stream).await? {
                break early;
            }
            // The stream ended before anyone had dialled.
            match self.channel {
                Channel::Serial => stream.wait_for_change().await?,
                Channel::Vsock(port) => self.port = Some(vsock::dial(port).await),
            }
        };
        match self.port.as_mut() {
            Some(stream) => Ok(Connection { stream, early }),
            None => Err(crate::error::Failure::other("the channel is not open")),
        }
    }
}

/// Reads up to a dial line of our version and answers it. What followed it belongs to the session; None: the stream ended.
async fn greet(stream: &mut DeviceStream) -> Result<Option<Vec<u8>>> {
    let mut scanner = Scanner::default();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).await.unwrap_or(0);
        if count == 0 {
            return Ok(None);
        }
        let mut rest = &buffer[..count];
        while let Some((dial, consumed)) = scanner.push(rest) {
            rest = &rest[consumed..];
            stream
                .write_all(dial.answer().as_bytes())
                .await
                .context(|| "answer the host's dial line")?;
            if dial.version == dial::VERSION {
                return Ok(Some(rest.to_vec()));
            }
            console::log(format_args!(
                "the host speaks version {} of the protocol, not {}",
                dial.version,
                dial::VERSION
            ));
        }
    }
}
