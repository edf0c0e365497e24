//! Hooks that run in the guest: createContainer, before the root is entered, and startContainer, right before the program.

use std::ffi::CStr;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;
use std::os::fd::AsFd;

use crate::error::{Class, Context, Failure, Result};
use crate::spec::{Hook, Spec};
use crate::sys;

/// The state that hooks get on their standard input.
pub fn state(spec: &Spec, id: &str, status: &str, pid: i32, bundle: &str) -> String {
    json!({
        "ociVersion": spec.oci_version,
        "id": id,
        "status": status,
        "pid": pid,
        "bundle": bundle,
        "annotations": spec.annotations,
    })
    .to_string()
}

/// Runs the hooks in order; the first that fails ends it. `environment`: of those that name none. The words are runc's.
pub fn run(kind: &str, hooks: &[Hook], state: &str, environment: &[String]) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, state, hook.env.as_deref().unwrap_or(environment))
            .class(Class::HookFailed, || {
                format!("error running {kind} hook #{index}: {}", hook.path)
            })?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &str, environment: &[String]) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(&hook.path);
    // args[0] is what the hook is to be called, as with execv(3).
    command
        .arg0(hook.args.first().unwrap_or(&hook.path))
        .args(hook.args.iter().skip(1));
    command
        .env_clear()
        .envs(environment.iter().filter_map(|entry| entry.split_once('=')));
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().context(|| "start")?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read its state, and then the pipe breaks.
        let _ = stdin.write_all(state.as_bytes());
    }
    let status = match hook.timeout {
        None => child.wait().context(|| "wait")?,
        Some(seconds) => wait_at_most(&mut child, seconds)?,
    };
    if status.success() {
        Ok(())
    } else {
        Err(Failure::other(words(status)))
    }
}

/// How a hook ended; a signal by what it means, as runc has it.
fn words(status: ExitStatus) -> String {
    match status.signal() {
        // SAFETY: the answer is a string, which nobody changes before it is copied: this process has one thread.
        Some(signal) => match unsafe { libc::strsignal(signal).as_ref() } {
            Some(text) => {
                // SAFETY: as above.
                let text = unsafe { CStr::from_ptr(text) };
                format!("signal: {}", text.to_string_lossy().to_lowercase())
            }
            None => status.to_string(),
        },
        None => status.to_string(),
    }
}

fn wait_at_most(child: &mut Child, seconds: i64) -> Result<ExitStatus> {
    let limit = u64::try_from(seconds).ok().filter(|&seconds| seconds > 0);
    let limit = limit.ok_or_else(|| {
        Failure::unsupported(format!(
            "timeout: expected a positive number, got {seconds}"
        ))
    })?;
    let process = sys::open_pidfd(child.id() as i32).context(|| "watch")?;
    let milliseconds = i32::try_from(Duration::from_secs(limit).as_millis()).unwrap_or(i32::MAX);
    let mut events = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
    if poll(&mut events, timeout).context(|| "watch")? == 0 {
        child.kill().context(|| "kill")?;
        child.wait().context(|| "wait")?;
        return Err(Failure::other(format!(
            "killed after its timeout of {seconds} s"
        )));
    }
    child.wait().context(|| "wait")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: Option<i64>) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        Hook {
            path: "/bin/sh".into(),
            args,
            env: Some(vec!["GREETING=hello".into()]),
            timeout,
        }
    }

    #[test]
    fn a_hook_reads_the_state_and_its_environment() {
        let state = state(&Spec::default(), "c1", "creating", 7, "/b");
        let script = r#"grep -q '"id":"c1"' && test "$GREETING" = hello && test -z "$HOME""#;
        assert_eq!(
            run("createContainer", &[hook(script, None)], &state, &[]),
            Ok(())
        );
    }

    #[test]
    fn a_hook_that_names_no_environment_has_the_one_that_is_given() {
        let script = r#"test "$GREETING" = inherited"#;
        let hook = Hook {
            env: None,
            ..hook(script, None)
        };
        let environment = ["GREETING=inherited".to_owned()];
        assert_eq!(run("startContainer", &[hook], "{}", &environment), Ok(()));
    }

    #[test]
    fn a_failing_hook_is_named() {
        let failure =
            run("createContainer", &[hook("exit 3", Some(5))], "{}", &[]).expect_err("a failure");
        assert_eq!(
            failure.message,
            "error running createContainer hook #0: /bin/sh: exit status: 3"
        );
    }

    #[test]
    fn a_hook_that_a_signal_ends_is_told_of_in_words() {
        let failure =
            run("startContainer", &[hook("kill -SYS $$", None)], "{}", &[]).expect_err("a failure");
        assert_eq!(
            failure.message,
            "error running startContainer hook #0: /bin/sh: signal: bad system call"
        );
    }

    #[test]
    fn a_hook_that_takes_too_long_is_killed() {
        let failure = run(
            "startContainer",
            &[hook("exec sleep 60", Some(1))],
            "{}",
            &[],
        )
        .expect_err("a failure");
        assert_eq!(
            failure.message,
            "error running startContainer hook #0: /bin/sh: killed after its timeout of 1 s"
        );
    }
}
