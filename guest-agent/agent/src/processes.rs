//! The processes of a container, from /proc.

use std::collections::HashMap;
use std::fs;

use nix::unistd::{SysconfVar, sysconf};

use crate::api::ProcessInfo;
use crate::container::Container;
use crate::error::Result;

/// The longest command line that is told.
const MAX_COMMAND: usize = 4096;

/// All processes in the container's cgroup and below. One that ends meanwhile is left out.
pub fn list(container: &Container) -> Result<Vec<ProcessInfo>> {
    let names: HashMap<i32, String> = container
        .known_processes()
        .iter()
        .map(|process| (process.pid, process.id.clone()))
        .collect();
    let boot_ms =
        (crate::clock::unix_ns() / 1_000_000).saturating_sub(crate::clock::boot_ns() / 1_000_000);
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as u64;
    let pids = container.cgroup.processes()?;
    let infos = pids.into_iter().filter_map(|pid| {
        let stat = Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_default()
        };
        Some(ProcessInfo {
            pid: pid as u32,
            parent_pid: stat.parent,
            uid: field("Uid:\t")
                .split('\t')
                .nth(1)
                .and_then(|uid| uid.parse().ok())
                .unwrap_or_default(),
            start_unix_ms: boot_ms + stat.start_ticks * 1000 / ticks,
            cpu_ms: stat.cpu_ticks * 1000 / ticks,
            resident_bytes: field("VmRSS:")
                .trim()
                .trim_end_matches(" kB")
                .parse::<u64>()
                .unwrap_or_default()
                * 1024,
            terminal: terminal_name(stat.terminal),
            command: command_line(&command, &stat.name),
            state: stat.state,
            process_id: names.get(&pid).cloned().unwrap_or_default(),
            container_pid: field("NSpid:\t")
                .rsplit('\t')
                .next()
                .and_then(|pid| pid.parse().ok())
                .unwrap_or_default(),
        })
    });
    Ok(infos.collect())
}

/// The fields of /proc/PID/stat that are told.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    state: String,
    parent: u32,
    terminal: u32,
    cpu_ticks: u64,
    start_ticks: u64,
}

impl Stat {
    /// The name is in parentheses and may hold any character, parentheses and spaces too.
    fn parse(text: &str) -> Option<Stat> {
        let (start, end) = (text.find('(')?, text.rfind(')')?);
        let fields: Vec<&str> = text.get(end + 1..)?.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Stat {
            name: text.get(start + 1..end)?.to_owned(),
            state: (*fields.first()?).to_owned(),
            parent: number(1)? as u32,
            terminal: number(4)? as u32,
            cpu_ticks: number(11)? + number(12)?,
            start_ticks: number(19)?,
        })
    }
}

/// Whether a process is at its end, or beyond it: none of its threads will run a program's code again. A process closes what it has open on the way from one
/// to the other, so this is what tells the end of its output that comes with its own from one that it asked for.
pub fn is_ending(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    threads.into_iter().flatten().flatten().all(|thread| {
        // One that cannot be read is gone.
        fs::read_to_string(thread.path().join("stat")).map_or(true, |stat| exits(&stat))
    })
}

/// Whether the thread with this line in its stat is in the kernel's exit(): PF_EXITING among its flags (include/linux/sched.h).
fn exits(stat: &str) -> bool {
    const PF_EXITING: u64 = 0x4;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let flags = after_name.split_ascii_whitespace().nth(6);
    flags
        .and_then(|flags| flags.parse::<u64>().ok())
        .is_some_and(|flags| flags & PF_EXITING != 0)
}

/// "pts/0" for a pty's device number, "?" for none.
fn terminal_name(device: u32) -> String {
    const FIRST_PTY_MAJOR: u32 = 136;
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    match major {
        0 => "?".to_owned(),
        FIRST_PTY_MAJOR..=143 => format!("pts/{}", (major - FIRST_PTY_MAJOR) * 256 + minor),
        _ => format!("{major}:{minor}"),
    }
}

fn command_line(bytes: &[u8], name: &str) -> String {
    let bytes = &bytes[..bytes.len().min(MAX_COMMAND)];
    let words = String::from_utf8_lossy(bytes)
        .trim_end_matches('\0')
        .replace('\0', " ");
    if words.is_empty() {
        format!("[{name}]")
    } else {
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_with_its_last_thread() {
        let line = |flags: u32| format!("42 (a) b (c)) Z 1 42 42 34816 42 {flags} 106 0 0 0");
        assert!(exits(&line(0x40_0004)));
        assert!(!exits(&line(0x40_0000)));
        assert!(!exits("42 (cut"));
        assert!(!is_ending(std::process::id() as i32));
        let mut child = std::process::Command::new("true").spawn().expect("a child");
        let pid = child.id() as i32;
        while !is_ending(pid) {
            std::thread::yield_now();
        }
        child.wait().expect("its end");
        assert!(is_ending(pid));
    }

    #[test]
    fn a_name_may_hold_anything() {
        let text =
            "42 (a) b (c)) S 1 42 42 34816 42 4194304 106 0 0 0 7 5 0 0 20 0 1 0 123 2310144 193";
        let expected = Stat {
            name: "a) b (c)".into(),
            state: "S".into(),
            parent: 1,
            terminal: 34816,
            cpu_ticks: 12,
            start_ticks: 123,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("nonsense"), None);
        assert_eq!(Stat::parse(")("), None);
    }

    #[test]
    fn terminals_have_names() {
        assert_eq!(terminal_name(0), "?");
        assert_eq!(terminal_name(34816), "pts/0");
        assert_eq!(terminal_name(34817), "pts/1");
        assert_eq!(terminal_name(1088), "4:64");
    }

    #[test]
    fn a_command_line() {
        assert_eq!(command_line(b"sh\0-c\0true\0", "sh"), "sh -c true");
        assert_eq!(command_line(b"", "kthread"), "[kthread]");
    }
}
