//! Making a process of a container, up to its start, and following it to its end.

use std::sync::Arc;

use tokio::sync::{broadcast, oneshot, watch};

use super::launch::UserMappings;
use super::output;
use super::process::{Process, ProcessEnd};
use super::stdio::{Stdio, Wanted};
use super::{Container, INIT};
use crate::api;
use crate::child::wire::{Kind, Plan, TerminalSize};
use crate::error::{Class, Failure, Result};
use crate::init::reaper::{End, Ended};
use crate::sandbox::Sandbox;
use crate::spec;

/// A process that is to be made.
pub struct NewProcess<'a> {
    pub id: &'a str,
    /// The spec's process object.
    pub json: String,
    pub stdio: api::Stdio,
    pub kind: Kind,
    pub mappings: UserMappings,
    /// Below the container's, and none in its place. None: that one itself, or init's where it takes no process.
    pub cgroup: Option<&'a str>,
}

/// Makes a further process of a running container; it waits for its start.
pub async fn further_process(
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
    let cgroup = sub_cgroup(&request.cgroup)?;
    let _reserved = container.reserve(&request.process_id)?;
    let new = NewProcess {
        cgroup,
        id: &request.process_id,
        json: String::from_utf8_lossy(&request.process_json).into_owned(),
        stdio: request.stdio.unwrap_or_default(),
        kind: Kind::Exec { init_pid: init.pid },
        mappings: UserMappings::default(),
    };
    new.spawn(sandbox, container).await
}

/// The path below the container's cgroup that an exec asks for. It must not lead out of that.
fn sub_cgroup(path: &str) -> Result<Option<&str>> {
    if path.split('/').any(|part| part == "..") {
        return Err(Failure::invalid(format!(
            "--cgroup: {path} is not a sub cgroup path"
        )));
    }
    Ok((!path.is_empty()).then(|| path.trim_matches('/')))
}

impl NewProcess<'_> {
    /// Sets it up, and follows it.
    pub async fn spawn(
        self,
        sandbox: &Sandbox,
        container: &Arc<Container>,
    ) -> Result<Arc<Process>> {
        let process: spec::Process = spec::parse("process", self.json.as_bytes())?;
        if process.args.is_empty() {
            return Err(Failure::invalid("process: args: expected at least one"));
        }
        let terminal = self
            .stdio
            .terminal
            .then(|| terminal_size(self.stdio.size.unwrap_or_default()));
        let plan = Plan {
            container_id: container.id.clone(),
            cgroup: container
                .cgroup
                .folder()
                .join(self.cgroup.unwrap_or_default())
                .to_string_lossy()
                .into_owned(),
            exact_cgroup: self.cgroup.is_some(),
            spec: container.spec_json.clone(),
            process: self.json,
            terminal,
            plain_newlines: self.stdio.plain_newlines,
            kind: self.kind,
        };
        let wanted = Wanted {
            stdin: self.stdio.stdin,
            stdout: self.stdio.stdout,
            stderr: self.stdio.stderr,
        };
        let memory = container.spec.linux.resources.memory.as_ref();
        let room = output::room_within(memory.and_then(|memory| memory.limit));
        let (ours, theirs) = match terminal {
            Some(_) => (Stdio::default(), Vec::new()),
            None => Stdio::pipes(wanted, room)?,
        };
        let oom_kills = container.cgroup.counter("memory.events", "oom_kill");
        let launched = sandbox
            .launcher
            .launch(&plan, &theirs, &self.mappings)
            .await?;
        drop(theirs);
        crate::child::set_rlimits(launched.pid, rlimits(&process, &container.spec))?;
        let stdio = match (terminal, launched.terminal) {
            (None, _) => ours,
            (Some(_), Some(master)) => Stdio::terminal(master)?,
            (Some(_), None) => return Err(Failure::other("the set-up process sent no terminal")),
        };
        let (sender, receiver) = watch::channel(None);
        let process = Process::new(self.id, launched.pid, stdio, launched.control, receiver);
        container.insert(process.clone());
        let follow = Follow {
            container: container.clone(),
            id: self.id.to_owned(),
            oom_kills,
            events: sandbox.events.clone(),
        };
        tokio::spawn(follow.until_the_end(launched.end, sender));
        Ok(process)
    }
}

/// A process's limits: its own, or, as with runc, those of the container's first process.
fn rlimits<'a>(process: &'a spec::Process, spec: &'a spec::Spec) -> &'a [spec::Rlimit] {
    match (process.rlimits.as_slice(), &spec.process) {
        ([], Some(first)) => &first.rlimits,
        (own, _) => own,
    }
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
        end: oneshot::Receiver<Ended>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_process_has_the_limits_of_the_first_unless_it_says_otherwise() {
        let json = br#"{"process": {"rlimits": [{"type": "RLIMIT_CORE", "soft": 1}]}}"#;
        let spec: spec::Spec = spec::parse("spec", json).expect("a spec");
        let mut process = spec::Process::default();
        assert_eq!(rlimits(&process, &spec)[0].r#type, "RLIMIT_CORE");
        process.rlimits.push(spec::Rlimit {
            r#type: "RLIMIT_CPU".into(),
            soft: 1,
            hard: 1,
        });
        assert_eq!(rlimits(&process, &spec)[0].r#type, "RLIMIT_CPU");
    }

    #[test]
    fn a_window_size_is_cut_to_what_the_kernel_takes() {
        let size = terminal_size(api::WindowSize {
            rows: 24,
            columns: 1_000_000,
        });
        assert_eq!(
            size,
            TerminalSize {
                rows: 24,
                columns: 65_535
            }
        );
    }
}
