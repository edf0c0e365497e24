//! PID 1: prepares the guest, then serves the host for as long as the machine runs.

mod command_line;
mod mounts;
pub mod power;
pub mod reaper;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::channel::Channel;
use crate::container::launch::Launcher;
use crate::devices::parked::Parked;
use crate::error::{Context, Result};
use crate::machine_id::MachineId;
use crate::{clock, console, modules, network, sandbox::Sandbox, service};

/// Where the image says which modules the guest needs, one name a line; Debian's stock kernel has nearly all as modules.
const MODULES_LIST: &str = "/etc/husk/modules";

/// Longer than a machine lives.
const THREADS_STAY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Never returns while the machine is up: when it fails, the machine is powered off.
pub fn main() -> ExitCode {
    let began_ns = clock::boot_ns();
    console::power_off_on_panic();
    if let Err(failure) = prepare().and_then(|prepared| serve(prepared, began_ns)) {
        console::log(format_args!("fatal: {failure}"));
    }
    power::off();
    ExitCode::FAILURE
}

/// What there is before the first call.
struct Prepared {
    channel: Channel,
    parked: Parked,
}

/// Everything that must be there before the first call.
fn prepare() -> Result<Prepared> {
    mounts::mount_all()?;
    // No container may trace PID 1 or look into its memory by the same user id alone.
    nix::sys::prctl::set_dumpable(false).context(|| "make PID 1 undumpable")?;
    crate::child::set_own_rlimits()?;
    modules::install_helper();
    modules::load_listed(Path::new(MODULES_LIST));
    if let Err(failure) = crate::cgroup::anticipate() {
        console::log(failure); // the first container is told, in its own words
    }
    // A container that is given no network has this much of one.
    network::set_loopback_up()?;
    let command_line = std::fs::read_to_string("/proc/cmdline").context(|| "read /proc/cmdline")?;
    let parked = command_line::parks_share(&command_line)
        .then(Parked::park)
        .transpose()
        .context(|| "park the devices")?
        .unwrap_or_default();
    Ok(Prepared {
        channel: command_line::channel(&command_line)?,
        parked,
    })
}

fn serve(Prepared { channel, parked }: Prepared, began_ns: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(THREADS_STAY)
        .thread_stack_size(256 * 1024)
        .build()
        .context(|| "start the event loop")?;
    runtime.block_on(async {
        let launcher = Launcher::new(reaper::start()?).await?;
        let sandbox = Sandbox::new(launcher, parked, began_ns, MachineId::prepare()?);
        // A thread for what may block is there from the beginning as well, for the same reason.
        tokio::task::spawn_blocking(|| ())
            .await
            .context(|| "start a thread")?;
        let mut listener = channel.open().await?;
        loop {
            let mut connection = listener.accept().await?;
            service::serve(&mut connection, sandbox.clone()).await;
            if sandbox.checkpoint.is_on() {
                // The machine was restored: its host may have dialled by now, and the kernel drops with a port's closing what was not read of it.
                listener.take_back(connection);
            } else {
                // Closed, and opened anew for the next one: the host sees that this one is over (QMP's VSERPORT_CHANGE), and dials no sooner.
                drop(connection);
            }
        }
    })
}
