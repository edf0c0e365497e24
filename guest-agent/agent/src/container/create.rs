//! Making a container.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::launch::UserMappings;
use super::spawn::NewProcess;
use super::{Container, INIT, watch_memory};
use crate::api;
use crate::cgroup::Cgroup;
use crate::child::wire::{InitPlan, Kind};
use crate::error::{Class, Context, Failure, Result};
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
    let join = namespaces_to_join(sandbox, &spec).await?;
    let rootfs = request
        .rootfs
        .ok_or_else(|| Failure::invalid("rootfs: expected a storage"))?;

    let mut storages = vec![rootfs.clone()];
    storages.extend(request.storages);
    let mounts = storage::mount(sandbox, &request.container_id, storages).await?;
    let cgroup = match Cgroup::create(&request.container_id, &spec.linux.resources) {
        Ok(cgroup) => cgroup,
        Err(failure) => return Err(give_back(mounts, failure).await),
    };
    let mappings = UserMappings {
        uids: spec.linux.uid_mappings.clone(),
        gids: spec.linux.gid_mappings.clone(),
    };
    let json = String::from_utf8_lossy(&request.spec_json).into_owned();
    let container = Arc::new(Container::new(
        request.container_id,
        cgroup,
        spec,
        json,
        mounts,
    ));
    let kind = Kind::Init(InitPlan {
        rootfs: rootfs.mount_point,
        join,
    });
    let stdio = request.stdio.unwrap_or_default();
    let new = NewProcess {
        cgroup: None,
        id: INIT,
        json: process_json,
        stdio,
        kind,
        mappings,
    };
    if let Err(failure) = new.spawn(sandbox, &container).await {
        if let Err(second) = container.destroy().await {
            crate::console::log(format_args!("container {}: {second}", container.id));
        }
        return Err(failure);
    }
    watch_memory(&container, sandbox.events.clone());
    Ok(container)
}

async fn give_back(mounts: Vec<storage::Mounted>, failure: Failure) -> Failure {
    if let Err(second) = storage::unmount(mounts).await {
        crate::console::log(second);
    }
    failure
}

/// The process object of a spec, as it came.
fn process_json(spec_json: &[u8]) -> Result<String> {
    #[derive(Deserialize)]
    struct Part<'a> {
        #[serde(borrow)]
        process: Option<&'a RawValue>,
    }
    let part: Part = serde_json::from_slice(spec_json)
        .class(Class::InvalidArgument, || "spec_json".to_owned())?;
    let process = part
        .process
        .ok_or_else(|| Failure::invalid("spec_json: process: expected an object"))?;
    Ok(process.get().to_owned())
}

/// The namespaces of other containers that the spec names: the type, and a process that is in it.
async fn namespaces_to_join(sandbox: &Sandbox, spec: &Spec) -> Result<Vec<(String, i32)>> {
    let mut join = Vec::new();
    for namespace in &spec.linux.namespaces {
        if namespace.path.is_empty() {
            continue;
        }
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
    if spec.linux.namespace("pid").is_none() {
        join.push(("pid".to_owned(), sandbox.first_process().await?));
    }
    Ok(join)
}
