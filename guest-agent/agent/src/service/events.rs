//! The stream of an Events call.

use std::pin::Pin;

use futures_core::Stream;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::api::Event;

/// As much as a call holds back on top of the channel's own capacity.
const QUEUE: usize = 16;

/// What an Events call answers.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<Event, Status>> + Send>>;

/// Passes events on until the caller is gone. A caller that is too slow is told that it missed some, which ends the stream.
pub fn stream(mut events: Receiver<Event>) -> EventStream {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = sender.closed() => return,
            };
            let item = match event {
                Ok(event) => Ok(event),
                Err(RecvError::Lagged(count)) => Err(Status::data_loss(format!(
                    "{count} events were lost: the listener is too slow"
                ))),
                Err(RecvError::Closed) => return,
            };
            let last = item.is_err();
            if sender.send(item).await.is_err() || last {
                return;
            }
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;

    #[tokio::test(flavor = "current_thread")]
    async fn a_listener_that_is_too_slow_is_told() {
        let (sender, receiver) = tokio::sync::broadcast::channel(1);
        for _ in 0..3 {
            sender.send(Event::default()).expect("a listener");
        }
        let mut stream = stream(receiver);
        let status = stream.next().await.expect("an item").expect_err("a status");
        assert_eq!(
            status.message(),
            "2 events were lost: the listener is too slow"
        );
        assert!(stream.next().await.is_none());
    }
}
