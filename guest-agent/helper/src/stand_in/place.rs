//! Bringing a stand-in to its place: its streams connected, then in the container's namespaces, cgroups and root.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::messages::{Attach, Place, Stream};
use super::own_proc::OwnProc;
use super::streams::Streams;
use super::terminal::Terminal;
use crate::endpoint::Endpoint;
use crate::lines::Lines;
use crate::mount::{self, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
use crate::pump::Pump;
use crate::{capabilities, cgroup, namespaces, title, unix_socket};

/// Puts the calling process there. `socket` and `token` are those of the supervisor. `foreground`: somebody who runs husk waits for it. Answers its
/// terminal, where it has one.
pub fn put(place: &Place, socket: &Path, token: &str, foreground: bool, streams: &mut Streams) -> Result<Option<Terminal>> {
    // First all that is to be found by the host's paths.
    let terminal = match (place.terminal, &place.console_socket) {
        (true, Some(path)) => Some(Terminal::for_engine(path, place.size)?),
        (true, None) => Terminal::inherited()?,
        (false, _) => None,
    };
    let engines = terminal.as_ref().filter(|terminal| !terminal.is_borrowed());
    let pumps = place.streams.iter().map(|stream| Ok((*stream, connect(*stream, engines, socket, token)?))).collect::<Result<Vec<_>>>()?;

    if let Some(path) = &place.netns {
        namespaces::enter_network(&namespaces::open_network(path)?, path)?;
    }
    cgroup::join(&place.cgroups)?;
    if !foreground {
        // Somebody's foreground process is husk's to see. A kernel without CHECKPOINT_RESTORE has no such call: then ps shows husk-helper.
        let _ = title::take(&place.title);
    }
    // After the cgroups, which are the root of what the cgroup namespace shows.
    match place.beside {
        Some(pid) => namespaces::join_surroundings(pid)?,
        None => namespaces::unshare_surroundings(&place.names)?,
    }
    // The PID of an exec is nobody's to enter.
    let proc = if place.beside.is_none() { Some(OwnProc::take()?) } else { None };
    enter_root(place.rootfs.as_deref(), proc)?;
    // All that is left to do is to copy bytes, which a container has a hand in.
    capabilities::give_up_all()?;

    let has_engines = engines.is_some();
    for (stream, pump) in pumps {
        streams.carry(stream, pump);
    }
    if has_engines {
        streams.give_up_all()?;
    } else {
        streams.give_up_others()?;
    }
    if let Some(terminal) = &terminal {
        terminal.make_raw().context("cannot set the terminal up")?;
    }
    Ok(terminal)
}

/// Connects a stream with the supervisor.
fn connect(stream: Stream, terminal: Option<&Terminal>, socket: &Path, token: &str) -> Result<Pump> {
    let connection = Lines::new(unix_socket::dial(socket)?);
    connection.send(&Attach::stream(token, stream))?;
    let connection = connection.into_socket();
    fcntl(&connection, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("cannot set up a connection")?;
    let connection = Endpoint::own_socket(connection);

    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let inherited: BorrowedFd<'_> = match stream {
        _ if terminal.is_some() => terminal.context("no terminal")?.as_fd(),
        Stream::Stdin => stdin.as_fd(),
        Stream::Stdout => stdout.as_fd(),
        Stream::Stderr => stderr.as_fd(),
    };
    let what = || format!("cannot use {}", stream.name());
    Ok(match stream {
        Stream::Stdin => Pump::new(Endpoint::of(inherited, OFlag::O_RDONLY).with_context(what)?, connection),
        Stream::Stdout | Stream::Stderr => Pump::new(connection, Endpoint::of(inherited, OFlag::O_WRONLY).with_context(what)?),
    })
}

/// Makes the container's root file system the root of a mount namespace of one's own, or an empty one where the host sees none.
fn enter_root(rootfs: Option<&Path>, proc: Option<OwnProc>) -> Result<()> {
    let tree = match rootfs {
        Some(path) => {
            let what = || format!("cannot open the root file system {}", path.display());
            ensure!(fs::metadata(path).with_context(what)?.is_dir(), "the root file system {} is no folder", path.display());
            mount::clone_tree(path, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV).with_context(what)?
        }
        None => {
            let attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
            mount::new_filesystem(c"tmpfs", &[(c"mode", Some(c"0555")), (c"size", Some(c"4k"))], attributes)
                .context("cannot make an empty root")?
        }
    };
    namespaces::unshare_mounts()?;
    let root = namespaces::attach_new_root(tree.as_fd())?;
    if let Some(proc) = proc {
        proc.put_into(root.as_fd())?;
    }
    namespaces::change_root(root.as_fd())
}
