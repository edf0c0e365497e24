//! What is in a passage, as a buffer of the HTTP/2 connection.

use std::cell::OnceCell;
use std::io::IoSlice;
use std::sync::Arc;

use prost::bytes::{Buf, Bytes};

use super::passage::Passage;

/// As much is taken out of a passage where the connection wants to have bytes at hand: it has them next to a frame's header, 256 together.
pub(super) const AT_HAND: usize = 256;

/// All bytes that are in a passage.
pub struct Passing {
    passage: Arc<Passage>,
    /// How many of them have not left.
    left: usize,
    /// The first of those, where they were asked for.
    at_hand: OnceCell<Bytes>,
}

impl Passing {
    /// All that was moved into a passage that was empty.
    pub(super) fn new(passage: Arc<Passage>, left: usize) -> Self {
        Passing {
            passage,
            left,
            at_hand: OnceCell::new(),
        }
    }
}

impl Buf for Passing {
    fn remaining(&self) -> usize {
        self.left
    }

    /// Some of the bytes as they are. Takes them out of the passage.
    fn chunk(&self) -> &[u8] {
        match self.left {
            0 => &[],
            left => self
                .at_hand
                .get_or_init(|| self.passage.take(left.min(AT_HAND))),
        }
    }

    /// Those that were taken out, and what stands for all others.
    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let at_hand = self.at_hand.get().map_or(&[][..], |bytes| bytes);
        let away = self.passage.stand_in(self.left - at_hand.len());
        let parts = [at_hand, away].into_iter().filter(|part| !part.is_empty());
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
            count += 1;
        }
        count
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.left, "more has left a passage than was in it");
        if let Some(mut bytes) = self.at_hand.take() {
            bytes.advance(count.min(bytes.len()));
            if !bytes.is_empty() {
                self.at_hand = OnceCell::from(bytes);
            }
        }
        self.left -= count;
    }
}
