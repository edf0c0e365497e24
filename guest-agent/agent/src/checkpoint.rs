//! What a checkpoint of the machine needs of the guest, so that a machine that is restored from it begins with nothing on its way: containers
//! stand still, and what was read of their outputs has reached the host. And so that it is small: memory that nobody uses holds zeroes.

use std::fs;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Waker};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::api::{
    OutputPosition, PrepareCheckpointRequest, PrepareCheckpointResponse, ReadOutputRequest,
};
use crate::channel;
use crate::container::Container;
use crate::devices::held::HeldDevice;
use crate::error::{Class, Context, Failure, Result};
use crate::sandbox::Sandbox;
use crate::stats;

/// What stands still for a checkpoint, and how far outputs were read.
#[derive(Default)]
pub struct Standstill(Mutex<State>);

#[derive(Default)]
struct State {
    is_on: bool,
    /// Those that were frozen for it, and not by the host's wish.
    frozen: Vec<Arc<Container>>,
    /// Which the host may exchange meanwhile.
    share: Option<HeldDevice>,
    /// Readers that wait for its end.
    waiting: Vec<Waker>,
    readings: Vec<OutputPosition>,
    /// The dial line with which the host of a restored machine breaks into the session.
    dial_line: Vec<u8>,
}

impl Standstill {
    /// Whether nothing may be read; whoever asks is woken at its end.
    pub fn holds(&self, context: &TaskContext<'_>) -> bool {
        let mut state = self.lock();
        if state.is_on {
            state.waiting.push(context.waker().clone());
        }
        state.is_on
    }

    /// Whether it is on: then another host may be at the other end of the channel all at once, that of a machine that was restored.
    pub fn is_on(&self) -> bool {
        self.lock().is_on
    }

    /// Where that host's dial line begins in what was read at once. QEMU hands on in one piece what it reads of a connection at once, and nothing of two
    /// connections together: so the line, which is the first that comes of its connection, is whole.
    pub fn find_dial(&self, received: &[u8]) -> Option<usize> {
        let state = self.lock();
        let line = &state.dial_line[..];
        (state.is_on && !line.is_empty())
            .then(|| received.windows(line.len()).position(|at| at == line))
            .flatten()
    }

    /// An output is being read from now on.
    pub fn note_reading(&self, position: OutputPosition) {
        self.lock().readings.push(position);
    }

    /// That many bytes of it were read.
    pub fn count_read(&self, request: &ReadOutputRequest, count: u64) {
        let mut state = self.lock();
        if let Some(position) = state.readings.iter_mut().find(|one| is_of(one, request)) {
            position.bytes += count;
        }
    }

    /// It is not read any more.
    pub fn forget_reading(&self, request: &ReadOutputRequest) {
        self.lock().readings.retain(|one| !is_of(one, request));
    }

    /// Begins it. `dial_line`: with which the host of a machine that is restored from now on dials, if any.
    pub fn begin(&self, dial_line: Vec<u8>) -> Result<()> {
        let mut state = self.lock();
        if state.is_on {
            let message = "the guest is being checkpointed already";
            return Err(Failure::new(Class::WrongState, message));
        }
        state.is_on = true;
        state.dial_line = dial_line;
        Ok(())
    }

    /// Ends it, and answers the containers that are to go on. What they need must be there.
    fn end(&self) -> Vec<Arc<Container>> {
        let mut state = self.lock();
        state.is_on = false;
        state.share = None;
        state.waiting.drain(..).for_each(Waker::wake);
        std::mem::take(&mut state.frozen)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_of(position: &OutputPosition, request: &ReadOutputRequest) -> bool {
    position.container_id == request.container_id
        && position.process_id == request.process_id
        && position.output == request.output
}

/// Makes the guest ready. Where it fails, everything goes on.
pub async fn prepare(
    sandbox: &Sandbox,
    request: PrepareCheckpointRequest,
) -> Result<PrepareCheckpointResponse> {
    let dial_line = match &request.nonce[..] {
        "" => Vec::new(),
        nonce => channel::dial_line(nonce)
            .ok_or_else(|| Failure::invalid("nonce: expected 32 hexadecimal digits"))?,
    };
    sandbox.checkpoint.begin(dial_line)?;
    let ready = stand_still(sandbox, request.resident_bytes).await;
    if ready.is_err() {
        give_up(sandbox).await;
    }
    ready
}

/// Lets everything go on since there will be no checkpoint.
pub async fn give_up(sandbox: &Sandbox) {
    if let Err(failure) = finish(sandbox).await {
        crate::console::log(failure);
    }
}

/// `resident`: how many bytes of the guest's memory the host holds; 0: unknown.
async fn stand_still(sandbox: &Sandbox, resident: u64) -> Result<PrepareCheckpointResponse> {
    for container in sandbox.all_containers() {
        if !container.is_frozen() {
            sandbox.checkpoint.lock().frozen.push(container.clone());
            container.freeze(true).await?;
        }
    }
    let share = tokio::task::spawn_blocking(move || settle(resident))
        .await
        .unwrap_or_else(|_| Err(Failure::other("the thread that cleared memory died")))?;
    sandbox.checkpoint.lock().share = share;
    Ok(PrepareCheckpointResponse {
        outputs: sandbox.checkpoint.lock().readings.clone(),
        outside_connections: outside_connections(),
    })
}

/// Lets everything go on, with the device that the shared folder has now. Where that cannot be used, nothing goes on.
pub async fn finish(sandbox: &Sandbox) -> Result<()> {
    if let Some(share) = &sandbox.checkpoint.lock().share {
        share.take_up()?;
    }
    let mut outcome = Ok(());
    for container in sandbox.checkpoint.end() {
        outcome = outcome.and(container.freeze(false).await);
    }
    outcome
}

/// Writes back what is dirty, and leaves no trace of what memory was used for and is not any more. Answers the shared folder's device.
fn settle(resident: u64) -> Result<Option<HeldDevice>> {
    nix::unistd::sync();
    let share = HeldDevice::note()?;
    // What can be read from a disk again need not be in a checkpoint, and the fewer of a folder's files are known by name, the fewer have to be found again.
    let dropped = if share.is_some() { "3" } else { "1" };
    fs::write("/proc/sys/vm/drop_caches", dropped).context(|| "drop the caches")?;
    clear_free_memory(resident)?;
    Ok(share)
}

/// As much as is taken at a time.
const PIECE: NonZeroUsize = NonZeroUsize::new(2 << 20).expect("it is not zero");
/// What is left to the kernel meanwhile: more than the reserve below which it begins to reclaim memory (vm.min_free_kbytes, images/README.md).
const KEPT: u64 = 12 << 20;

/// Takes memory that is free, which the kernel fills with zeroes for that, and gives it back: as much as there may be that was used before, and
/// the kernel gives out first what was used last. Memory that was never used is left alone: it would be used then.
fn clear_free_memory(resident: u64) -> Result<()> {
    let mut taken = Vec::new();
    let (total, free) = memory()?;
    let once_used = match resident {
        0 => free,
        _ => resident.saturating_sub(total - free.min(total)),
    };
    let outcome = loop {
        if (taken.len() * PIECE.get()) as u64 >= once_used {
            break Ok(());
        }
        match memory() {
            Ok((_, free)) if free < KEPT + PIECE.get() as u64 => break Ok(()),
            Ok(_) => {}
            Err(failure) => break Err(failure),
        }
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE;
        // SAFETY: a new mapping, at an address of the kernel's choice, that nothing refers to.
        match unsafe { mmap_anonymous(None, PIECE, ProtFlags::PROT_WRITE, flags) } {
            Ok(address) => taken.push(address),
            Err(errno) => break Err(errno).context(|| "take the free memory"),
        }
    };
    for address in taken {
        // SAFETY: mapped above, and used by nobody.
        unsafe { munmap(address, PIECE.get()) }.context(|| "give the free memory back")?;
    }
    outcome
}

/// How much there is, and how much of it is free.
fn memory() -> Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/meminfo").context(|| "read /proc/meminfo")?;
    Ok((
        stats::bytes(&text, "MemTotal:"),
        stats::bytes(&text, "MemFree:"),
    ))
}

/// How many TCP connections have their other end outside of the guest. A guest without IPv6 has no list of such connections.
fn outside_connections() -> u32 {
    let lists = ["/proc/net/tcp", "/proc/net/tcp6"]
        .map(|path| fs::read_to_string(path).unwrap_or_default());
    lists
        .iter()
        .flat_map(|list| list.lines())
        .filter(|line| leads_outside(line))
        .count() as u32
}

/// Whether a line of /proc/net/tcp or tcp6 (proc(5)) is an established connection to another address than the loopback's.
fn leads_outside(line: &str) -> bool {
    const ESTABLISHED: &str = "01";
    let mut words = line.split_ascii_whitespace().skip(2);
    let (Some(remote), Some(state)) = (words.next(), words.next()) else {
        return false;
    };
    let address = remote.split(':').next().unwrap_or_default();
    // The bytes of each 32 bits are in the host's order, little-endian: 127.0.0.1 ends with its first byte.
    let is_loopback = match address.len() {
        8 => address.ends_with("7F"),
        32 => {
            address == "00000000000000000000000001000000"
                || (address.starts_with("0000000000000000FFFF0000") && address.ends_with("7F"))
        }
        _ => true,
    };
    state == ESTABLISHED && !is_loopback
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_out_of_the_guest_are_told_from_those_in_it() {
        let line = |remote: &str, state: &str| {
            leads_outside(&format!(
                "   0: 0100007F:1F90 {remote} {state} 00000000:00000000"
            ))
        };
        assert!(line("0202000A:0050", "01"));
        assert!(!line("0202000A:0050", "06"));
        assert!(!line("0100007F:0050", "01"));
        assert!(!line("00000000:0000", "0A"));
        assert!(line("B80D01200000000000000000010000FE:0050", "01"));
        assert!(!line("00000000000000000000000001000000:0050", "01"));
        assert!(!line("0000000000000000FFFF00000100007F:0050", "01"));
        assert!(!leads_outside(
            "  sl  local_address rem_address   st tx_queue rx_queue"
        ));
    }

    #[test]
    fn readings_are_counted_until_they_end() {
        let standstill = Standstill::default();
        let request = ReadOutputRequest {
            container_id: "c".into(),
            process_id: String::new(),
            output: 1,
        };
        let position = |bytes| OutputPosition {
            container_id: "c".into(),
            process_id: String::new(),
            output: 1,
            bytes,
        };
        standstill.note_reading(position(0));
        standstill.count_read(&request, 3);
        standstill.count_read(&request, 4);
        assert_eq!(standstill.lock().readings, [position(7)]);
        standstill.forget_reading(&request);
        assert_eq!(standstill.lock().readings, []);
    }

    #[test]
    fn the_dial_of_a_restored_machines_host_is_found_while_it_stands_still_alone() {
        let standstill = Standstill::default();
        let line = b"husk-dial 1 00112233445566778899aabbccddeeff\n";
        let received = [b"what was before", &line[..], b"PRI"].concat();
        assert_eq!(standstill.find_dial(&received), None);
        assert_eq!(standstill.begin(line.to_vec()), Ok(()));
        assert_eq!(standstill.find_dial(&received), Some(15));
        assert_eq!(standstill.find_dial(&received[..40]), None);
        let another = b"husk-dial 1 ffeeddccbbaa99887766554433221100\n";
        assert_eq!(standstill.find_dial(another), None);
        standstill.end();
        assert_eq!(standstill.find_dial(&received), None);
    }

    #[test]
    fn one_checkpoint_at_a_time() {
        let standstill = Standstill::default();
        assert_eq!(standstill.begin(Vec::new()), Ok(()));
        let refused = standstill.begin(Vec::new()).expect_err("a second one");
        assert_eq!(refused.class, Class::WrongState);
        assert!(standstill.end().is_empty());
        assert_eq!(standstill.begin(Vec::new()), Ok(()));
    }
}
