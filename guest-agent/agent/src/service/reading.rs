//! A ReadOutput call: an output of a process on its way to the host.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tonic::Status;

use super::io::Lost;
use crate::api::{OutputPosition, ReadOutputRequest, ReadOutputResponse};
use crate::container::output::Output;
use crate::container::process::Process;
use crate::error::Result;
use crate::sandbox::Sandbox;

/// The stream of the call. It ends with the output; where the host breaks it off, the output is closed; where the whole session is lost, the
/// next one may go on with it.
pub struct Reading {
    sandbox: Arc<Sandbox>,
    process: Arc<Process>,
    request: ReadOutputRequest,
    lost: Lost,
    output: Option<Output>,
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
        })
    }
}

impl Stream for Reading {
    type Item = std::result::Result<ReadOutputResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.sandbox.checkpoint.holds(context) {
            return Poll::Pending;
        }
        let Some(output) = &mut this.output else {
            return Poll::Ready(None);
        };
        let item = ready!(Pin::new(output).poll_next(context));
        match &item {
            Some(Ok(response)) => {
                let count = response.data.len() as u64;
                this.sandbox.checkpoint.count_read(&this.request, count);
            }
            // It is over: there is nothing left to go on with.
            Some(Err(_)) | None => this.output = None,
        }
        Poll::Ready(item)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.sandbox.checkpoint.forget_reading(&self.request);
        if self.lost.is_so()
            && let Some(output) = self.output.take()
        {
            let stdio = &self.process.stdio;
            stdio.put_output_back(self.request.output(), output);
        }
    }
}
