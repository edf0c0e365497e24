//! The sandbox: all that the agent knows, shared by the calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, broadcast};

use crate::api;
use crate::child::wire::{Kind, Plan};
use crate::container::Container;
use crate::container::launch::{Launched, Launcher, UserMappings};
use crate::devices::parked::Parked;
use crate::error::{Class, Failure, Result};
use crate::machine_id::MachineId;

/// Events that a slow listener may be behind by.
const EVENTS: usize = 1024;
/// An id is a file name.
const MAX_ID: usize = 128;

/// A container's place: taken from the first moment on, so that two calls cannot make the same one.
enum Place {
    BeingMade,
    There(Arc<Container>),
}

/// The state of the guest.
pub struct Sandbox {
    pub launcher: Launcher,
    /// The shared folder and the disk of a clone that have not been taken into use yet.
    pub parked: Mutex<Parked>,
    pub events: broadcast::Sender<api::Event>,
    /// CLOCK_BOOTTIME when the agent began.
    pub began_ns: u64,
    pub machine_id: MachineId,
    pub network: crate::network::Applied,
    /// Held by the call that brings the guest its name server.
    pub names: crate::service::Busy,
    /// What stands still for a checkpoint.
    pub checkpoint: crate::checkpoint::Standstill,
    containers: Mutex<HashMap<String, Place>>,
    /// Told when a container is made.
    made: Notify,
    /// The first process of the PID namespace of containers that have none of their own; made when the first of them is.
    first_process: tokio::sync::OnceCell<Launched>,
}

impl Sandbox {
    /// An empty sandbox.
    pub fn new(
        launcher: Launcher,
        parked: Parked,
        began_ns: u64,
        machine_id: MachineId,
    ) -> Arc<Self> {
        let (events, _) = broadcast::channel(EVENTS);
        Arc::new(Sandbox {
            launcher,
            parked: Mutex::new(parked),
            events,
            began_ns,
            machine_id,
            network: Default::default(),
            names: Default::default(),
            checkpoint: Default::default(),
            containers: Mutex::default(),
            made: Notify::new(),
            first_process: tokio::sync::OnceCell::new(),
        })
    }

    /// The first process of the sandbox's own PID namespace.
    pub async fn first_process(&self) -> Result<i32> {
        let plan = Plan {
            kind: Kind::SandboxInit,
            ..Plan::default()
        };
        let mappings = UserMappings::default();
        let make = || self.launcher.launch(&plan, &[], &mappings);
        self.first_process
            .get_or_try_init(make)
            .await
            .map(|process| process.pid)
    }

    /// The container of that id.
    pub fn container(&self, id: &str) -> Result<Arc<Container>> {
        match self.lock().get(id) {
            Some(Place::There(container)) => Ok(container.clone()),
            Some(Place::BeingMade) => Err(Failure::new(
                Class::WrongState,
                format!("container {id} is being created"),
            )),
            None => Err(Failure::new(
                Class::ContainerNotFound,
                format!("no container {id:?}"),
            )),
        }
    }

    /// The container of that id, once there is one: whoever asks knows that it is being made, or about to.
    pub async fn container_to_be(&self, id: &str) -> Arc<Container> {
        loop {
            let made = self.made.notified();
            tokio::pin!(made);
            // From here on nothing is missed.
            made.as_mut().enable();
            if let Ok(container) = self.container(id) {
                return container;
            }
            made.await;
        }
    }

    /// Forgets a further process. Where those come and go, more are likely to: the set-up of one waits then, once there is nothing else to do.
    pub async fn forget_process(self: &Arc<Self>, container_id: &str, id: &str) -> Result<()> {
        let container = self.container(container_id)?;
        container.delete_process(id).await?;
        if container.runs() {
            let sandbox = self.clone();
            tokio::spawn(async move {
                if let Err(failure) = sandbox.launcher.replenish().await {
                    // The next one will be started when it is needed, and will say what is wrong.
                    crate::console::log(format_args!("no set-up process waits: {failure}"));
                }
            });
        }
        Ok(())
    }

    /// Whether processes of containers live.
    pub fn has_processes(&self) -> bool {
        let lives =
            |container: &Arc<Container>| container.cgroup.counter("cgroup.events", "populated") > 0;
        self.all_containers().iter().any(lives)
    }

    /// All containers that are made.
    pub fn all_containers(&self) -> Vec<Arc<Container>> {
        let there = |place: &Place| match place {
            Place::There(container) => Some(container.clone()),
            Place::BeingMade => None,
        };
        self.lock().values().filter_map(there).collect()
    }

    /// Reserves an id; the guard frees it again unless the container is put in its place.
    pub fn reserve<'a>(&'a self, id: &str) -> Result<Reservation<'a>> {
        check_id(id)?;
        let mut containers = self.lock();
        if containers.contains_key(id) {
            return Err(Failure::new(
                Class::AlreadyExists,
                format!("there is a container {id} already"),
            ));
        }
        containers.insert(id.to_owned(), Place::BeingMade);
        Ok(Reservation {
            sandbox: self,
            id: id.to_owned(),
            filled: false,
        })
    }

    /// The ids of all containers, those in the making as well.
    pub fn container_ids(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Forgets a container.
    pub fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Place>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// An id that belongs to a container in the making.
pub struct Reservation<'a> {
    sandbox: &'a Sandbox,
    id: String,
    filled: bool,
}

impl Reservation<'_> {
    /// Puts the container in its place.
    pub fn fill(mut self, container: Arc<Container>) {
        self.filled = true;
        self.sandbox
            .lock()
            .insert(self.id.clone(), Place::There(container));
        self.sandbox.made.notify_waiters();
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.filled {
            self.sandbox.lock().remove(&self.id);
        }
    }
}

/// An id names folders of the guest and a cgroup.
fn check_id(id: &str) -> Result<()> {
    let sane = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.is_empty() || id.len() > MAX_ID || id.starts_with('.') || !id.bytes().all(sane) {
        return Err(Failure::invalid(format!(
            "container_id: expected up to {MAX_ID} letters, digits and _+-. , got {id:?}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_plain_file_name() {
        assert_eq!(check_id("c1_a+b-c.d"), Ok(()));
        for id in ["", "..", ".x", "a/b", "a b", &"x".repeat(129)] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }
}
