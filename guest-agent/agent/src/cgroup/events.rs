//! What happens in a cgroup, told by the kernel as it happens.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::counter;
use crate::error::{Context, Failure, Result};
use crate::watch::watch;

/// A subscription to changes of one file of a cgroup. The kernel tells of each by an inotify event.
pub struct CgroupEvents {
    inotify: AsyncFd<OwnedFd>,
    file: PathBuf,
}

impl CgroupEvents {
    /// Subscribes. Read the file after this and not before, so that no change falls in between.
    pub fn subscribe(cgroup: &Path, file: &str) -> Result<Self> {
        let file = cgroup.join(file);
        let what = || format!("watch {}", file.display());
        let inotify =
            Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).context(what)?;
        inotify
            .add_watch(&file, AddWatchFlags::IN_MODIFY)
            .context(what)?;
        let inotify = watch(OwnedFd::from(inotify), Interest::READABLE).context(what)?;
        Ok(CgroupEvents { inotify, file })
    }

    /// The number behind a key of the file; 0 where there is none.
    pub fn counter(&self, key: &str) -> u64 {
        counter(&fs::read_to_string(&self.file).unwrap_or_default(), key)
    }

    /// Answers when the file changed, or when the cgroup is gone.
    pub async fn changed(&mut self) -> Result<()> {
        let mut guard = self
            .inotify
            .readable()
            .await
            .context(|| "wait for the cgroup")?;
        // What the events say is known: one file is watched.
        let mut events = [0; 4096];
        while nix::unistd::read(self.inotify.get_ref(), &mut events).is_ok_and(|count| count > 0) {}
        guard.clear_ready();
        Ok(())
    }

    /// Answers when the key has the value.
    pub async fn reached(mut self, key: &str, value: u64, limit: Duration) -> Result<()> {
        let reached = async {
            while self.file.exists() && self.counter(key) != value {
                self.changed().await?;
            }
            Ok(())
        };
        tokio::time::timeout(limit, reached)
            .await
            .unwrap_or_else(|_| {
                Err(Failure::other(format!(
                    "the container's processes did not reach {key}={value} within {} s",
                    limit.as_secs()
                )))
            })
    }
}
