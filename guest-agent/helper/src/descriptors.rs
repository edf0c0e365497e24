//! Descriptors: which are open, putting the right ones in the right places before a program is executed, and waiting for some.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;

/// One more than the highest descriptor number that a plan may name.
pub const LIMIT: RawFd = 1024;

/// The numbers of all descriptors from `first` to the limit that are open now.
pub fn open_numbers(first: RawFd) -> BTreeSet<RawFd> {
    // SAFETY: F_GETFD on any number is harmless.
    (first..LIMIT).filter(|&number| unsafe { libc::fcntl(number, libc::F_GETFD) } != -1).collect()
}

/// Opens /dev/null for reading and writing.
pub fn open_null() -> Result<OwnedFd> {
    open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).context("cannot open /dev/null")
}

/// Makes `number` mean what `source` means, kept over execve. What `number` meant is closed.
pub fn place(source: BorrowedFd<'_>, number: RawFd) -> Result<()> {
    if source.as_raw_fd() == number {
        return keep(number);
    }
    // SAFETY: the caller owns the number, as dup2 always assumes.
    Errno::result(unsafe { libc::dup2(source.as_raw_fd(), number) }).with_context(|| format!("cannot make descriptor {number}"))?;
    Ok(())
}

/// Keeps a descriptor open over execve.
pub fn keep(number: RawFd) -> Result<()> {
    ensure!(number >= 0, "{number} is no descriptor");
    // SAFETY: only borrowed for this call; a number that is not open is answered with EBADF.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty())).with_context(|| format!("cannot pass on descriptor {number}"))?;
    Ok(())
}

/// The same descriptor under a number of at least `least`, closed at execve.
pub fn raise(source: BorrowedFd<'_>, least: RawFd) -> Result<OwnedFd> {
    let number = fcntl(source, FcntlArg::F_DUPFD_CLOEXEC(least)).context("cannot duplicate a descriptor")?;
    // SAFETY: fcntl has just made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Marks every descriptor from `first` on to be closed at execve.
pub fn close_at_exec_from(first: RawFd) -> Result<()> {
    close_range(first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from `first` on but those kept, whoever in this process thinks to own it: for a process that has
/// just been forked, and that never returns to the code that opened them.
pub fn close_all_but(first: RawFd, kept: &[RawFd]) -> Result<()> {
    let mut next = first;
    for number in kept.iter().copied().collect::<BTreeSet<_>>().into_iter().filter(|&number| number >= first) {
        if number > next {
            close_range(next, number as libc::c_uint - 1, 0)?;
        }
        next = number + 1;
    }
    close_range(next, libc::c_uint::MAX, 0)
}

fn close_range(first: RawFd, last: libc::c_uint, flags: libc::c_uint) -> Result<()> {
    // SAFETY: only numbers are passed; see close_all_but about the owners.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    Errno::result(result).context("cannot close the inherited descriptors")?;
    Ok(())
}

/// Makes the standard streams that are named (0, 1, 2) /dev/null.
pub fn silence(numbers: &[RawFd]) -> Result<()> {
    // Out of the way of the numbers: what open answers may be one of them.
    let null = raise(open_null()?.as_fd(), numbers.iter().max().map_or(0, |highest| highest + 1))?;
    numbers.iter().try_for_each(|&number| place(null.as_fd(), number))
}

/// Moves a descriptor to `number`.
pub fn place_owned(source: OwnedFd, number: RawFd) -> Result<()> {
    if source.as_raw_fd() == number {
        return keep(std::os::fd::IntoRawFd::into_raw_fd(source));
    }
    place(source.as_fd(), number)
}

/// Closes descriptors by their numbers: those that were inherited, and that no value here owns.
pub fn close(numbers: impl IntoIterator<Item = RawFd>) {
    for number in numbers {
        // SAFETY: by contract of this function.
        unsafe { libc::close(number) };
    }
}

/// Waits until something can be read from one of the descriptors, or has come to its end. Answers which; None: in that time there was nothing.
pub fn readable<const N: usize>(descriptors: [Option<BorrowedFd<'_>>; N], within: PollTimeout) -> Result<Option<[bool; N]>> {
    let mut watched = descriptors.iter().flatten().map(|descriptor| PollFd::new(*descriptor, PollFlags::POLLIN)).collect::<Vec<_>>();
    loop {
        match poll(&mut watched, within) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for events"),
        }
    }
    let mut watched = watched.iter();
    Ok(Some(descriptors.map(|descriptor| descriptor.and_then(|_| watched.next()).is_some_and(|one| one.any().unwrap_or(true)))))
}
