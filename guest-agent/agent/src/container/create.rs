//! Making a container, and further processes in it.

use std::sync::{Arc, Mutex};

use tokio::sync::{broadcast, watch};

use super::launch::{self, UserMappings};
use super::process::{Process, ProcessEnd};
use super::stdio::{Stdio, Wanted};
use super::{Container, INIT, watch_memory};
use crate::api;
use crate::cgroup::Cgroup;
use crate::child::wire::{InitPlan, Kind, Plan, TerminalSize};
use crate::error::{Class, Failure, Result};
use crate::init::reaper::{End, Ended};
use crate::sandbox::Sandbox;
use crate::spec::{self, Spec};
use crate::storage;

/// Makes a container with its first process, which waits for its start. On failure nothing is left.
pub async fn container(
    sandbox: &Sandbox,
    request: api::CreateContainerRequest,
) -> Result<Arc<Container>> {
    let spec: Spec = spec::parse("spec_json", &request.spec_json)?;
    crate::child::check(&spec)?;
    let process_json = process_json(&request.spec_json)?;
    let join = namespaces_to_join(sandbox, &spec)?;
    let rootfs = request
        .rootfs
        .ok_or_else(|| Failure::invalid("rootfs: expected a storage"))?;

    let mut storages = vec![rootfs.clone()];
    storages.extend(request.storages);
    let mounts = storage::mount(&request.container_id, storages).await?;
    let cgroup = match Cgroup::create(&request.container_id, &spec.linux.resources) {
        Ok(cgroup) => cgroup,
        Err(failure) => return Err(give_back(mounts, failure)),
    };
    let mappings = UserMappings {
        uids: spec.linux.uid_mappings.clone(),
        gids: spec.linux.gid_mappings.clone(),
    };
    let container = Arc::new(Container {
        id: request.container_id,
        cgroup,
        spec_json: String::from_utf8_lossy(&request.spec_json).into_owned(),
        spec,
        processes: Mutex::default(),
        mounts: Mutex::new(mounts),
    });
    let kind = Kind::Init(InitPlan {
        rootfs: rootfs.mount_point,
        join,
    });
    let stdio = request.stdio.unwrap_or_default();
    if let Err(failure) = launch_process(
        sandbox,
        &container,
        INIT,
        process_json,
        stdio,
        kind,
        mappings,
    )
    .await
    {
        if let Err(second) = container.destroy().await {
            crate::console::log(format_args!("container {}: {second}", container.id));
        }
        return Err(failure);
    }
    watch_memory(&container, sandbox.events.clone());
    Ok(container)
}

fn give_back(mounts: Vec<storage::Mounted>, failure: Failure) -> Failure {
    if let Err(second) = storage::unmount(mounts) {
        crate::console::log(second);
    }
    failure
}

/// Makes a further process of a running container; it waits for its start.
pub async fn process(
    sandbox: &Sandbox,
    container: &Arc<Container>,
    request: api::CreateProcessRequest,
) -> Result<Arc<Process>> {
    let wrong_state = |why: &str| {
        Failure::new(
            Class::WrongState,
            format!("container {}: {why}", container.id),
        )
    };
    let init = container.process(INIT)?;
    if init.end().is_some() {
        return Err(wrong_state("its first process has ended"));
    }
    if container.is_frozen() && !request.ignore_paused {
        return Err(wrong_state("it is paused"));
    }
    if request.process_id == INIT || container.has_process(&request.process_id) {
        let message = format!(
            "container {}: there is a process {:?} already",
            container.id, request.process_id
        );
        return Err(Failure::new(Class::AlreadyExists, message));
    }
    let wanted: spec::Process = spec::parse("process_json", &request.process_json)?;
    if wanted.args.is_empty() {
        return Err(Failure::invalid(
            "process_json: args: expected at least one",
        ));
    }
    let json = String::from_utf8_lossy(&request.process_json).into_owned();
    let kind = Kind::Exec { init_pid: init.pid };
    let stdio = request.stdio.unwrap_or_default();
    launch_process(
        sandbox,
        container,
        &request.process_id,
        json,
        stdio,
        kind,
        UserMappings::default(),
    )
    .await
}

async fn launch_process(
    sandbox: &Sandbox,
    container: &Arc<Container>,
    id: &str,
    process: String,
    stdio: api::Stdio,
    kind: Kind,
    mappings: UserMappings,
) -> Result<Arc<Process>> {
    let terminal = stdio
        .terminal
        .then(|| terminal_size(stdio.size.unwrap_or_default()));
    let plan = Plan {
        container_id: container.id.clone(),
        cgroup: container.cgroup.folder().to_string_lossy().into_owned(),
        spec: container.spec_json.clone(),
        process,
        terminal,
        kind,
    };
    let wanted = Wanted {
        stdin: stdio.stdin,
        stdout: stdio.stdout,
        stderr: stdio.stderr,
    };
    let (ours, theirs) = if terminal.is_some() {
        (Stdio::default(), Vec::new())
    } else {
        Stdio::pipes(wanted)?
    };
    let oom_kills = container.cgroup.counter("memory.events", "oom_kill");
    let launched = launch::launch(&sandbox.reaper, &plan, &theirs, &mappings).await?;
    drop(theirs);
    let stdio = match (terminal, launched.terminal) {
        (None, _) => ours,
        (Some(_), Some(master)) => Stdio::terminal(master)?,
        (Some(_), None) => return Err(Failure::other("the set-up process sent no terminal")),
    };
    let (sender, receiver) = watch::channel(None);
    let process = Process::new(id, launched.pid, stdio, launched.control, receiver);
    container.insert(process.clone());
    let follow = Follow {
        container: container.clone(),
        id: id.to_owned(),
        oom_kills,
        events: sandbox.events.clone(),
    };
    tokio::spawn(follow.until_the_end(launched.end, sender));
    Ok(process)
}

/// What is done when a process ends.
struct Follow {
    container: Arc<Container>,
    id: String,
    /// Kills for want of memory before it began.
    oom_kills: u64,
    events: broadcast::Sender<api::Event>,
}

impl Follow {
    async fn until_the_end(
        self,
        end: tokio::sync::oneshot::Receiver<Ended>,
        sender: watch::Sender<Option<ProcessEnd>>,
    ) {
        let Ok(ended) = end.await else { return };
        let kills = self.container.cgroup.counter("memory.events", "oom_kill");
        let oom_killed = ended.end == End::Killed(libc::SIGKILL) && kills > self.oom_kills;
        let end = ProcessEnd { ended, oom_killed };
        if self.id == INIT && !self.container.has_own_pid_namespace() {
            // The kernel ends a PID namespace with its first process; without one, that falls to us.
            if let Err(failure) = self.container.cgroup.kill() {
                crate::console::log(format_args!("container {}: {failure}", self.container.id));
            }
        }
        // The process may have been forgotten, and nobody may listen.
        let _ = sender.send(Some(end));
        let exit = api::ProcessExit {
            process_id: self.id,
            end: Some(end.into()),
        };
        let event = api::Event {
            container_id: self.container.id.clone(),
            event: Some(api::event::Event::Exit(exit)),
        };
        let _ = self.events.send(event);
    }
}

/// A window size that fits the kernel's 16 bits.
pub fn terminal_size(size: api::WindowSize) -> TerminalSize {
    let fit = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    TerminalSize {
        rows: fit(size.rows),
        columns: fit(size.columns),
    }
}

/// The process object of a spec, as it came.
fn process_json(spec_json: &[u8]) -> Result<String> {
    let spec: serde_json::Value = spec::parse("spec_json", spec_json)?;
    let process = spec
        .get("process")
        .ok_or_else(|| Failure::invalid("spec_json: process: expected an object"))?;
    let parsed: spec::Process = spec::parse("spec_json: process", process.to_string().as_bytes())?;
    if parsed.args.is_empty() {
        return Err(Failure::invalid(
            "spec_json: process.args: expected at least one",
        ));
    }
    Ok(process.to_string())
}

/// The namespaces of other containers that the spec names: the type, and a process that is in it.
fn namespaces_to_join(sandbox: &Sandbox, spec: &Spec) -> Result<Vec<(String, i32)>> {
    let mut join = Vec::new();
    for namespace in spec
        .linux
        .namespaces
        .iter()
        .filter(|namespace| !namespace.path.is_empty())
    {
        if namespace.r#type == "network" {
            // The guest's network is every container's.
            continue;
        }
        let Some(id) = namespace.path.strip_prefix("container:") else {
            let what = format!("linux.namespaces: {} {}", namespace.r#type, namespace.path);
            return Err(Failure::unsupported(format!(
                "{what}: only namespaces of containers in the same sandbox can be joined"
            )));
        };
        let init = sandbox.container(id)?.process(INIT)?;
        if init.end().is_some() {
            return Err(Failure::new(
                Class::WrongState,
                format!("linux.namespaces: container {id} has ended"),
            ));
        }
        join.push((namespace.r#type.clone(), init.pid));
    }
    Ok(join)
}
