//! Each call of the API, as what it does to the sandbox.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::answer::Handed;
use super::filling::fill;
use super::io::Lost;
use super::reading::Reading;
use super::{events, loopback, names};
use crate::api::agent_service_server::AgentService;
use crate::api::*;
use crate::container::process::Process;
use crate::container::{Container, INIT, create, spawn};
use crate::error::{Failure, Result};
use crate::sandbox::Sandbox;
use crate::{
    checkpoint, child, clock, init, inventory, network, processes, size, spec, stats, storage,
};

/// The service, for as long as a session lasts.
pub struct Agent {
    sandbox: Arc<Sandbox>,
    lost: Lost,
}

/// More than the answer's headers, message and trailers need on their way through the HTTP/2 connection.
const TURNS_OF_AN_ANSWER: u32 = 64;

type Answer<T> = std::result::Result<Response<T>, Status>;

impl Agent {
    /// Serves a sandbox, in a session that may get lost.
    pub fn new(sandbox: Arc<Sandbox>, lost: Lost) -> Self {
        Agent { sandbox, lost }
    }

    fn container(&self, id: &str) -> Result<Arc<Container>> {
        self.sandbox.container(id)
    }

    fn process(&self, container_id: &str, process_id: &str) -> Result<Arc<Process>> {
        self.container(container_id)?.process(process_id)
    }
}

fn answer<T>(message: T) -> Answer<T> {
    Ok(Response::new(message))
}

/// Runs a change to its end even where the caller goes away in the middle, so that nothing is left half done.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work)
        .await
        .unwrap_or_else(|_| Err(interrupted()))
}

fn interrupted() -> Failure {
    Failure::other("the call was interrupted")
}

#[async_trait]
impl AgentService for Agent {
    /// Of nothing: what there is to tell is handed on to the answer's body.
    type ReadOutputStream = tokio_stream::Empty<std::result::Result<ReadOutputResponse, Status>>;
    type EventsStream = events::EventStream;
    type ResolveNamesStream = ReceiverStream<std::result::Result<NameQuery, Status>>;
    type ConnectLoopbackStream =
        ReceiverStream<std::result::Result<ConnectLoopbackResponse, Status>>;

    async fn create_sandbox(
        &self,
        request: Request<CreateSandboxRequest>,
    ) -> Answer<CreateSandboxResponse> {
        let request = request.into_inner();
        let mut done = Vec::new();
        if request.clock_unix_ns != 0 {
            clock::set_unix_ns(request.clock_unix_ns)?;
            done.push("clock".to_owned());
        }
        if !request.random_seed.is_empty() {
            clock::seed_random(&request.random_seed)?;
            done.push("random".to_owned());
        }
        if !request.hostname.is_empty() {
            nix::unistd::sethostname(&request.hostname).map_err(|errno| {
                Failure::invalid(format!("hostname {:?}: {errno}", request.hostname))
            })?;
            done.push("hostname".to_owned());
        }
        if !request.machine_id.is_empty() {
            self.sandbox.machine_id.set(&request.machine_id)?;
            done.push("machine-id".to_owned());
        }
        for share in request.shares {
            storage::share::mount(&self.sandbox, share).await?;
        }
        answer(CreateSandboxResponse {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel_release: crate::modules::kernel_release()?,
            boot_ns: self.sandbox.began_ns,
            done,
        })
    }

    async fn park_sandbox(
        &self,
        request: Request<ParkSandboxRequest>,
    ) -> Answer<ParkSandboxResponse> {
        storage::share::park(&self.sandbox, request.into_inner().mount_points).await?;
        answer(ParkSandboxResponse {})
    }

    async fn resize_sandbox(
        &self,
        request: Request<ResizeSandboxRequest>,
    ) -> Answer<ResizeSandboxResponse> {
        let request = request.into_inner();
        to_the_end(async move { size::apply(request).await }).await?;
        answer(ResizeSandboxResponse {})
    }

    async fn configure_network(
        &self,
        request: Request<ConfigureNetworkRequest>,
    ) -> Answer<ConfigureNetworkResponse> {
        network::configure(&self.sandbox.network, request.into_inner()).await?;
        answer(ConfigureNetworkResponse {})
    }

    async fn set_sysctls(&self, request: Request<SetSysctlsRequest>) -> Answer<SetSysctlsResponse> {
        child::set_shared_sysctls(&request.get_ref().settings)?;
        answer(SetSysctlsResponse {})
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Answer<CreateContainerResponse> {
        let (sandbox, request) = (self.sandbox.clone(), request.into_inner());
        let pid = to_the_end(async move {
            let reservation = sandbox.reserve(&request.container_id)?;
            let container = create::container(&sandbox, request).await?;
            let pid = container.process(INIT)?.pid;
            reservation.fill(container);
            Ok(pid)
        })
        .await?;
        answer(CreateContainerResponse { pid: pid as u32 })
    }

    async fn create_process(
        &self,
        request: Request<CreateProcessRequest>,
    ) -> Answer<CreateProcessResponse> {
        let (sandbox, request) = (self.sandbox.clone(), request.into_inner());
        let container = self.container(&request.container_id)?;
        let process =
            to_the_end(async move { spawn::further_process(&sandbox, &container, request).await })
                .await?;
        answer(CreateProcessResponse {
            pid: process.pid as u32,
        })
    }

    async fn start_process(
        &self,
        request: Request<StartProcessRequest>,
    ) -> Answer<StartProcessResponse> {
        let request = request.into_inner();
        let container = if request.once_made {
            self.sandbox.container_to_be(&request.container_id).await
        } else {
            self.container(&request.container_id)?
        };
        let process = container.process(&request.process_id)?;
        to_the_end(async move { process.start().await }).await?;
        answer(StartProcessResponse {})
    }

    async fn wait_process(
        &self,
        request: Request<WaitProcessRequest>,
    ) -> Answer<WaitProcessResponse> {
        let request = request.into_inner();
        let end = self
            .process(&request.container_id, &request.process_id)?
            .wait()
            .await;
        let mut response = WaitProcessResponse::from(end);
        response.is_last = request.process_id == INIT && !self.sandbox.has_processes();
        answer(response)
    }

    async fn signal_process(
        &self,
        request: Request<SignalProcessRequest>,
    ) -> Answer<SignalProcessResponse> {
        let request = request.into_inner();
        let signal = super::signal_number(request.signal)?;
        let container = self.container(&request.container_id)?;
        if !request.all {
            container.signal(&request.process_id, signal).await?;
        } else if request.process_id.is_empty() {
            container.signal_all(signal)?;
        } else {
            return Err(Failure::invalid(
                "process_id: expected none where all processes get the signal",
            )
            .into());
        }
        answer(SignalProcessResponse {})
    }

    async fn delete_process(
        &self,
        request: Request<DeleteProcessRequest>,
    ) -> Answer<DeleteProcessResponse> {
        let request = request.into_inner();
        self.sandbox
            .forget_process(&request.container_id, &request.process_id)
            .await?;
        answer(DeleteProcessResponse {})
    }

    async fn delete_container(
        &self,
        request: Request<DeleteContainerRequest>,
    ) -> Answer<DeleteContainerResponse> {
        let (sandbox, id) = (self.sandbox.clone(), request.into_inner().container_id);
        to_the_end(async move {
            sandbox.container(&id)?.destroy().await?;
            sandbox.forget(&id);
            Ok(())
        })
        .await?;
        answer(DeleteContainerResponse {})
    }

    async fn write_stdin(
        &self,
        request: Request<Streaming<WriteStdinRequest>>,
    ) -> Answer<WriteStdinResponse> {
        let mut messages = request.into_inner();
        let Some(first) = messages.message().await? else {
            return Err(Failure::invalid("expected a first message that names the process").into());
        };
        let process = self.process(&first.container_id, &first.process_id)?;
        let sink = process.stdio.take_stdin()?;
        let end = fill(&process, &sink, first, &mut messages).await;
        if let Err(status) = end {
            // The call was broken off without an end of file: another one may go on.
            process.stdio.put_stdin_back(sink);
            return Err(status);
        }
        answer(WriteStdinResponse {})
    }

    async fn read_output(
        &self,
        request: Request<ReadOutputRequest>,
    ) -> Answer<Self::ReadOutputStream> {
        let request = request.into_inner();
        let process = self.process(&request.container_id, &request.process_id)?;
        let reading = Reading::begin(&self.sandbox, process, request, self.lost.clone())?;
        let mut response = Response::new(tokio_stream::empty());
        response.extensions_mut().insert(Handed::of(reading));
        Ok(response)
    }

    async fn resize_pty(&self, request: Request<ResizePtyRequest>) -> Answer<ResizePtyResponse> {
        let request = request.into_inner();
        let size = spawn::terminal_size(request.size.unwrap_or_default());
        self.process(&request.container_id, &request.process_id)?
            .resize(size)?;
        answer(ResizePtyResponse {})
    }

    async fn list_processes(
        &self,
        request: Request<ListProcessesRequest>,
    ) -> Answer<ListProcessesResponse> {
        let container = self.container(&request.into_inner().container_id)?;
        answer(ListProcessesResponse {
            processes: processes::list(&container)?,
        })
    }

    async fn pause_container(
        &self,
        request: Request<PauseContainerRequest>,
    ) -> Answer<PauseContainerResponse> {
        self.container(&request.into_inner().container_id)?
            .freeze(true)
            .await?;
        answer(PauseContainerResponse {})
    }

    async fn resume_container(
        &self,
        request: Request<ResumeContainerRequest>,
    ) -> Answer<ResumeContainerResponse> {
        self.container(&request.into_inner().container_id)?
            .freeze(false)
            .await?;
        answer(ResumeContainerResponse {})
    }

    async fn update_container(
        &self,
        request: Request<UpdateContainerRequest>,
    ) -> Answer<UpdateContainerResponse> {
        let request = request.into_inner();
        let container = self.container(&request.container_id)?;
        let resources: spec::Resources = spec::parse("resources_json", &request.resources_json)?;
        container.cgroup.update(&resources)?;
        if let Some(rules) = &resources.devices {
            container.cgroup.set_devices(rules)?;
        }
        answer(UpdateContainerResponse {})
    }

    async fn stats_container(
        &self,
        request: Request<StatsContainerRequest>,
    ) -> Answer<StatsContainerResponse> {
        let container = self.container(&request.into_inner().container_id)?;
        answer(stats::of(container.cgroup.folder())?)
    }

    async fn resolve_names(
        &self,
        request: Request<Streaming<NameAnswer>>,
    ) -> Answer<Self::ResolveNamesStream> {
        answer(names::serve(&self.sandbox.names, request.into_inner()).await?)
    }

    async fn connect_loopback(
        &self,
        request: Request<Streaming<ConnectLoopbackRequest>>,
    ) -> Answer<Self::ConnectLoopbackStream> {
        answer(loopback::connect(request.into_inner()).await?)
    }

    async fn prepare_checkpoint(
        &self,
        request: Request<PrepareCheckpointRequest>,
    ) -> Answer<PrepareCheckpointResponse> {
        let (sandbox, request) = (self.sandbox.clone(), request.into_inner());
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let ready = checkpoint::prepare(&sandbox, request).await;
            // Whoever waited no longer for it takes no checkpoint, and lets nothing go on.
            if let Err(Ok(_)) = tell.send(ready) {
                checkpoint::give_up(&sandbox).await;
            }
        });
        answer(told.await.unwrap_or_else(|_| Err(interrupted()))?)
    }

    async fn finish_checkpoint(
        &self,
        _: Request<FinishCheckpointRequest>,
    ) -> Answer<FinishCheckpointResponse> {
        let sandbox = self.sandbox.clone();
        to_the_end(async move { checkpoint::finish(&sandbox).await }).await?;
        answer(FinishCheckpointResponse {})
    }

    async fn events(&self, _: Request<EventsRequest>) -> Answer<events::EventStream> {
        answer(events::stream(self.sandbox.events.subscribe()))
    }

    async fn take_inventory(
        &self,
        _: Request<TakeInventoryRequest>,
    ) -> Answer<TakeInventoryResponse> {
        self.sandbox.launcher.replenish().await?;
        let items = inventory::take(&self.sandbox.container_ids())?;
        answer(TakeInventoryResponse { items })
    }

    async fn shutdown(&self, _: Request<ShutdownRequest>) -> Answer<ShutdownResponse> {
        init::power::settle(self.sandbox.has_processes());
        tokio::spawn(async {
            // A few turns of the event loop, in which the answer leaves: the port takes it at once.
            for _ in 0..TURNS_OF_AN_ANSWER {
                tokio::task::yield_now().await;
            }
            init::power::cut();
        });
        answer(ShutdownResponse {})
    }
}
