//! What becomes of a copy: it gets what is its own, gives up what is the zygote's, and goes on with all of its threads.

use core::ffi::c_int;

use crate::fork::{Answer, MOST_FILES, Request, Step, answer, forget_others};
use crate::kernel::{self, kernel};
use crate::{memory, threads};

const F_DUPFD_CLOEXEC: usize = 1030;
/// Above all numbers that a sandbox's plan has, and QEMU's own.
const FIRST_RAISED: usize = 512;

/// Makes the calling process, which has one thread, the copy that is asked for. What it says last on the connection is that it is that, or what failed.
///
/// # Safety
/// To be called once, right behind the fork.
pub unsafe fn become_own(
    connection: c_int,
    listener: c_int,
    own: c_int,
    request: &Request,
    namespaces: &[c_int],
    files: &[c_int],
) -> Result<(), (Step, isize)> {
    // SAFETY: the copy has one thread so far, and nobody else its descriptors.
    unsafe {
        forget_others();
        crate::stop_serving();
        kernel::close(listener);
        kernel::close(own);
        let mut raise = [-1; MOST_FILES];
        renew_events().map_err(|error| (Step::Descriptors, error))?;
        for (index, file) in files.iter().enumerate() {
            if request.memory == index as u32 {
                memory::replace(*file).map_err(|error| (Step::Memory, error))?;
            }
            // Out of the way of the numbers that are still to be taken.
            let raised = kernel!(kernel::FCNTL, *file, F_DUPFD_CLOEXEC, FIRST_RAISED);
            check(raised, Step::Descriptors)?;
            kernel::close(*file);
            raise[index] = raised as c_int;
        }
        for (file, number) in raise.iter().zip(request.numbers).take(files.len()) {
            check(kernel!(kernel::DUP3, *file, number, 0), Step::Descriptors)?;
            kernel::close(*file);
        }
        for namespace in &namespaces[1..] {
            check(kernel!(kernel::SETNS, *namespace, 0), Step::Namespaces)?;
        }
        check(kernel!(kernel::CHDIR, c"/".as_ptr()), Step::Namespaces)?;
        for namespace in namespaces {
            kernel::close(*namespace);
        }
        kernel!(kernel::SETSID);
        // As the asker has them. What its cgroup does not let it have, it does not get by being asked for.
        kernel!(kernel::SETPRIORITY, 0, 0, request.nice);
        kernel!(kernel::SCHED_SETAFFINITY, 0, size_of_val(&request.processors), &raw const request.processors);
        become_user(request)?;
        if !crate::filter::confine() {
            return Err((Step::Confinement, kernel::EINVAL));
        }
        answer(connection, Answer { kind: 2, pid: 0, failed: 0, value: 0 });
        kernel::close(connection);
        if !threads::make_again() {
            return Err((Step::ThreadsAgain, kernel::EAGAIN));
        }
    }
    Ok(())
}

fn check(answer: isize, step: Step) -> Result<(), (Step, isize)> {
    if answer < 0 { Err((step, answer)) } else { Ok(()) }
}

/// What a QEMU newer than those that are known may have: rings and sets that two processes would write to, and a machine that the kernel runs for one alone.
const SHARED: [&[u8]; 3] = [b"anon_inode:[io_uring]", b"anon_inode:[eventpoll]", b"anon_inode:kvm-vm"];
const EOPNOTSUPP: isize = -95;

/// An eventfd is one object in both processes: what one is told, the other would miss. The copy's are new, and say that there may be something to do.
unsafe fn renew_events() -> Result<(), isize> {
    const EFD_NONBLOCK: usize = 0o4000;
    // SAFETY: paths and answers in memory of ours.
    unsafe {
        let folder = kernel!(kernel::OPENAT, kernel::AT_FDCWD, c"/proc/self/fd".as_ptr(), kernel::O_DIRECTORY | kernel::O_CLOEXEC);
        if folder < 0 {
            return Err(folder);
        }
        for number in 0..1024 {
            let mut name = [0u8; 8];
            write_number(number, &mut name);
            let mut target = [0u8; 32];
            let length = kernel!(kernel::READLINKAT, folder, name.as_ptr(), target.as_mut_ptr(), target.len());
            let target = &target[..length.max(0) as usize];
            if SHARED.contains(&target) {
                return Err(EOPNOTSUPP);
            }
            if target != b"anon_inode:[eventfd]" {
                continue;
            }
            let new = kernel!(kernel::EVENTFD2, 1, EFD_NONBLOCK | kernel::O_CLOEXEC);
            if new < 0 {
                return Err(new);
            }
            let placed = kernel!(kernel::DUP3, new, number, kernel::O_CLOEXEC);
            kernel::close(new as c_int);
            if placed < 0 {
                return Err(placed);
            }
        }
        kernel::close(folder as c_int);
    }
    Ok(())
}

fn write_number(number: c_int, text: &mut [u8; 8]) {
    let mut digits = [0u8; 8];
    let (mut rest, mut count) = (number, 0);
    loop {
        digits[count] = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    for index in 0..count {
        text[index] = digits[count - 1 - index];
    }
}

unsafe fn become_user(request: &Request) -> Result<(), (Step, isize)> {
    const PR_CAPBSET_DROP: usize = 24;
    const PR_SET_DUMPABLE: usize = 4;
    const PR_SET_NO_NEW_PRIVS: usize = 38;
    // SAFETY: plain system calls.
    unsafe {
        for capability in 0..64 {
            if kernel!(kernel::PRCTL, PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 {
                break; // there are no more
            }
        }
        check(kernel!(kernel::SETGROUPS, 0, 0), Step::User)?;
        check(kernel!(kernel::SETRESGID, request.gid, request.gid, request.gid), Step::User)?;
        check(kernel!(kernel::SETRESUID, request.uid, request.uid, request.uid), Step::User)?;
        check(kernel!(kernel::PRCTL, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), Step::User)?;
        // As after an execve: its own /proc is its own.
        check(kernel!(kernel::PRCTL, PR_SET_DUMPABLE, 1, 0, 0, 0), Step::User)
    }
}
