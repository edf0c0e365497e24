//! The byte stream between the host and the agent, and the line with which each session on it begins.

mod dial;
mod serial;
mod stream;
mod vsock;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::console;
use crate::error::Result;
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
        let stream = self.connect().await?;
        Ok(Listener {
            channel: self,
            stream: Some(stream),
        })
    }

    async fn connect(self) -> Result<DeviceStream> {
        match self {
            Channel::Serial => serial::open().await,
            Channel::Vsock(port) => Ok(vsock::dial(port).await),
        }
    }
}

/// A channel that waits for sessions, one after another.
pub struct Listener {
    channel: Channel,
    /// A stream that no session has been on yet.
    stream: Option<DeviceStream>,
}

/// A session: the stream, and what the host has already sent on it after the dial line.
pub struct Connection {
    pub stream: DeviceStream,
    pub early: Vec<u8>,
}

impl Listener {
    /// Answers when the host has dialled, and has been answered.
    pub async fn accept(&mut self) -> Result<Connection> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.channel.connect().await?,
        };
        loop {
            if let Some(early) = greet(&mut stream).await {
                return Ok(Connection { stream, early });
            }
            // The stream ended before anyone had dialled.
            stream = match self.channel {
                Channel::Serial => {
                    stream.wait_for_change().await?;
                    stream
                }
                Channel::Vsock(_) => {
                    drop(stream);
                    self.channel.connect().await?
                }
            };
        }
    }
}

/// Reads up to a dial line of our version and answers it. What followed it belongs to the session; None: the stream ended.
async fn greet(stream: &mut DeviceStream) -> Option<Vec<u8>> {
    let mut scanner = Scanner::default();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).await.unwrap_or(0);
        if count == 0 {
            return None;
        }
        let mut rest = &buffer[..count];
        while let Some((dial, consumed)) = scanner.push(rest) {
            rest = &rest[consumed..];
            stream.write_all(dial.answer().as_bytes()).await.ok()?;
            if dial.version == dial::VERSION {
                return Some(rest.to_vec());
            }
            console::log(format_args!(
                "the host speaks version {} of the protocol, not {}",
                dial.version,
                dial::VERSION
            ));
        }
    }
}
