//! The bodies of answers. Those of bulk output are made here and not by tonic, which would put each message together in one buffer: bytes that pass
//! unread have none.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use hyper::body::{Body, Buf, Frame, SizeHint};
use hyper::header::HeaderMap;
use hyper::{Response, http};
use prost::Message;
use prost::bytes::buf::Chain;
use prost::bytes::{BufMut, Bytes, BytesMut};
use tonic::Status;

use super::reading::{Part, Reading};
use crate::api::ReadOutputResponse;
use crate::container::output::Piece;

/// What comes before a message: whether it is compressed, and its length in four bytes.
/// https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md ("Length-Prefixed-Message")
const PREFIX: usize = 5;
/// A tag, and a length of at most 32 bits. https://protobuf.dev/programming-guides/encoding/
const FIELD_HEAD: usize = 1 + 5;

/// A part of a body: what was made of it here, and what comes from elsewhere.
pub type Data = Chain<Bytes, Piece>;

/// An answer's body: tonic's, or an output.
pub enum Answer<R = Reading> {
    Messages(tonic::body::Body),
    /// None: it has ended, and has said how.
    Output(Option<R>),
}

/// How a reading gets from the method to the answer's body: in the answer's extensions, which are to be shared.
#[derive(Clone)]
pub struct Handed(Arc<Mutex<Option<Reading>>>);

impl Handed {
    /// Hands a reading on.
    pub fn of(reading: Reading) -> Self {
        Handed(Arc::new(Mutex::new(Some(reading))))
    }
}

/// Puts the reading that is handed on with tonic's answer into the place of its body, if there is one.
pub fn with_body(mut response: Response<tonic::body::Body>) -> Response<Answer> {
    let handed: Option<Handed> = response.extensions_mut().remove();
    let reading =
        handed.and_then(|Handed(cell)| cell.lock().unwrap_or_else(PoisonError::into_inner).take());
    response.map(|body| match reading {
        Some(reading) => Answer::Output(Some(reading)),
        None => Answer::Messages(body),
    })
}

impl<R: Stream<Item = Result<Part, Status>> + Unpin> Body for Answer<R> {
    type Data = Data;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Data>, Status>>> {
        let slot = match self.get_mut() {
            Answer::Messages(body) => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                let plain = |bytes: Bytes| bytes.chain(Piece::Read(Bytes::new()));
                return Poll::Ready(frame.map(|result| result.map(|frame| frame.map_data(plain))));
            }
            Answer::Output(slot) => slot,
        };
        let Some(reading) = slot else {
            return Poll::Ready(None);
        };
        let end = match ready!(Pin::new(reading).poll_next(context)) {
            Some(Ok(part)) => return Poll::Ready(Some(Ok(Frame::data(message_of(part))))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        *slot = None;
        Poll::Ready(Some(trailers(&end).map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Messages(body) => body.is_end_stream(),
            Answer::Output(reading) => reading.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Messages(body) => body.size_hint(),
            Answer::Output(_) => SizeHint::default(),
        }
    }
}

fn trailers(status: &Status) -> Result<http::HeaderMap, Status> {
    let mut headers = HeaderMap::new();
    status.add_header(&mut headers)?;
    Ok(headers)
}

/// A ReadOutputResponse with that in it, as gRPC carries it.
fn message_of(part: Part) -> Data {
    let (fields, data) = match part {
        // Field 1, of bytes: its tag, its length, and the bytes.
        Part::Output(data) => {
            let mut fields = BytesMut::with_capacity(FIELD_HEAD);
            fields.put_u8((1 << 3) | 2);
            prost::encoding::encode_varint(data.remaining() as u64, &mut fields);
            (fields.freeze(), data)
        }
        Part::ProcessEnded => {
            let message = ReadOutputResponse {
                process_ended: true,
                ..ReadOutputResponse::default()
            };
            (message.encode_to_vec().into(), Piece::Read(Bytes::new()))
        }
    };
    let mut head = BytesMut::with_capacity(PREFIX + fields.len());
    head.put_u8(0);
    head.put_u32((fields.len() + data.remaining()) as u32);
    head.put(fields);
    head.freeze().chain(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    use hyper::body::Incoming;
    use hyper::server::conn::http2;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use tokio::io::Interest;

    use crate::channel::{DeviceStream, PASSAGE};
    use crate::container::output::Output;
    use crate::watch::watch;

    /// The message in what goes over the wire.
    fn read(part: Part) -> ReadOutputResponse {
        let mut data = message_of(part);
        assert_eq!(data.get_u8(), 0);
        assert_eq!(data.get_u32() as usize, data.remaining());
        ReadOutputResponse::decode(data).expect("a message")
    }

    #[test]
    fn output_is_a_message_of_the_protocol() {
        for length in [1, 127, 128, 16_384, 524_288] {
            let data = Bytes::from(vec![7; length]);
            let message = read(Part::Output(Piece::Read(data.clone())));
            assert_eq!(
                message,
                ReadOutputResponse {
                    data,
                    process_ended: false
                }
            );
        }
    }

    #[test]
    fn the_last_word_is_a_message_of_the_protocol() {
        let expected = ReadOutputResponse {
            process_ended: true,
            ..ReadOutputResponse::default()
        };
        assert_eq!(read(Part::ProcessEnded), expected);
    }

    #[test]
    fn the_end_says_how_it_came() {
        let headers = trailers(&Status::ok("")).expect("headers");
        assert_eq!(headers["grpc-status"], "0");
        let headers = trailers(&Status::internal("read the output: no")).expect("headers");
        assert_eq!(
            (&headers["grpc-status"], &headers["grpc-message"]),
            (
                &"13".parse().expect("a value"),
                &"read%20the%20output:%20no".parse().expect("a value")
            )
        );
    }

    /// An output as the stream of a body, without its process.
    struct Alone(Output);

    impl Stream for Alone {
        type Item = Result<Part, Status>;

        fn poll_next(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Self::Item>> {
            let item = ready!(Pin::new(&mut self.0).poll_next(context));
            Poll::Ready(item.map(|result| result.map(Part::Output)))
        }
    }

    /// Writes all bytes to the pipe at whose other end the output is, in a thread of its own.
    fn output_of(bytes: Vec<u8>) -> Output {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a flag");
        std::thread::spawn(move || File::from(writer).write_all(&bytes).expect("a reader"));
        let reader = watch(reader, Interest::READABLE).expect("a watched pipe");
        Output::pipe(reader, 256 * 1024)
    }

    fn sample(salt: usize, length: usize) -> Vec<u8> {
        (0..length).map(|at| ((at + salt) % 251) as u8).collect()
    }

    /// The bytes in messages of output.
    fn unpacked(mut body: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        while body.has_remaining() {
            assert_eq!(body.get_u8(), 0);
            let length = body.get_u32() as usize;
            let message = ReadOutputResponse::decode(&body[..length]).expect("a message");
            all.extend_from_slice(&message.data);
            body.advance(length);
        }
        all
    }

    #[tokio::test(flavor = "current_thread")]
    async fn bulk_output_is_whole_on_every_stream() {
        carry(1 << 20, 600_000).await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn bulk_output_is_whole_where_windows_and_frames_cut_it_anywhere() {
        carry(70_001, 16_385).await;
        carry(1_000, 16_384).await;
    }

    /// Carries three outputs at once to a host with that window for each, and that size of frames.
    async fn carry(window: u32, frame: u32) {
        let length = 3_000_000;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let (host, guest) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, flags).expect("a socket pair");
        let guest = TokioIo::new(DeviceStream::new(guest).expect("a stream"));
        let host = DeviceStream::new(host).expect("a stream");
        let service = service_fn(move |request: http::Request<Incoming>| async move {
            let salt = request.uri().path()[1..].parse().expect("a number");
            let output = Alone(output_of(sample(salt, length)));
            Ok::<_, Status>(Response::new(Answer::Output(Some(output))))
        });
        tokio::spawn(
            http2::Builder::new(TokioExecutor::new())
                .max_send_buf_size(PASSAGE)
                .serve_connection(guest, service),
        );
        let (client, connection) = h2::client::Builder::new()
            .initial_window_size(window)
            .initial_connection_window_size(16 << 20)
            .max_frame_size(frame)
            .handshake::<_, Bytes>(host)
            .await
            .expect("a connection");
        tokio::spawn(connection);
        let mut client = client.ready().await.expect("readiness");
        let answers = [1, 2, 3].map(|salt| {
            let uri = format!("http://guest/{salt}");
            let request = http::Request::get(uri).body(()).expect("a request");
            let (answer, _) = client.send_request(request, true).expect("a call");
            tokio::spawn(async move {
                let body = answer.await.expect("an answer").into_body();
                assert!(unpacked(&read_all(body).await) == sample(salt, length));
            })
        });
        for answer in answers {
            answer.await.expect("a whole answer");
        }
    }

    /// Reads an answer that succeeds.
    async fn read_all(mut body: h2::RecvStream) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.expect("data");
            let flow = body.flow_control();
            flow.release_capacity(data.len()).expect("room");
            all.extend_from_slice(&data);
        }
        let trailers = body.trailers().await.expect("trailers").expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
        all
    }
}
