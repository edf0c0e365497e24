//! The API of proto/agent/v1, served on one connection at a time.

mod agent;
mod answer;
mod events;
mod filling;
mod io;
mod loopback;
mod names;
mod reading;

use std::sync::Arc;

use hyper::server::conn::http2;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;

use crate::api::agent_service_server::AgentServiceServer;
use crate::channel::{Connection, PASSAGE};
use crate::console;
use crate::error::{Failure, Result};
use crate::sandbox::Sandbox;
use agent::Agent;
use io::{Lost, Session};
pub use names::Busy;

/// What one stalled stream may hold back.
const STREAM_WINDOW: u32 = 512 * 1024;
/// Many streams' worth, so that stalled ones leave room for every other call.
const CONNECTION_WINDOW: u32 = 32 * STREAM_WINDOW;
/// Bulk output in few frames.
const FRAME: u32 = 256 * 1024;
/// What is queued for one stream on its way out.
const SEND_BUFFER: usize = PASSAGE;
/// A spec's environment may be large; standard input comes in messages of at most 1 MiB.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
const MAX_STREAMS: u32 = 4096;

/// Serves a session until its stream ends. The state outlives it.
pub async fn serve(connection: &mut Connection, sandbox: Arc<Sandbox>) {
    let lost = Lost::default();
    let service = AgentServiceServer::new(Agent::new(sandbox.clone(), lost.clone()))
        .max_decoding_message_size(MAX_MESSAGE);
    let service = TowerToHyperService::new(service);
    let service = service_fn(move |request| {
        let response = service.call(request);
        async move { response.await.map(answer::with_body) }
    });
    let result = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(MAX_STREAMS)
        .serve_connection(
            TokioIo::new(Session::new(connection, lost, &sandbox.checkpoint)),
            service,
        )
        .await;
    if let Err(error) = result {
        console::log(format_args!("the session with the host ended: {error}"));
    }
}

/// The number of a signal, as the system knows it.
fn signal_number(signal: u32) -> Result<i32> {
    // 0 asks whether the process is there.
    i32::try_from(signal)
        .ok()
        .filter(|signal| (0..=64).contains(signal))
        .ok_or_else(|| Failure::invalid(format!("signal: expected 0 to 64, got {signal}")))
}
