//! A WriteStdin call: what the host sends on its way to a process's standard input.

use tonic::{Status, Streaming};

use crate::api::WriteStdinRequest;
use crate::container::process::Process;
use crate::container::stdin::{Sink, Written};

/// Writes what comes to the process's standard input, until the end of file, or until nobody reads.
pub async fn fill(
    process: &Process,
    sink: &Sink,
    first: WriteStdinRequest,
    messages: &mut Streaming<WriteStdinRequest>,
) -> std::result::Result<(), Status> {
    let copy = async {
        let mut message = Some(first);
        while let Some(request) = message {
            if sink.write_all(&request.data).await? == Written::Closed {
                break;
            }
            message = messages.message().await?;
        }
        Ok(())
    };
    tokio::select! {
        result = copy => result,
        result = sink.closed() => Ok(result?),
        // A terminal is never closed while we hold it, so its process's end is the sign.
        _ = process.wait(), if sink.is_terminal() => Ok(()),
    }
}
