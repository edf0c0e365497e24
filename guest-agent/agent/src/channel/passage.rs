//! Bytes on their way from a process's pipe to the channel that never are in the agent's memory: the kernel hands their pages on, to the port's device in
//! the end. Where the processor is emulated, the agent's own copies and what goes with them took most of the time that bulk output took.
//!
//! Where those pages are a file's in the guest's cache and nobody has them mapped (what sendfile(2) and splice(2) put into a pipe), the device's driver takes them
//! out of it: whoever reads the file again has it read again.
//!
//! A passage is a pipe of the agent's own, so nobody else can take from it what a frame's header has promised. In the HTTP/2 connection's buffers its bytes
//! are a slice of an address range at which there is nothing; the stream that is to write that slice finds the passage by it, and splices.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::unistd::pipe2;
use prost::bytes::Bytes;

use super::passing::Passing;

/// The most that is in a passage. Each time that the agent comes to run for it, an emulated processor has to learn its addresses and code anew: a GiB took 9.0 s of
/// the processor's time by 512 KiB at a time, and 5.5 s by 2 MiB. The pages go to the device as one list, of which QEMU takes 1024 at most
/// (hw/virtio/virtio.c, VIRTQUEUE_MAX_SIZE).
pub const CAPACITY: usize = 2 * 1024 * 1024;

/// As much as a pipe may hold by whomever it was made (/proc/sys/fs/pipe-max-size).
const EVERYBODYS: usize = 1024 * 1024;

/// Where the ranges of those that there are begin.
static ALL: Mutex<BTreeMap<usize, Weak<Passage>>> = Mutex::new(BTreeMap::new());

/// A pipe on the way to the channel.
pub struct Passage {
    pipe: Pipe,
    /// From here bytes go to the channel where not all that are in the pipe are to: the driver of virtio-serial makes a list for as many pages as a pipe has, and
    /// the device reads it to its end, so what is handed on is a whole pipe or the guest's kernel goes astray (drivers/char/virtio_console.c,
    /// port_fops_splice_write, has the list's length but not its end).
    outlet: Pipe,
    /// Addresses of its own, `CAPACITY` of them, that cannot be read.
    range: NonNull<c_void>,
    state: Mutex<State>,
}

struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // Who may have no more than everybody may (the agent's tests) has that, which works as well.
        if fcntl(&writer, FcntlArg::F_SETPIPE_SZ(CAPACITY as i32)) == Err(Errno::EPERM) {
            fcntl(&writer, FcntlArg::F_SETPIPE_SZ(EVERYBODYS as i32))?;
        }
        Ok(Pipe { reader, writer })
    }
}

/// How many bytes are where.
#[derive(Default)]
struct State {
    pipe: usize,
    outlet: usize,
    /// Who waits for the pipe to be empty.
    waiting: Option<Waker>,
}

impl State {
    fn wake_if_empty(&mut self) {
        if self.pipe == 0
            && let Some(waker) = self.waiting.take()
        {
            waker.wake();
        }
    }
}

// SAFETY: the range is never read or written, so it is of no matter who has its address.
unsafe impl Send for Passage {}
// SAFETY: likewise.
unsafe impl Sync for Passage {}

impl Passage {
    /// An empty one.
    pub fn new() -> io::Result<Arc<Self>> {
        let (pipe, outlet) = (Pipe::new()?, Pipe::new()?);
        let length = NonZeroUsize::new(CAPACITY).ok_or(Errno::EINVAL)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let range = unsafe { mmap_anonymous(None, length, ProtFlags::PROT_NONE, flags) }?;
        let passage = Arc::new(Passage {
            pipe,
            outlet,
            range,
            state: Mutex::default(),
        });
        all().insert(range.addr().get(), Arc::downgrade(&passage));
        Ok(passage)
    }

    /// The one that a slice stands for.
    pub fn at(slice: &[u8]) -> Option<Arc<Passage>> {
        let address = slice.as_ptr().addr();
        let all = all();
        let (start, passage) = all.range(..=address).next_back()?;
        (address - start < CAPACITY)
            .then(|| passage.upgrade())
            .flatten()
    }

    /// Moves what is in the pipe `source` into the passage, once that is empty. EAGAIN: there is nothing in it.
    pub fn poll_fill(
        self: &Arc<Self>,
        context: &Context<'_>,
        source: &OwnedFd,
    ) -> Poll<nix::Result<Passing>> {
        let mut state = self.lock();
        if state.pipe > 0 {
            state.waiting = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(match splice_some(source, &self.pipe.writer, CAPACITY) {
            Ok(0) => Err(Errno::EAGAIN),
            Ok(count) => {
                state.pipe = count;
                Ok(Passing::new(self.clone(), count))
            }
            Err(errno) => Err(errno),
        })
    }

    /// Hands up to `count` bytes on to the channel. EIO: the kernel has lost some, or has not got them.
    pub fn send(&self, channel: &OwnedFd, count: usize) -> nix::Result<usize> {
        let mut state = self.lock();
        if state.outlet == 0 && count < state.pipe {
            state.outlet = splice_some(&self.pipe.reader, &self.outlet.writer, count)?;
            state.pipe -= state.outlet;
        }
        let (from, all) = match state.outlet {
            0 => (&self.pipe, state.pipe),
            part => (&self.outlet, part),
        };
        let sent = splice_some(&from.reader, channel, all)?;
        match state.outlet {
            0 => state.pipe -= sent,
            _ => state.outlet -= sent,
        }
        state.wake_if_empty();
        if sent == 0 {
            return Err(Errno::EIO);
        }
        Ok(sent)
    }

    /// Takes bytes out that are in it.
    pub(super) fn take(&self, count: usize) -> Bytes {
        let mut bytes = vec![0; count];
        let mut filled = 0;
        while filled < count {
            match nix::unistd::read(&self.pipe.reader, &mut bytes[filled..]) {
                Ok(more @ 1..) => filled += more,
                Err(Errno::EINTR) => {}
                other => panic!("a passage that holds {count} bytes gave {filled}, and {other:?}"),
            }
        }
        let mut state = self.lock();
        state.pipe -= count;
        state.wake_if_empty();
        bytes.into()
    }

    /// What stands for so many bytes of it. Nobody may read it.
    pub(super) fn stand_in(&self, count: usize) -> &[u8] {
        assert!(count <= CAPACITY, "a passage cannot hold that much");
        // SAFETY: there are that many addresses, the passage's for as long as it lives. Whoever reads them is ended by the kernel: only a stream that knows of
        // passages is given them (`DeviceStream`), since only it says that it takes several slices at once.
        unsafe { std::slice::from_raw_parts(self.range.cast::<u8>().as_ptr(), count) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        all().remove(&self.range.addr().get());
        // SAFETY: mapped by `new`; its slices are borrowed from the passage.
        let unmapped = unsafe { munmap(self.range, CAPACITY) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}

fn all() -> MutexGuard<'static, BTreeMap<usize, Weak<Passage>>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn splice_some(from: &OwnedFd, to: &OwnedFd, count: usize) -> nix::Result<usize> {
    loop {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        match splice(from.as_fd(), None, to.as_fd(), None, count, flags) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::passing::AT_HAND;
    use super::*;
    use std::io::{IoSlice, Read, Write};
    use std::task::Wake;

    use prost::bytes::Buf;

    /// Of the other pipes.
    const ROOM: usize = EVERYBODYS;

    struct Flag(std::sync::atomic::AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn pipe_with(bytes: &[u8]) -> (OwnedFd, std::fs::File) {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("a pipe");
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(ROOM as i32)).expect("room");
        let mut writer = std::fs::File::from(writer);
        writer.write_all(bytes).expect("to write");
        (reader, writer)
    }

    fn sample(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    fn fill(passage: &Arc<Passage>, source: &OwnedFd) -> Poll<nix::Result<Passing>> {
        passage.poll_fill(&Context::from_waker(Waker::noop()), source)
    }

    fn filled(passage: &Arc<Passage>, source: &OwnedFd) -> Passing {
        match fill(passage, source) {
            Poll::Ready(Ok(passing)) => passing,
            _ => panic!("nothing was moved"),
        }
    }

    #[test]
    fn gives_its_bytes_to_whoever_asks_for_them() {
        let all = sample(3 * AT_HAND + 7);
        let (source, _writer) = pipe_with(&all);
        let mut passing = filled(&Passage::new().expect("a passage"), &source);
        assert_eq!(passing.copy_to_bytes(all.len()), all);
        assert_eq!((passing.remaining(), passing.chunk()), (0, &[][..]));
    }

    #[test]
    fn hands_on_what_was_not_asked_for() {
        let all = sample(100_000);
        let (source, _writer) = pipe_with(&all);
        let passage = Passage::new().expect("a passage");
        let mut passing = filled(&passage, &source);
        let (sink, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("a pipe");
        let mut sink = std::fs::File::from(sink);
        let mut received = passing.chunk()[..10].to_vec();
        passing.advance(10);
        while passing.has_remaining() {
            let mut slices = [IoSlice::new(&[]); 4];
            let count = passing.chunks_vectored(&mut slices);
            let slice = slices[0];
            let written = match Passage::at(&slice) {
                Some(found) => {
                    assert!(Arc::ptr_eq(&found, &passage));
                    let sent = found.send(&writer, slice.len()).expect("to be sent");
                    let mut bytes = vec![0; sent];
                    sink.read_exact(&mut bytes).expect("what was sent");
                    received.append(&mut bytes);
                    sent
                }
                None => {
                    assert_eq!((count, slice.len()), (2, AT_HAND - 10));
                    received.extend_from_slice(&slice);
                    slice.len()
                }
            };
            passing.advance(written);
        }
        assert!(received == all);
    }

    #[test]
    fn has_whoever_fills_it_wait_until_it_is_empty() {
        let (source, mut writer) = pipe_with(&sample(ROOM));
        let passage = Passage::new().expect("a passage");
        let mut first = filled(&passage, &source);
        assert_eq!(first.remaining(), ROOM);
        writer.write_all(&sample(10)).expect("to write");
        let flag = Arc::new(Flag(false.into()));
        let waker = Waker::from(flag.clone());
        let fill_again = || passage.poll_fill(&Context::from_waker(&waker), &source);
        let is_woken = || flag.0.load(std::sync::atomic::Ordering::Relaxed);
        assert!(fill_again().is_pending());
        first.copy_to_bytes(ROOM - AT_HAND - 1);
        assert!(fill_again().is_pending() && !is_woken());
        first.copy_to_bytes(AT_HAND + 1);
        assert!(is_woken());
        match fill_again() {
            Poll::Ready(Ok(rest)) => assert_eq!(rest.remaining(), 10),
            _ => panic!("it is not empty"),
        }
    }

    #[test]
    fn hands_on_a_part_that_is_whole_pages_or_not() {
        for part in [1, 4096, 10_000, 50_000] {
            let all = sample(100_000);
            let (source, _writer) = pipe_with(&all);
            let passage = Passage::new().expect("a passage");
            let _passing = filled(&passage, &source);
            let (sink, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("a pipe");
            fcntl(&writer, FcntlArg::F_SETPIPE_SZ(ROOM as i32)).expect("room");
            assert_eq!(passage.send(&writer, part), Ok(part));
            assert_eq!(
                passage.send(&writer, all.len() - part),
                Ok(all.len() - part)
            );
            let mut received = vec![0; all.len()];
            std::fs::File::from(sink)
                .read_exact(&mut received)
                .expect("what was sent");
            assert!(received == all);
        }
    }

    #[test]
    fn keeps_a_part_for_which_there_is_no_room_now() {
        let all = sample(100_000);
        let (source, _writer) = pipe_with(&all);
        let passage = Passage::new().expect("a passage");
        let _passing = filled(&passage, &source);
        let (sink, writer) = pipe_with(&sample(ROOM));
        let writer = OwnedFd::from(writer);
        assert_eq!(passage.send(&writer, 10_000), Err(Errno::EAGAIN));
        let mut sink = std::fs::File::from(sink);
        sink.read_exact(&mut vec![0; ROOM]).expect("room");
        assert_eq!(passage.send(&writer, 10_000), Ok(10_000));
        assert_eq!(passage.send(&writer, 90_000), Ok(90_000));
        let mut received = vec![0; all.len()];
        sink.read_exact(&mut received).expect("what was sent");
        assert!(received == all);
    }

    #[test]
    fn has_nothing_of_a_pipe_that_somebody_else_has_emptied() {
        let (source, _writer) = pipe_with(b"");
        let passage = Passage::new().expect("a passage");
        assert!(matches!(
            fill(&passage, &source),
            Poll::Ready(Err(Errno::EAGAIN))
        ));
    }

    #[test]
    fn is_found_by_its_own_addresses_only() {
        let (one, other) = (
            Passage::new().expect("a passage"),
            Passage::new().expect("a passage"),
        );
        let start = |passage: &Passage| passage.range.addr().get();
        assert!(start(&one).abs_diff(start(&other)) >= CAPACITY);
        assert!(Passage::at(b"bytes").is_none());
        let address = start(&one);
        drop(one);
        assert!(!all().contains_key(&address));
    }
}
