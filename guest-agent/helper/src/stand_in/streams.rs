//! The standard streams that a stand-in carries.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Result;
use nix::poll::PollFlags;

use super::messages::Stream;
use crate::descriptors;
use crate::pump::Pump;

pub struct Streams {
    carried: Vec<(Stream, Pump)>,
    null: OwnedFd,
    /// Standard error stays open for messages of husk's own.
    keeps_stderr: bool,
}

impl Streams {
    pub fn new(null: OwnedFd, keeps_stderr: bool) -> Streams {
        Streams { carried: Vec::new(), null, keeps_stderr }
    }

    pub fn carry(&mut self, stream: Stream, pump: Pump) {
        self.carried.push((stream, pump));
    }

    /// Gives up the inherited streams that are not carried: whoever has the other end shall not wait for this process.
    pub fn give_up_others(&self) -> Result<()> {
        [Stream::Stdin, Stream::Stdout, Stream::Stderr]
            .into_iter()
            .filter(|stream| self.carried.iter().all(|(carried, _)| carried != stream))
            .try_for_each(|stream| self.give_up(stream))
    }

    /// Gives up all inherited streams: there is a terminal in their place.
    pub fn give_up_all(&self) -> Result<()> {
        (0..3).try_for_each(|number| descriptors::place(self.null.as_fd(), number))
    }

    fn give_up(&self, stream: Stream) -> Result<()> {
        if stream == Stream::Stderr && self.keeps_stderr {
            return Ok(());
        }
        descriptors::place(self.null.as_fd(), stream.number())
    }

    pub fn interests(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        self.carried.iter().flat_map(|(_, pump)| pump.interests())
    }

    /// Moves what can be moved; `events` are in the order of `interests`.
    pub fn advance(&mut self, mut events: &[PollFlags]) -> Result<()> {
        self.keep_those(|_, pump| {
            let (own, rest) = events.split_at(pump.interest_count().min(events.len()));
            events = rest;
            pump.advance(own)
        })
    }

    /// Writes what has arrived, as far as it is taken at once.
    pub fn flush(&mut self) -> Result<()> {
        self.keep_those(|stream, pump| stream == Stream::Stdin || pump.flush())
    }

    /// The process no longer reads.
    pub fn drop_input(&mut self) {
        self.carried.retain(|(stream, _)| *stream != Stream::Stdin);
    }

    pub fn outputs_are_done(&self) -> bool {
        self.carried.iter().all(|(stream, _)| *stream == Stream::Stdin)
    }

    fn keep_those(&mut self, mut goes_on: impl FnMut(Stream, &mut Pump) -> bool) -> Result<()> {
        let mut ended = Vec::new();
        self.carried.retain_mut(|(stream, pump)| {
            let goes_on = goes_on(*stream, pump);
            if !goes_on {
                ended.push(*stream);
            }
            goes_on
        });
        ended.into_iter().try_for_each(|stream| self.give_up(stream))
    }
}
