//! A ConnectLoopback call: a connection from the host to a program of the guest that listens on the guest's loopback addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use prost::bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::api::{ConnectLoopbackRequest, ConnectLoopbackResponse};
use crate::error::{Context, Failure};

/// The most bytes of one message.
const CHUNK: usize = 64 * 1024;
/// As much as a call holds back on top of the channel's own capacity.
const QUEUE: usize = 2;

type Answers = mpsc::Sender<Result<ConnectLoopbackResponse, Status>>;

/// Connects, and carries bytes until both directions have ended, or the call is broken off.
pub async fn connect(
    mut requests: Streaming<ConnectLoopbackRequest>,
) -> Result<ReceiverStream<Result<ConnectLoopbackResponse, Status>>, Status> {
    let Some(first) = requests.message().await? else {
        return Err(Failure::invalid("expected a first message that names the port").into());
    };
    let port = u16::try_from(first.port)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| {
            Failure::invalid(format!("port: expected 1 to 65535, got {}", first.port))
        })?;
    let stream = dial(port, first.ipv6)
        .await
        .context(|| format!("connect to port {port} of localhost"))?;
    let (reader, writer) = stream.into_split();
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        // A connection that is broken shows to its two ends as such; nobody else is to be told.
        let _ = tokio::join!(send(reader, &sender), receive(first.data, requests, writer));
    });
    Ok(ReceiverStream::new(receiver))
}

/// The address that is asked for, or else the other one: a program may listen on one of them only.
async fn dial(port: u16, ipv6_first: bool) -> io::Result<TcpStream> {
    let mut addresses = [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ];
    if ipv6_first {
        addresses.reverse();
    }
    match TcpStream::connect((addresses[0], port)).await {
        Ok(stream) => Ok(stream),
        Err(error) => TcpStream::connect((addresses[1], port))
            .await
            .map_err(|_| error),
    }
}

async fn send(mut reader: OwnedReadHalf, answers: &Answers) {
    loop {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        let read = tokio::select! {
            read = reader.read_buf(&mut buffer) => read,
            () = answers.closed() => return,
        };
        let item = match read {
            Ok(length) => Ok(ConnectLoopbackResponse {
                data: buffer.freeze(),
                end: length == 0,
            }),
            Err(error) => Err(Status::aborted(error.to_string())),
        };
        let last = !matches!(&item, Ok(message) if !message.end);
        if answers.send(item).await.is_err() || last {
            return;
        }
    }
}

async fn receive(
    first: Bytes,
    mut requests: Streaming<ConnectLoopbackRequest>,
    mut writer: OwnedWriteHalf,
) -> io::Result<()> {
    writer.write_all(&first).await?;
    while let Some(request) = requests.message().await.map_err(io::Error::other)? {
        writer.write_all(&request.data).await?;
    }
    writer.shutdown().await
}
