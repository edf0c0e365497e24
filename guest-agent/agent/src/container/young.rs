//! Signals to a program that has only just been started. The first process of a PID namespace loses those that it has no handler for
//! (pid_namespaces(7)), and an emulated processor takes a program longer to its handlers than it takes a host to send the next call:
//! who starts a container and ends it at once would be heard with a container of the host's kernel. So what would be lost waits for a while.

use std::fs;
use std::time::{Duration, Instant};

/// How long a program is taken to be on its way to its handlers.
const YOUTH: Duration = Duration::from_millis(500);
/// Nothing tells of a handler: it is looked for as often.
const LOOK: Duration = Duration::from_millis(5);
/// What ends nobody who has no handler for it (signal(7)), or cannot have one; and what is no signal (kill(2)).
const NOT_LOST: [i32; 7] = [
    0,
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGURG,
    libc::SIGWINCH,
];

/// Waits as long as the signal would be lost and the program, the first process of a PID namespace, is young.
pub async fn wait_for_handler(pid: i32, signal: i32, started: Instant) {
    while !NOT_LOST.contains(&signal) && started.elapsed() < YOUTH {
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else {
            return;
        };
        if !is_lost(&status, signal) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether a process with this /proc/PID/status neither handles, ignores nor blocks the signal.
fn is_lost(status: &str, signal: i32) -> bool {
    !["SigBlk:\t", "SigIgn:\t", "SigCgt:\t"].iter().any(|name| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask, 16).ok());
        mask.is_none_or(|mask| mask >> (signal - 1) & 1 == 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_handler_is_waited_for() {
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "read line; trap 'exit 5' TERM; echo; read line"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("start a shell");
        let pid = child.id() as i32;
        // It stays young for as long as this takes.
        let started = Instant::now() + Duration::from_secs(3600);
        let mut waiting = Box::pin(wait_for_handler(pid, libc::SIGTERM, started));
        assert!(
            tokio::time::timeout(4 * LOOK, &mut waiting).await.is_err(),
            "it has none yet"
        );
        let mut stdin = child.stdin.take().expect("its standard input");
        std::io::Write::write_all(&mut stdin, b"\n").expect("write");
        waiting.await;
        // Nobody waits for what is not lost, nor for one that is no child any more, nor for long.
        wait_for_handler(pid, libc::SIGKILL, started).await;
        wait_for_handler(pid, libc::SIGUSR1, Instant::now() - YOUTH).await;
        super::super::process::kill(pid, libc::SIGTERM).expect("send a signal");
        assert_eq!(child.wait().expect("wait").code(), Some(5));
        wait_for_handler(pid, libc::SIGUSR1, started).await;
    }

    #[test]
    fn what_is_handled_ignored_or_blocked_is_not_lost() {
        let status = "Name:\tsh\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000000004\nSigCgt:\t8000000000004000\n";
        for (signal, lost) in [
            (1, true),
            (2, false),
            (3, false),
            (15, false),
            (16, true),
            (64, false),
        ] {
            assert_eq!(is_lost(status, signal), lost, "{signal}");
        }
        assert!(!is_lost("", 15), "of what cannot be read nothing is known");
    }
}
