//! Containers and their processes, as the agent knows them.

mod control;
pub mod create;
pub mod launch;
pub mod output;
pub mod process;
pub mod spawn;
pub mod stdin;
mod stdio;
mod young;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::task::AbortHandle;

use crate::api;
use crate::cgroup::{Cgroup, CgroupEvents};
use crate::error::{Class, Failure, Result};
use crate::spec::Spec;
use crate::storage::Mounted;
use process::Process;

/// The name of a container's first process.
pub const INIT: &str = "";
/// The longest name of a process.
const MAX_ID: usize = 256;
/// After a SIGKILL to all, a cgroup empties within this, or something holds a process in the kernel.
const EMPTY_LIMIT: Duration = Duration::from_secs(10);

/// A container: its cgroup, its mounts in the guest, its processes.
pub struct Container {
    pub id: String,
    pub cgroup: Cgroup,
    pub spec: Spec,
    /// The spec as it came, for the processes that are set up later.
    pub spec_json: String,
    /// By name. None: being made.
    processes: Mutex<HashMap<String, Option<Arc<Process>>>>,
    mounts: Mutex<Vec<Mounted>>,
    /// Of `watch_memory`.
    memory_watch: OnceLock<AbortHandle>,
}

/// A name that belongs to a process in the making; given back where none came of it.
pub struct Reserved<'a> {
    container: &'a Container,
    id: &'a str,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut processes = self.container.lock();
        if processes.get(self.id).is_some_and(Option::is_none) {
            processes.remove(self.id);
        }
    }
}

impl Container {
    /// A container without processes yet.
    pub fn new(
        id: String,
        cgroup: Cgroup,
        spec: Spec,
        spec_json: String,
        mounts: Vec<Mounted>,
    ) -> Self {
        let (processes, mounts) = (Mutex::default(), Mutex::new(mounts));
        Container {
            id,
            cgroup,
            spec,
            spec_json,
            processes,
            mounts,
            memory_watch: OnceLock::new(),
        }
    }

    /// The process of a name; "" is the first one.
    pub fn process(&self, id: &str) -> Result<Arc<Process>> {
        match self.lock().get(id) {
            Some(Some(process)) => Ok(process.clone()),
            Some(None) => {
                let message = format!("container {}: process {id:?} is being created", self.id);
                Err(Failure::new(Class::WrongState, message))
            }
            None => {
                let message = format!("container {}: no process {id:?}", self.id);
                Err(Failure::new(Class::ProcessNotFound, message))
            }
        }
    }

    /// All processes that the host knows by name.
    pub fn known_processes(&self) -> Vec<Arc<Process>> {
        self.lock().values().flatten().cloned().collect()
    }

    /// Puts a process in its place.
    pub fn insert(&self, process: Arc<Process>) {
        self.lock().insert(process.id.clone(), Some(process));
    }

    /// Reserves a name for a process, so that two calls cannot make the same one.
    pub fn reserve<'a>(&'a self, id: &'a str) -> Result<Reserved<'a>> {
        let mut processes = self.lock();
        if id.len() > MAX_ID {
            return Err(Failure::invalid(format!(
                "process_id: expected at most {MAX_ID} bytes"
            )));
        }
        if id == INIT || processes.contains_key(id) {
            let message = format!("container {}: there is a process {id:?} already", self.id);
            return Err(Failure::new(Class::AlreadyExists, message));
        }
        processes.insert(id.to_owned(), None);
        Ok(Reserved {
            container: self,
            id,
        })
    }

    /// Forgets an ended process other than the first; kills it where it was never started.
    pub async fn delete_process(&self, id: &str) -> Result<()> {
        if id == INIT {
            return Err(Failure::invalid(
                "process_id: the container's first process goes with the container",
            ));
        }
        let process = self.process(id)?;
        if process.end().is_none() {
            if process.is_started() {
                return Err(Failure::new(
                    Class::WrongState,
                    format!("container {}: process {id:?} is running", self.id),
                ));
            }
            process.signal(libc::SIGKILL)?;
            process.wait().await;
        }
        self.lock().remove(id);
        Ok(())
    }

    /// Whether its first process has not ended.
    pub fn runs(&self) -> bool {
        self.process(INIT).is_ok_and(|init| init.end().is_none())
    }

    /// Whether the container's processes are in a PID namespace that its first process made, and with which they end.
    pub fn has_own_pid_namespace(&self) -> bool {
        self.spec
            .linux
            .namespace("pid")
            .is_some_and(|namespace| namespace.path.is_empty())
    }

    /// Sends a signal to the process of that name.
    pub async fn signal(&self, id: &str, signal: i32) -> Result<()> {
        let process = self.process(id)?;
        if id == INIT && self.has_own_pid_namespace() {
            return process.signal_first(signal).await;
        }
        process.signal(signal)
    }

    /// Sends a signal to every process of the container.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        if signal == libc::SIGKILL {
            return self.cgroup.kill();
        }
        for pid in self.cgroup.processes()? {
            process::kill(pid, signal)?;
        }
        Ok(())
    }

    /// Stops all processes, or lets them go on; answers when it is so.
    pub async fn freeze(&self, frozen: bool) -> Result<()> {
        let events = CgroupEvents::subscribe(self.cgroup.folder(), "cgroup.events")?;
        self.cgroup.freeze(frozen)?;
        events
            .reached("frozen", u64::from(frozen), EMPTY_LIMIT)
            .await
    }

    /// Whether the container is paused.
    pub fn is_frozen(&self) -> bool {
        self.cgroup.counter("cgroup.events", "frozen") == 1
    }

    /// Kills what is left, and gives back the cgroup and the mounts. May be called again where it failed.
    pub async fn destroy(&self) -> Result<()> {
        let events = CgroupEvents::subscribe(self.cgroup.folder(), "cgroup.events")?;
        self.cgroup.kill()?;
        events.reached("populated", 0, EMPTY_LIMIT).await?;
        let mounts =
            std::mem::take(&mut *self.mounts.lock().unwrap_or_else(PoisonError::into_inner));
        crate::storage::unmount(mounts).await?;
        crate::storage::forget(&self.id).await?;
        self.cgroup.remove()?;
        // The kernel tells nobody who watches a cgroup's file that it is gone.
        if let Some(watch) = self.memory_watch.get() {
            watch.abort();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Option<Arc<Process>>>> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the host of kills for want of memory, for as long as the container is there.
pub fn watch_memory(container: &Arc<Container>, events: broadcast::Sender<api::Event>) {
    // Without a memory controller nothing is ever killed for a limit.
    let Ok(mut changes) = CgroupEvents::subscribe(container.cgroup.folder(), "memory.events")
    else {
        return;
    };
    let id = container.id.clone();
    let watch = tokio::spawn(async move {
        let mut known = 0;
        while changes.changed().await.is_ok() {
            let kills = changes.counter("oom_kill");
            if kills > known {
                known = kills;
                let event = api::event::Event::Oom(api::OutOfMemory { oom_kills: kills });
                // Nobody listens: then nobody wants to know.
                let _ = events.send(api::Event {
                    container_id: id.clone(),
                    event: Some(event),
                });
            }
        }
    });
    // A container is watched once.
    let _ = container.memory_watch.set(watch.abort_handle());
}
