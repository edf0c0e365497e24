//! The virtio-serial port of the agent.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::DeviceStream;
use crate::error::{Context, Result};
use crate::uevent;

/// The name that the host gave the port.
pub const PORT_NAME: &str = "husk.agent";
const PORTS: &str = "/sys/class/virtio-ports";
/// The port is there as soon as its driver is; without it the machine is of no use.
const LIMIT: Duration = Duration::from_secs(30);

/// Opens the port, once it is there. The host sees that as the port's opening (QMP's VSERPORT_CHANGE).
pub async fn open() -> Result<DeviceStream> {
    let path = uevent::wait_for("the virtio-serial port husk.agent", LIMIT, || {
        find(Path::new(PORTS))
    })
    .await?;
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let fd = nix::fcntl::open(&path, flags, Mode::empty())
        .context(|| format!("open {}", path.display()))?;
    DeviceStream::new(fd).context(|| format!("watch {}", path.display()))
}

/// The device file of the port with the agent's name, by what sysfs says.
fn find(ports: &Path) -> Option<PathBuf> {
    let entry = fs::read_dir(ports).ok()?.flatten().find(|entry| {
        fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim_end() == PORT_NAME)
    })?;
    let device = Path::new("/dev").join(entry.file_name());
    device.exists().then_some(device)
}
