//! What is mounted where, as the kernel tells it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use anyhow::{Context, Result};

pub struct Mount {
    pub point: PathBuf,
    /// Whether it shows its file system from the root on.
    pub whole: bool,
    /// The file system's kind.
    pub filesystem: String,
    /// The file system's own options, such as a cgroup hierarchy's controllers.
    pub options: String,
}

/// The mounts of the calling process's namespace, in the order in which they were made. proc_pid_mountinfo(5) has the form.
pub fn read() -> Result<Vec<Mount>> {
    let table = fs::read("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    Ok(table.split(|&byte| byte == b'\n').filter_map(parse).collect())
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let whole = fields.nth(3)? == b"/";
    let point = unescape(fields.next()?);
    // Any number of optional fields ends with a dash.
    fields.find(|field| *field == b"-")?;
    let mut text = || fields.next().map(|field| String::from_utf8_lossy(field).into_owned());
    let filesystem = text()?;
    let options = text().and_then(|_source| text()).unwrap_or_default();
    Some(Mount { point, whole, filesystem, options })
}

/// A path as the kernel prints it: blanks, line ends and backslashes as a backslash and three octal digits.
fn unescape(text: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let digits = after.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(|digit| (b'0'..b'8').contains(digit)));
        match digits {
            Some(digits) => {
                path.push(digits.iter().fold(0_u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')));
                rest = &after[3..];
            }
            None => {
                path.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn the_kernels_escapes_are_undone() {
        for (text, expected) in [("/a\\040b\\134c", "/a b\\c"), ("/a\\04", "/a\\04"), ("/a\\0x0", "/a\\0x0"), ("", "")] {
            assert_eq!(unescape(text.as_bytes()).as_os_str(), OsStr::new(expected));
        }
        assert_eq!(unescape(b"/\xff\\012").as_os_str().as_bytes(), b"/\xff\n");
    }

    #[test]
    fn a_line_says_what_is_mounted_and_where() {
        let line = b"36 35 0:29 / /sys/fs/cgroup/cpu\\040x rw,nosuid shared:1 master:2 - cgroup cgroup rw,cpu";
        let mount = parse(line).expect("a mount");
        assert_eq!((mount.point, mount.whole, mount.filesystem.as_str()), ("/sys/fs/cgroup/cpu x".into(), true, "cgroup"));
        assert_eq!(mount.options, "rw,cpu");
        assert!(parse(b"36 35 0:29 /part /x rw - tmpfs tmpfs rw").is_some_and(|mount| !mount.whole));
        assert!(parse(b"").is_none());
    }
}
