//! The machine's size, as it changes while the guest runs: processors and memory that the host plugs in.
//!
//! The kernel sees either by itself. Memory it takes into use by itself too (`memhp_default_state=online`); a processor waits for somebody to bring it
//! online, which is what udev does elsewhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::ResizeSandboxRequest;
use crate::error::{Context, Failure, Result};
use crate::{modules, uevent};

/// Less than the host waits for a call, so that it learns what was not there in time.
const LIMIT: Duration = Duration::from_secs(25);

/// The driver of plugged memory, which Debian's kernel has as a module, and who asks for a module elsewhere is udev.
const DRIVER: &str = "virtio_mem";

/// How the driver names the memory that it has added, in /proc/iomem.
const ADDED: &str = "System RAM (virtio_mem)";

/// Brings the guest to the size that the host has given the machine.
pub async fn apply(request: ResizeSandboxRequest) -> Result<()> {
    let wanted = request.vcpus as usize;
    if wanted == 0 {
        return Err(Failure::invalid("vcpus: expected at least 1"));
    }
    if request.added_memory_bytes > 0 {
        blocking(|| modules::load_now(DRIVER)).await?;
        uevent::wait_for("the plugged memory", LIMIT, || {
            (added_memory().ok()? >= request.added_memory_bytes).then_some(())
        })
        .await?;
    }
    let processors = Path::new("/sys/devices/system/cpu");
    uevent::wait_for("the plugged processors", LIMIT, || {
        processor(processors, wanted - 1).exists().then_some(())
    })
    .await?;
    blocking(move || set_online(processors, wanted)).await
}

/// Bringing a processor online takes the kernel milliseconds, in which the event loop goes on.
async fn blocking(work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Failure::other(format!("the machine's size: {error}"))))
}

/// Brings the first `wanted` processors online, and takes all others offline. The first one always is.
fn set_online(folder: &Path, wanted: usize) -> Result<()> {
    for index in 1.. {
        if !processor(folder, index).exists() {
            return Ok(());
        }
        let file = processor(folder, index).join("online");
        let state = if index < wanted { "1" } else { "0" };
        let now = fs::read_to_string(&file).context(|| format!("read {}", file.display()))?;
        if now.trim() != state {
            fs::write(&file, state).context(|| format!("write {state} to {}", file.display()))?;
        }
    }
    Ok(())
}

fn processor(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("cpu{index}"))
}

/// Bytes of the added memory that the kernel has taken into use.
fn added_memory() -> Result<u64> {
    let folder = Path::new("/sys/devices/system/memory");
    let file = folder.join("block_size_bytes");
    let text = fs::read_to_string(&file).context(|| format!("read {}", file.display()))?;
    let block_bytes = u64::from_str_radix(text.trim(), 16)
        .ok()
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| Failure::other(format!("{}: {text:?}", file.display())))?;
    let map = fs::read_to_string("/proc/iomem").context(|| "read /proc/iomem")?;
    let online = |&block: &u64| {
        fs::read_to_string(folder.join(format!("memory{block}/state")))
            .is_ok_and(|state| state.trim() == "online")
    };
    let blocks = added_ranges(&map)
        .flat_map(|(first, last)| first / block_bytes..last.saturating_add(1) / block_bytes);
    Ok(blocks.filter(online).count() as u64 * block_bytes)
}

/// The first and the last address of each range of added memory in the text of /proc/iomem.
fn added_ranges(map: &str) -> impl Iterator<Item = (u64, u64)> {
    map.lines().filter_map(|line| {
        let (range, name) = line.trim().split_once(" : ")?;
        let (first, last) = range.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).ok();
        (name == ADDED).then_some((address(first)?, address(last)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_memory_is_told_from_what_the_machine_was_booted_with() {
        let map = "\
00100000-1fffffff : System RAM
  01000000-01ffffff : Kernel code
100000000-1bfffffff : virtio0
  100000000-107ffffff : System RAM (virtio_mem)
  108000000-117ffffff : System RAM (virtio_mem)
1c0000000-1c7ffffff : System RAM
";
        let ranges: Vec<_> = added_ranges(map).collect();
        assert_eq!(
            ranges,
            [
                (0x1_0000_0000, 0x1_07ff_ffff),
                (0x1_0800_0000, 0x1_17ff_ffff)
            ]
        );
    }

    #[test]
    fn processors_are_brought_online_and_taken_offline_in_their_order() {
        let folder = std::env::temp_dir().join(format!("husk-size-{}", std::process::id()));
        let file = |index: usize| processor(&folder, index).join("online");
        fs::create_dir_all(processor(&folder, 0)).expect("a folder"); // the first has no file
        for (index, state) in [(1, "1\n"), (2, "0\n"), (3, "1\n")] {
            fs::create_dir_all(processor(&folder, index)).expect("a folder");
            fs::write(file(index), state).expect("a file");
        }
        let states = || [1, 2, 3].map(|index| fs::read_to_string(file(index)).expect("a state"));
        set_online(&folder, 3).expect("three processors");
        assert_eq!(states(), ["1\n", "1", "0"]);
        set_online(&folder, 1).expect("one processor");
        assert_eq!(states(), ["0", "0", "0"]);
        fs::remove_dir_all(&folder).expect("removed");
    }
}
