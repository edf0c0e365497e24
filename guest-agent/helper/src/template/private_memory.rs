//! Memory that a process maps privately from a file of its template's: what it has written itself, and what the file has everywhere else. It is read from
//! the outside, without a page being made by it.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::Whence;

use super::{PAGE, RUN, Take, seek, sort};

/// Bits of /proc/PID/pagemap: the page is in memory, is on a swap device, and belongs to a file.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_FILE: u64 = 1 << 61;
const ENTRY: usize = size_of::<u64>();

pub struct PrivateMemory<'a> {
    file: &'a File,
    length: u64,
    memory: File,
    pagemap: File,
    /// Where it begins in the process.
    base: u64,
}

impl<'a> PrivateMemory<'a> {
    /// The process must stand still, or at least what runs in its memory.
    pub fn of(pid: u32, file: &'a File) -> Result<PrivateMemory<'a>> {
        let open = |name: &str| File::open(format!("/proc/{pid}/{name}")).with_context(|| format!("cannot open {name} of process {pid}"));
        let metadata = file.metadata().context("cannot look at the template's memory")?;
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).with_context(|| format!("cannot read maps of process {pid}"))?;
        let base = find(&maps, metadata.dev(), metadata.ino(), metadata.len()).with_context(|| format!("process {pid}"))?;
        Ok(PrivateMemory { file, length: metadata.len(), memory: open("mem")?, pagemap: open("pagemap")?, base })
    }

    /// As the walk over a file: calls `take` with the pages that are not all zeroes, and answers the sum.
    pub fn walk(&self, take: &mut Take<'_>) -> Result<u32> {
        let mut sum = crc32fast::Hasher::new();
        let mut bytes = vec![0; RUN * PAGE];
        self.each_run(|offset, own, in_file| {
            let pages = &mut bytes[..own.len() * PAGE];
            if in_file {
                self.file.read_exact_at(pages, offset).context("cannot read the template's memory")?;
            } else {
                pages.fill(0);
            }
            for (index, page) in pages.chunks_mut(PAGE).enumerate().filter(|&(index, _)| own[index]) {
                let place = self.base + offset + (index * PAGE) as u64;
                self.memory.read_exact_at(page, place).context("cannot read the memory of the process")?;
            }
            sort(offset, pages, &mut sum, take, &mut |_, _| Ok(()))
        })?;
        Ok(sum.finalize())
    }

    /// How many bytes of it the host holds for the process and its template together.
    pub fn resident(&self) -> Result<u64> {
        let mut pages = 0;
        self.each_run(|offset, own, in_file| {
            let held =
                (0..own.len()).filter(|&index| own[index] || (in_file && self.has_data(offset + (index * PAGE) as u64, PAGE as u64)));
            pages += held.count() as u64;
            Ok(())
        })?;
        Ok(pages * PAGE as u64)
    }

    /// Calls `look` with runs of pages that may not be zero: where they are, which are the process's own, and whether the file has something there.
    fn each_run(&self, mut look: impl FnMut(u64, &[bool], bool) -> Result<()>) -> Result<()> {
        let mut entries = [0; RUN * ENTRY];
        for offset in (0..self.length).step_by(RUN * PAGE) {
            let count = ((self.length - offset) as usize / PAGE).min(RUN);
            let entries = &mut entries[..count * ENTRY];
            self.pagemap.read_exact_at(entries, (self.base + offset) / PAGE as u64 * ENTRY as u64).context("cannot read the pagemap")?;
            let own = entries.chunks(ENTRY).map(is_own).collect::<Vec<_>>();
            let in_file = self.has_data(offset, (count * PAGE) as u64);
            if in_file || own.contains(&true) {
                look(offset, &own, in_file)?;
            }
        }
        Ok(())
    }

    fn has_data(&self, offset: u64, length: u64) -> bool {
        // What cannot be told is looked at.
        seek(self.file, offset, Whence::SeekData).map_or(true, |found| found.is_some_and(|start| start < offset + length))
    }
}

/// Whether a page is anonymous: the process has written to it, or it is none of the file's.
fn is_own(entry: &[u8]) -> bool {
    let bits = u64::from_ne_bytes(std::array::from_fn(|index| entry[index]));
    bits & (PRESENT | SWAPPED) != 0 && bits & OF_FILE == 0
}

/// The address at which the text of a /proc/PID/maps (proc_pid_maps(5)) has the beginning of the file, whose mapping may consist of several, with anonymous
/// memory between them.
fn find(maps: &str, device: u64, inode: u64, length: u64) -> Result<u64> {
    let wanted = format!("{:02x}:{:02x}", libc::major(device), libc::minor(device));
    let mappings = maps.lines().filter_map(parse).collect::<Vec<_>>();
    let is_of_file = |mapping: &&Mapping<'_>| mapping.inode == inode && mapping.device == wanted;
    let first = mappings.iter().find(is_of_file).context("it does not map the template's memory")?;
    let base = first.start.checked_sub(first.offset).context("it maps the template's memory at no place")?;
    let mut end = base;
    for mapping in mappings.iter().filter(|mapping| mapping.end > base && mapping.start < base + length) {
        let fits = if mapping.inode == 0 { true } else { is_of_file(&mapping) && mapping.start - mapping.offset == base };
        ensure!(
            fits && mapping.access.ends_with('p') && mapping.start <= end,
            "it maps something else in the midst of the template's memory"
        );
        end = mapping.end;
    }
    if end < base + length {
        bail!("it maps a part of the template's memory alone");
    }
    Ok(base)
}

struct Mapping<'a> {
    start: u64,
    end: u64,
    access: &'a str,
    offset: u64,
    device: &'a str,
    inode: u64,
}

fn parse(line: &str) -> Option<Mapping<'_>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end, access) = (hexadecimal(start)?, hexadecimal(end)?, words.next()?);
    Some(Mapping { start, end, access, offset: hexadecimal(words.next()?)?, device: words.next()?, inode: words.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guard page at the end is QEMU's.
    const MAPS: &str = "55d0c0000000-55d0c0001000 r--p 00000000 fe:00 77  /usr/bin/qemu\n\
        7f0000000000-7f0000004000 rw-p 00000000 00:00 0 \n\
        7f0000004000-7f0000008000 rw-p 00004000 00:01 9  /memfd:husk (deleted)\n\
        7f0000008000-7f0000009000 rw-p 00000000 00:00 0 \n\
        7f0000009000-7f000000a000 rw-p 00009000 00:01 9  /memfd:husk (deleted)\n\
        7f000000a000-7f000000b000 ---p 00000000 00:00 0 \n";

    #[test]
    fn the_memory_is_found_by_its_pieces() {
        assert_eq!(find(MAPS, libc::makedev(0, 1), 9, 0xa000).expect("it is there"), 0x7f00_0000_0000);
    }

    #[test]
    fn what_is_not_all_of_it_is_refused() {
        let refused = |maps: &str, inode: u64, length: u64| find(maps, libc::makedev(0, 1), inode, length).expect_err("wrong").to_string();
        assert_eq!(refused(MAPS, 10, 0xa000), "it does not map the template's memory");
        assert_eq!(refused(MAPS, 9, 0xc000), "it maps a part of the template's memory alone");
        let midst = "it maps something else in the midst of the template's memory";
        assert_eq!(refused(&MAPS.replace("00009000 00:01 9", "00009000 00:01 8"), 9, 0xa000), midst);
        assert_eq!(refused(&MAPS.replace("00009000 00:01 9", "00000000 00:01 9"), 9, 0xa000), midst);
        assert_eq!(refused(&MAPS.replace("rw-p 00009000", "rw-s 00009000"), 9, 0xa000), midst);
        assert_eq!(refused(&MAPS.replace("7f0000008000-7f0000009000", "7f0000008000-7f0000008800"), 9, 0xa000), midst);
    }
}
