//! The byte stream between the host and the agent, and the line with which each session on it begins.

mod dial;
mod passage;
mod passing;
mod serial;
mod stream;
mod vsock;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::console;
use crate::error::Result;
use dial::Scanner;
pub use dial::line as dial_line;
pub use passage::{CAPACITY as PASSAGE, Passage};
pub use passing::Passing;
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
            ready: Some(Connection {
                stream,
                early: Vec::new(),
            }),
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
    /// A stream on which the next session may begin, and what was already read of it.
    ready: Option<Connection>,
}

/// A session: the stream, and what the host has already sent on it after the dial line.
pub struct Connection {
    pub stream: DeviceStream,
    pub early: Vec<u8>,
}

impl Listener {
    /// Takes back the stream of a session that is over, for the next one: what has come since, or was read of it, is that one's.
    pub fn take_back(&mut self, connection: Connection) {
        self.ready = Some(Connection {
            stream: connection.stream.renewed(),
            ..connection
        });
    }

    /// Answers when the host has dialled, and has been answered.
    pub async fn accept(&mut self) -> Result<Connection> {
        let Connection {
            mut stream,
            mut early,
        } = match self.ready.take() {
            Some(ready) => ready,
            None => Connection {
                stream: self.channel.connect().await?,
                early: Vec::new(),
            },
        };
        loop {
            if let Some(early) = greet(&mut stream, std::mem::take(&mut early)).await {
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

/// Reads up to a dial line of our version and answers it. `early`: what was read already. What followed the line belongs to the session; None: the
/// stream ended.
async fn greet(stream: &mut DeviceStream, early: Vec<u8>) -> Option<Vec<u8>> {
    let mut scanner = Scanner::default();
    let mut buffer = early;
    loop {
        if buffer.is_empty() {
            buffer.resize(4096, 0);
            let count = stream.read(&mut buffer).await.unwrap_or(0);
            if count == 0 {
                return None;
            }
            buffer.truncate(count);
        }
        let mut rest = &buffer[..];
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
        buffer.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    #[tokio::test(flavor = "current_thread")]
    async fn a_stream_that_is_taken_back_is_dialled_by_what_was_read_of_it_and_what_comes() {
        let nonce = "00112233445566778899aabbccddeeff";
        let line = dial_line(nonce).expect("a line");
        for already in [0, 7, line.len()] {
            let (mut host, guest) = UnixStream::pair().expect("a socket pair");
            guest.set_nonblocking(true).expect("a flag");
            let mut listener = Listener {
                channel: Channel::Serial,
                ready: None,
            };
            listener.take_back(Connection {
                stream: DeviceStream::new(OwnedFd::from(guest)).expect("a stream"),
                early: line[..already].to_vec(),
            });
            let rest = [&line[already..], b"PRI"].concat();
            host.write_all(&rest).expect("to write");
            let mut connection = listener.accept().await.expect("a session");
            let mut answer = vec![0; "husk-accept 1 ".len() + nonce.len() + 1];
            host.read_exact(&mut answer).expect("an answer");
            assert_eq!(answer, format!("husk-accept 1 {nonce}\n").into_bytes());
            if connection.early.is_empty() {
                let mut next = [0; 3];
                connection
                    .stream
                    .read_exact(&mut next)
                    .await
                    .expect("what follows");
                connection.early = next.to_vec();
            }
            assert_eq!(connection.early, b"PRI");
        }
    }
}
