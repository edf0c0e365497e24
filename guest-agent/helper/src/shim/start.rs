//! `start`: answers the address of the shim that serves a container's group, and starts one where there is none.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::arguments::Arguments;
use super::bootstrap::{self, Params};
use super::daemon::{Daemon, Surroundings};
use super::group::{self, Config};
use super::standby::Standby;
use super::{SCRIPT, print};
use crate::programs::Programs;
use crate::{cgroup, unix_socket};

/// Where containerd's own shims have their sockets.
const SOCKETS: &str = "/run/containerd/s";

/// Says which version of the Task API to promise where containerd does not tell what it knows.
const API_VARIABLE: &str = "HUSK_SHIM_API";

/// Where events go.
const EVENTS_VARIABLE: &str = "TTRPC_ADDRESS";

/// Names husk's configuration, in place of the host's.
const CONFIG_VARIABLE: &str = "HUSK_CONFIG";

/// How much of standard input is read, in bytes: as much as containerd's own shims.
const LONGEST_INPUT: u64 = 10 << 20;

/// How the caller wants to be answered.
enum Form {
    /// The address alone, which every containerd understands, and takes for version 2.
    Plain,
    /// containerd 2.0 and later; 1.7 for version 2.
    Json { version: u8 },
    /// containerd 2.3 and later.
    Message { version: u8 },
}

/// Carries out `start` in the bundle, which is the current folder.
pub fn run(programs: Programs<'_>, mut arguments: Arguments) -> Result<()> {
    let (params, options) = bootstrap::parse(&read_input()?)?;
    let form = Form::choose(params.is_some())?;
    let params = params.unwrap_or_default();
    complete(&mut arguments, &params)?;
    let script = programs.path(SCRIPT);
    ensure!(script.is_file(), "{} is missing (run `npm run setup`)", script.display());
    if !arguments.bundle.is_empty() {
        env::set_current_dir(&arguments.bundle).with_context(|| format!("cannot enter the bundle {}", arguments.bundle))?;
    }
    let bundle = env::current_dir().context("the bundle is gone")?;
    arguments.bundle = bundle.into_os_string().into_string().ok().context("the bundle's path is no text")?;

    let config = Config::read()?;
    let named = config.group()?;
    let joined = if named.is_none() { config.joined_shim()? } else { None };
    if let Some(address) = joined {
        let written = write_address(&address)?;
        print(&form.answer(&address)?)?;
        written.keep();
        return Ok(());
    }
    let group = named.unwrap_or(&arguments.id).to_owned();
    let socket = socket_of(&arguments, &params, &group)?;
    let address = format!("unix://{}", socket.display());
    arguments.socket = socket.to_str().context("the socket's path is no text")?.to_owned();

    let cgroups = cgroup::find(&options.shim_cgroup).context("the runtime option shim_cgroup")?;
    let mut variables = Vec::new();
    if !params.ttrpc_address.is_empty() && env::var_os(EVENTS_VARIABLE).is_none() {
        variables.push((EVENTS_VARIABLE, params.ttrpc_address.as_str()));
    }
    if !options.config_path.is_empty() {
        variables.push((CONFIG_VARIABLE, options.config_path.as_str()));
    }
    let surroundings = Surroundings { variables: &variables, cgroups: &cgroups };
    let words = [vec!["serve".into(), "-group".into(), OsString::from(&group)], arguments.words()].concat();
    // A pod's further containers find its shim. Nobody who starts a shim has to wait for what it says: the folder is not held yet.
    let may_stand_by = group == arguments.id && config.has_own_network();
    let standby = if may_stand_by { Standby::find(&script, &words, &surroundings) } else { None };
    let _lock = lock_folder_of(&socket)?;
    if unix_socket::is_served(&socket)? {
        let written = write_address(&address)?;
        print(&form.answer(&address)?)?;
        written.keep();
        return Ok(());
    }
    remove_stale(&socket)?;
    let written = write_address(&address)?;
    let answer = || form.answer(&address).and_then(|answer| print(&answer));
    if let Some(standby) = standby
        && let Some(server) = standby.serve(&socket)?
    {
        if let Err(error) = answer() {
            server.end(&socket)?;
            return Err(error);
        }
        server.keep();
        written.keep();
        return Ok(());
    }
    let listener = unix_socket::listen_at(&socket)?;
    let bound = Made(Some(socket));
    let daemon = Daemon::start(programs, &words, &listener, &surroundings)?;
    if let Err(error) = answer() {
        daemon.end();
        return Err(error);
    }
    bound.keep();
    written.keep();
    Ok(())
}

fn read_input() -> Result<Vec<u8>> {
    let mut input = Vec::new();
    io::stdin().take(LONGEST_INPUT + 1).read_to_end(&mut input).context("cannot read standard input")?;
    ensure!(input.len() as u64 <= LONGEST_INPUT, "standard input holds more than {} MiB", LONGEST_INPUT >> 20);
    Ok(input)
}

/// Puts together what the flags and standard input say, which must not contradict each other.
fn complete(arguments: &mut Arguments, params: &Params) -> Result<()> {
    for (what, flag, param) in
        [("-id", &mut arguments.id, &params.instance_id), ("-namespace", &mut arguments.namespace, &params.namespace)]
    {
        if flag.is_empty() {
            flag.clone_from(param);
        }
        ensure!(param.is_empty() || *flag == *param, "standard input is for another shim: {what} is {flag:?} here and {param:?} there");
    }
    for (flag, param) in [(&mut arguments.address, &params.grpc_address), (&mut arguments.publish_binary, &params.containerd_binary)] {
        if flag.is_empty() {
            flag.clone_from(param);
        }
    }
    arguments.debug |= params.log_level < 0;
    arguments.check()
}

fn socket_of(arguments: &Arguments, params: &Params, group: &str) -> Result<PathBuf> {
    let socket = match (arguments.socket.as_str(), params.socket_dir.as_str()) {
        ("", "") => group::socket_path(Path::new(SOCKETS), arguments, group),
        ("", folder) => group::socket_path(Path::new(folder), arguments, group),
        (socket, _) => socket.into(),
    };
    ensure!(socket.is_absolute(), "the socket's path {} must be absolute", socket.display());
    Ok(socket)
}

/// Makes the socket's folder, and holds it until the value is dropped: two starts of one group would else both find nobody there. No start
/// waits for anything while it has the folder, so nobody waits long for it.
fn lock_folder_of(socket: &Path) -> Result<Flock<File>> {
    let folder = socket.parent().context("the socket has no folder")?;
    let what = || format!("cannot use the folder {}", folder.display());
    if let Some(parent) = folder.parent() {
        // As containerd makes it: it has other things there.
        DirBuilder::new().recursive(true).mode(0o711).create(parent).with_context(what)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(what)?;
    let mut file = File::open(folder).with_context(what)?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(lock) => return Ok(lock),
            Err((again, Errno::EINTR)) => file = again,
            Err((_, error)) => return Err(error).with_context(what),
        }
    }
}

/// Removes the socket of a shim that is gone.
pub fn remove_stale(socket: &Path) -> Result<()> {
    match fs::symlink_metadata(socket) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            fs::remove_file(socket).with_context(|| format!("cannot remove the stale socket {}", socket.display()))
        }
        Ok(_) => bail!("{} is in the way: it is no socket", socket.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot look at {}", socket.display())),
    }
}

/// Writes the address where containerd finds it when it has been restarted.
fn write_address(address: &str) -> Result<Made> {
    let new = Made(Some(".address".into()));
    fs::write(".address", address).and_then(|()| fs::rename(".address", "address")).context("cannot write the bundle's address")?;
    new.keep();
    Ok(Made(Some("address".into())))
}

/// A file that is removed again, unless it is kept.
struct Made(Option<PathBuf>);

impl Made {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // The error that has led here is the one to be told.
            let _ = fs::remove_file(path);
        }
    }
}

impl Form {
    fn choose(has_params: bool) -> Result<Form> {
        let version = match env::var_os(API_VARIABLE).as_ref().map(|value| value.as_encoded_bytes()) {
            None | Some(b"") => None,
            Some(b"2") => Some(2),
            Some(b"3") => Some(3),
            Some(_) => bail!("{API_VARIABLE}: expected 2 or 3"),
        };
        Ok(match version {
            _ if has_params => Form::Message { version: version.unwrap_or(3) },
            Some(version @ 3) => Form::Json { version },
            _ => Form::Plain,
        })
    }

    fn answer(&self, address: &str) -> Result<Vec<u8>> {
        Ok(match self {
            Form::Plain => address.as_bytes().to_vec(),
            Form::Json { version } => {
                serde_json::to_vec(&serde_json::json!({"version": version, "address": address, "protocol": "ttrpc"}))?
            }
            Form::Message { version } => bootstrap::result(*version, address, "ttrpc"),
        })
    }
}
