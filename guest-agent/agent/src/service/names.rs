//! A ResolveNames call: the guest's programs ask 127.0.0.11 port 53, and the host answers. Port 53 itself stays free, for a program that
//! is a name server: rules of nf_tables lead to ports of ours, as on the host Docker's do.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use husk_redirect::{Protocol, Redirection, Rule};
use prost::bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::api::{NameAnswer, NameQuery};
use crate::console;
use crate::error::{Class, Context, Failure};

/// Where resolv.conf says that the name server is.
const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const PORT: u16 = 53;
const TABLE: &str = "husk-names";
/// The longest message of the protocol.
const LONGEST: usize = 65535;
/// Questions without an answer yet; further ones are lost, as by any server that is overrun.
const MOST_QUESTIONS: usize = 128;
const MOST_CONNECTIONS: usize = 64;
const QUEUE: usize = 32;
/// The host gives up earlier.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a connection may say nothing.
const IDLE: Duration = Duration::from_secs(30);

/// Held by the one call.
pub type Busy = Arc<AsyncMutex<()>>;
type Answers = ReceiverStream<Result<NameQuery, Status>>;

/// Questions that were passed on.
struct Asked {
    queries: mpsc::Sender<Result<NameQuery, Status>>,
    waiting: Mutex<Waiting>,
    places: Semaphore,
}

#[derive(Default)]
struct Waiting {
    last: u32,
    answers: HashMap<u32, oneshot::Sender<Bytes>>,
}

/// Has the guest's programs answered from now on, until the call ends.
pub async fn serve(busy: &Busy, answers: Streaming<NameAnswer>) -> Result<Answers, Status> {
    let Ok(turn) = busy.clone().try_lock_owned() else {
        return Err(Failure::new(Class::WrongState, "the guest has its name server").into());
    };
    let what = || "listen for questions to the name server".to_owned();
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context(what)?;
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context(what)?;
    let rule = |protocol: Protocol, own: SocketAddr| Rule {
        address: SERVER.into(),
        protocol,
        port: Some(PORT),
        to: own.port(),
    };
    let rules = [
        rule(Protocol::Udp, udp.local_addr().context(what)?),
        rule(Protocol::Tcp, tcp.local_addr().context(what)?),
    ];
    let redirection =
        Redirection::begin(TABLE, &rules).context(|| format!("redirect questions to {SERVER}"))?;
    let (queries, receiver) = mpsc::channel(QUEUE);
    let ended = queries.clone();
    let asked = Arc::new(Asked {
        queries,
        waiting: Mutex::default(),
        places: Semaphore::new(MOST_QUESTIONS),
    });
    tokio::spawn(async move {
        let _held = (turn, redirection);
        tokio::select! {
            () = take_answers(&asked, answers) => {}
            () = ended.closed() => {}
            error = serve_datagrams(&asked, Arc::new(udp)) => complain(&error),
            error = serve_connections(&asked, tcp) => complain(&error),
        }
    });
    Ok(ReceiverStream::new(receiver))
}

fn complain(error: &io::Error) {
    console::log(format_args!("the guest has lost its name server: {error}"));
}

async fn take_answers(asked: &Asked, mut answers: Streaming<NameAnswer>) {
    while let Ok(Some(answer)) = answers.message().await {
        if let Some(waiting) = asked.lock().answers.remove(&answer.id) {
            // Whoever asked may have gone.
            let _ = waiting.send(answer.message);
        }
    }
}

async fn serve_datagrams(asked: &Arc<Asked>, socket: Arc<UdpSocket>) -> io::Error {
    let mut questions = JoinSet::new();
    let mut buffer = vec![0; LONGEST];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An answer of before met nobody.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return error,
        };
        while questions.try_join_next().is_some() {}
        if questions.len() >= MOST_QUESTIONS {
            continue;
        }
        let message = Bytes::copy_from_slice(&buffer[..length]);
        let (asked, socket) = (asked.clone(), socket.clone());
        questions.spawn(async move {
            if let Some(answer) = asked.ask(message, false).await {
                // A client that is gone asks again, if it wants to know.
                let _ = socket.send_to(&answer, client).await;
            }
        });
    }
}

async fn serve_connections(asked: &Arc<Asked>, listener: TcpListener) -> io::Error {
    let mut connections = JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return error,
        };
        while connections.try_join_next().is_some() {}
        if connections.len() < MOST_CONNECTIONS {
            connections.spawn(serve_connection(asked.clone(), stream));
        }
    }
}

/// Each message has its length before it (RFC 1035, 4.2.2). A client that does not keep to that is hung up on.
async fn serve_connection(asked: Arc<Asked>, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let length = timeout(IDLE, stream.read_u16()).await??;
        let mut message = vec![0; usize::from(length)];
        timeout(IDLE, stream.read_exact(&mut message)).await??;
        let Some(answer) = asked.ask(message.into(), true).await else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        timeout(
            IDLE,
            stream.write_all(&[&length.to_be_bytes(), &answer[..]].concat()),
        )
        .await??;
    }
}

impl Asked {
    /// The host's answer, where there is one.
    async fn ask(&self, message: Bytes, tcp: bool) -> Option<Bytes> {
        let _place = self.places.acquire().await.ok()?;
        let (sender, receiver) = oneshot::channel();
        let id = {
            let mut waiting = self.lock();
            waiting.last = waiting.last.wrapping_add(1);
            let id = waiting.last;
            waiting.answers.insert(id, sender);
            id
        };
        let query = NameQuery { id, message, tcp };
        let answer = async {
            self.queries.send(Ok(query)).await.ok()?;
            receiver.await.ok()
        };
        let answer = timeout(PATIENCE, answer).await;
        self.lock().answers.remove(&id);
        answer.ok().flatten().filter(|answer| !answer.is_empty())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
