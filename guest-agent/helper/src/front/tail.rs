//! The end of what a program writes on its standard error: kept for the case that it dies without a word.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe2, read};

/// How much is kept, in bytes.
const KEPT: usize = 4096;

pub struct Tail {
    pipe: Option<OwnedFd>,
    text: Vec<u8>,
}

impl Tail {
    /// The reader, and the end to write to.
    pub fn new() -> Result<(Tail, OwnedFd)> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
        // Our end alone: the writer's is another open file, and a program expects its standard error to block.
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("cannot set up a pipe")?;
        Ok((Tail { pipe: Some(reader), text: Vec::new() }, writer))
    }

    /// What to wait for, until the end of file.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes in what is there, without waiting.
    pub fn drain(&mut self) -> Result<()> {
        let mut block = [0; 4096];
        while let Some(pipe) = &self.pipe {
            match read(pipe, &mut block) {
                Ok(0) => self.pipe = None,
                Ok(length) => {
                    self.text.extend_from_slice(&block[..length]);
                    let surplus = self.text.len().saturating_sub(KEPT);
                    self.text.drain(..surplus);
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("cannot read what the supervisor printed"),
            }
        }
        Ok(())
    }

    /// The last lines in one, or `None` where nothing was written.
    pub fn text(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.text);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>();
        let last = &lines[lines.len().saturating_sub(5)..];
        (!last.is_empty()).then(|| last.join(" | "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    #[test]
    fn the_last_lines_are_kept_however_much_was_written() {
        let (mut tail, writer) = Tail::new().expect("a pipe");
        assert_eq!(tail.text(), None);
        let mut writer = File::from(writer);
        for number in 0..2000 {
            writeln!(writer, "line {number}\n").expect("write");
            tail.drain().expect("drain");
        }
        drop(writer);
        tail.drain().expect("drain");
        assert!(tail.descriptor().is_none(), "the end of file was seen");
        assert_eq!(tail.text().as_deref(), Some("line 1995 | line 1996 | line 1997 | line 1998 | line 1999"));
    }
}
