//! The agent's end of a process's set-up: starts the child that does it, answers it, and learns the outcome.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot::{self, error::TryRecvError};

use super::control::Control;
use crate::child::wire::{Plan, ToAgent, ToChild};
use crate::error::{Context, Failure, Result};
use crate::init::reaper::{End, Ended, Expectation, Reaper};
use crate::spec::IdMapping;

/// A process that is set up and waits for its start.
pub struct Launched {
    pub pid: i32,
    pub control: Control,
    pub end: oneshot::Receiver<Ended>,
    /// The pty's master.
    pub terminal: Option<OwnedFd>,
}

/// The user and group mappings of a new user namespace; empty without one.
#[derive(Default)]
pub struct UserMappings {
    pub uids: Vec<IdMapping>,
    pub gids: Vec<IdMapping>,
}

/// A set-up process without a plan yet.
struct SetUp {
    pid: u32,
    control: Control,
    end: oneshot::Receiver<Ended>,
}

impl SetUp {
    fn start(reaper: &Reaper) -> Result<Self> {
        let (ours, theirs) = StdUnixStream::pair().context(|| "make a socket pair")?;
        let control = Control::new(ours)?;
        // Started and watched in one turn of the event loop: the reaper cannot run in between.
        let child = Command::new("/proc/self/exe")
            .arg("container-init")
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .context(|| "start the set-up process")?;
        let (pid, end) = (child.id(), reaper.watch(child.id() as i32));
        Ok(SetUp { pid, control, end })
    }

    /// One that has said that it waits for its plan.
    async fn waiting(reaper: &Reaper) -> Result<Self> {
        let mut one = SetUp::start(reaper)?;
        match one.control.receive().await? {
            Some(ToAgent::Waiting) => Ok(one),
            Some(ToAgent::Failed(failure)) => Err(failure),
            Some(other) => Err(unexpected(&other)),
            None => Err(ended_early(one.end).await),
        }
    }

    /// It, unless it has ended.
    fn alive(mut self) -> Option<Self> {
        matches!(self.end.try_recv(), Err(TryRecvError::Empty)).then_some(self)
    }
}

/// Starts the set-up of processes.
///
/// One set-up process waits from the beginning, for the first plan: a machine that is cloned from a template has it in its memory, and need not
/// translate what it takes to start a program. Another one waits once a further process was forgotten, for those that follow.
pub struct Launcher {
    reaper: Reaper,
    waiting: Mutex<Option<SetUp>>,
    /// Held by who has one wait.
    replenishing: tokio::sync::Mutex<()>,
}

impl Launcher {
    /// Answers when the first set-up process waits.
    pub async fn new(reaper: Reaper) -> Result<Self> {
        let waiting = Mutex::new(Some(SetUp::waiting(&reaper).await?));
        Ok(Launcher {
            reaper,
            waiting,
            replenishing: tokio::sync::Mutex::default(),
        })
    }

    /// Has one wait again, where the last has been used up: for who will be as a template's first container, and where further processes come and go.
    pub async fn replenish(&self) -> Result<()> {
        let _alone = self.replenishing.lock().await;
        let left = self.lock().take().and_then(SetUp::alive);
        let next = match left {
            Some(one) => one,
            None => SetUp::waiting(&self.reaper).await?,
        };
        *self.lock() = Some(next);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<SetUp>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Result<SetUp> {
        let waiting = self.lock().take();
        match waiting.and_then(SetUp::alive) {
            Some(first) => Ok(first),
            None => SetUp::start(&self.reaper),
        }
    }

    /// Sets up a process by the plan; `stdio` are its standard streams, or none where the plan has a terminal.
    pub async fn launch(
        &self,
        plan: &Plan,
        stdio: &[OwnedFd],
        mappings: &UserMappings,
    ) -> Result<Launched> {
        let SetUp {
            pid: first_pid,
            mut control,
            end: first_end,
        } = self.take()?;
        let expectation = self.reaper.expect();
        control.send_plan(plan, stdio).await?;
        let (pid, end) = match first_stage(&expectation, &mut control, first_pid, mappings).await? {
            Some(forked) => forked,
            None => return Err(ended_early(first_end).await),
        };
        if second_stage(&mut control).await?.is_none() {
            return Err(ended_early(end).await);
        }
        Ok(Launched {
            pid,
            end,
            terminal: control.take_descriptor(),
            control,
        })
    }
}

type Forked = (i32, oneshot::Receiver<Ended>);

/// Until the process in its namespaces exists: its PID. None: the child went away without a word.
async fn first_stage(
    expectation: &Expectation<'_>,
    control: &mut Control,
    first_pid: u32,
    mappings: &UserMappings,
) -> Result<Option<Forked>> {
    while let Some(message) = control.receive().await? {
        match message {
            ToAgent::Waiting => {}
            ToAgent::MapUser => {
                write_mappings(first_pid, mappings)?;
                control.send(&ToChild::Go).await?;
            }
            ToAgent::Forked { pid } => return Ok(Some((pid, expectation.watch(pid)))),
            ToAgent::Failed(failure) => return Err(failure),
            other => return Err(unexpected(&other)),
        }
    }
    Ok(None)
}

/// Until the process waits for its start. None: the child went away without a word.
async fn second_stage(control: &mut Control) -> Result<Option<()>> {
    while let Some(message) = control.receive().await? {
        match message {
            ToAgent::Terminal => {}
            ToAgent::Ready => return Ok(Some(())),
            ToAgent::Failed(failure) => return Err(failure),
            other => return Err(unexpected(&other)),
        }
    }
    Ok(None)
}

/// Lets a process execute its program. Fails where it could not.
pub async fn start(mut control: Control) -> Result<()> {
    if control.send(&ToChild::Start).await.is_err() {
        // It was killed before its start: it has ended as it has ended, and its waiters know.
        return Ok(());
    }
    match control.receive().await? {
        // execve closed the socket, or it was killed.
        None => Ok(()),
        Some(ToAgent::Failed(failure)) => Err(failure),
        Some(other) => Err(unexpected(&other)),
    }
}

fn unexpected(message: &ToAgent) -> Failure {
    Failure::other(format!("the set-up process said {message:?} out of turn"))
}

async fn ended_early(end: oneshot::Receiver<Ended>) -> Failure {
    Failure::other(match end.await.map(|ended| ended.end) {
        Ok(End::Exited(code)) => format!("the container's set-up process ended with status {code}"),
        Ok(End::Killed(libc::SIGKILL)) => {
            "the container's set-up process was killed (is its memory limit too small to start in?)"
                .to_owned()
        }
        Ok(End::Killed(signal)) => {
            format!("the container's set-up process was killed by signal {signal}")
        }
        Err(_) => "the container's set-up process vanished".to_owned(),
    })
}

fn write_mappings(pid: u32, mappings: &UserMappings) -> Result<()> {
    for (file, list) in [("uid_map", &mappings.uids), ("gid_map", &mappings.gids)] {
        let lines: String = list
            .iter()
            .map(|map| format!("{} {} {}\n", map.container_id, map.host_id, map.size))
            .collect();
        fs::write(format!("/proc/{pid}/{file}"), lines)
            .context(|| format!("write the container's {file}"))?;
    }
    Ok(())
}
