//! A ReadOutput call: an output of a process on its way to the host.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use prost::bytes::Buf;
use tonic::Status;

use super::io::Lost;
use crate::api::{OutputPosition, ReadOutputRequest};
use crate::container::output::{Output, Piece};
use crate::container::process::Process;
use crate::error::Result;
use crate::processes;
use crate::sandbox::Sandbox;

/// The stream of the call. It ends with the output, and says so where that has ended with its process; where the host breaks it off, the output is
/// closed; where the whole session is lost, the next one may go on with it.
pub struct Reading {
    sandbox: Arc<Sandbox>,
    process: Arc<Process>,
    request: ReadOutputRequest,
    lost: Lost,
    output: Option<Output>,
    /// The end of the process, whose output has ended with it and is to end after it.
    process_end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// What a reading gives.
pub enum Part {
    Output(Piece),
    /// There is no more, because the process has ended.
    ProcessEnded,
}

impl Reading {
    /// Takes the output, which no other call may have.
    pub fn begin(
        sandbox: &Arc<Sandbox>,
        process: Arc<Process>,
        request: ReadOutputRequest,
        lost: Lost,
    ) -> Result<Self> {
        let output = process.stdio.take_output(request.output())?;
        sandbox.checkpoint.note_reading(OutputPosition {
            container_id: request.container_id.clone(),
            process_id: request.process_id.clone(),
            output: request.output,
            bytes: 0,
        });
        Ok(Reading {
            sandbox: sandbox.clone(),
            process,
            request,
            lost,
            output: Some(output),
            process_end: None,
        })
    }

    /// What the stream ends with. A process may close its output long before its end; one that is at its end has closed it because of that, and is
    /// waited for: who sees the end of file may rely on the process's own.
    fn end(&mut self) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let process = self.process.clone();
        let is_ending = process.end().is_some() || processes::is_ending(process.pid);
        is_ending.then(|| {
            Box::pin(async move {
                process.wait().await;
            }) as _
        })
    }
}

impl Stream for Reading {
    type Item = std::result::Result<Part, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.sandbox.checkpoint.holds(context) {
            return Poll::Pending;
        }
        if let Some(output) = &mut this.output {
            match ready!(Pin::new(output).poll_next(context)) {
                Some(Ok(piece)) => {
                    let count = piece.remaining() as u64;
                    this.sandbox.checkpoint.count_read(&this.request, count);
                    return Poll::Ready(Some(Ok(Part::Output(piece))));
                }
                // It is over: there is nothing left to go on with.
                Some(Err(status)) => {
                    this.output = None;
                    return Poll::Ready(Some(Err(status)));
                }
                None => {
                    this.output = None;
                    this.process_end = this.end();
                }
            }
        }
        let Some(process_end) = &mut this.process_end else {
            return Poll::Ready(None);
        };
        ready!(process_end.as_mut().poll(context));
        this.process_end = None;
        Poll::Ready(Some(Ok(Part::ProcessEnded)))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.sandbox.checkpoint.forget_reading(&self.request);
        if self.lost.is_so()
            && let Some(mut output) = self.output.take()
        {
            output.forget_passing();
            let stdio = &self.process.stdio;
            stdio.put_output_back(self.request.output(), output);
        }
    }
}
