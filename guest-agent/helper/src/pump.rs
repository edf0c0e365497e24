//! Moves the bytes of one stream, without ever waiting for either side.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};
use nix::poll::PollFlags;

use crate::endpoint::{Endpoint, is_for_now};

/// How much is moved by one call, in bytes.
const BLOCK: usize = 128 << 10;

/// How many calls are made before other streams and signals have their turn.
const CALLS_IN_A_ROW: usize = 32;

pub struct Pump {
    from: Endpoint,
    to: Endpoint,
    /// Which side has to be ready before more can be done.
    waiting: Side,
    /// The kernel can move the bytes by itself: one of the sides is a pipe.
    spliced: bool,
    buffer: Vec<u8>,
    /// The part of the buffer that is still to be written.
    unwritten: Range<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    From,
    To,
}

impl Side {
    fn other(self) -> Side {
        if self == Side::From { Side::To } else { Side::From }
    }
}

enum Step {
    Moved,
    Wait(Side),
    /// The end of the file, or of the interest in it.
    End,
}

impl Pump {
    pub fn new(from: Endpoint, to: Endpoint) -> Pump {
        let spliced = from.is_pipe() || to.is_pipe();
        Pump { from, to, waiting: Side::From, spliced, buffer: Vec::new(), unwritten: 0..0 }
    }

    /// What to wait for. The side that is written to is always watched for the end of all interest; the one that is read from
    /// is not while it has to wait, since its end of file may show long before it is its turn.
    pub fn interests(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let wait = |side: Side, events: PollFlags| if self.waiting == side { events } else { PollFlags::empty() };
        let from = (self.waiting == Side::From).then(|| (self.from.as_fd(), PollFlags::POLLIN));
        [Some((self.to.as_fd(), wait(Side::To, PollFlags::POLLOUT))), from].into_iter().flatten()
    }

    /// How many descriptors `interests` names.
    pub fn interest_count(&self) -> usize {
        if self.waiting == Side::From { 2 } else { 1 }
    }

    /// Does what can be done after poll; `events` are in the order of `interests`. Answers false at the end of the stream.
    pub fn advance(&mut self, events: &[PollFlags]) -> bool {
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        if events.first().is_some_and(|events| events.intersects(gone)) {
            return false;
        }
        if events.iter().all(|events| events.is_empty()) {
            return true;
        }
        self.work(CALLS_IN_A_ROW)
    }

    /// Moves what can be moved at once. Answers false at the end of the stream.
    pub fn flush(&mut self) -> bool {
        // A side that can make us wait is not written to without poll's word.
        self.to.must_poll() || self.work(usize::MAX)
    }

    /// Moves what can be moved by so many calls. Answers false at the end of the stream.
    fn work(&mut self, calls: usize) -> bool {
        for _ in 0..calls {
            match if self.spliced { self.splice() } else { self.copy() } {
                Step::Moved => {}
                Step::Wait(side) => {
                    self.waiting = side;
                    return true;
                }
                Step::End => return false,
            }
        }
        true
    }

    fn splice(&mut self) -> Step {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        match splice(&self.from, None, &self.to, None, BLOCK, flags) {
            Ok(0) => Step::End,
            Ok(_) => Step::Moved,
            // The kernel does not say which of the two sides was not ready. If it is not the one, it is the other.
            Err(error) if is_for_now(error) => Step::Wait(self.waiting.other()),
            // Not every file can be spliced: one opened for appending cannot, nor can a terminal.
            Err(Errno::EINVAL) => {
                self.spliced = false;
                Step::Wait(Side::From)
            }
            Err(_) => Step::End,
        }
    }

    fn copy(&mut self) -> Step {
        if self.unwritten.is_empty() {
            self.buffer.resize(BLOCK, 0);
            match self.from.read(&mut self.buffer) {
                Ok(0) => return Step::End,
                Ok(length) => self.unwritten = 0..length,
                Err(error) if is_for_now(error) => return Step::Wait(Side::From),
                Err(_) => return Step::End,
            }
            if self.to.must_poll() {
                return Step::Wait(Side::To);
            }
        }
        match self.to.write(&self.buffer[self.unwritten.clone()]) {
            Ok(length) => self.unwritten.start += length,
            Err(error) if is_for_now(error) => return Step::Wait(Side::To),
            Err(_) => return Step::End,
        }
        if !self.unwritten.is_empty() {
            return if self.to.must_poll() { Step::Wait(Side::To) } else { Step::Moved };
        }
        if self.from.must_poll() { Step::Wait(Side::From) } else { Step::Moved }
    }
}
