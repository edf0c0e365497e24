//! The one who listens at a socket: who it is, and whether it stands where we stand.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::{Pid, geteuid};

/// The PID of the one who listens, where that is the same user and all of `what`, links below /proc/PID, lead to the same places.
pub fn sharing(socket: &OwnedFd, what: &[&str]) -> Option<Pid> {
    let peer = getsockopt(socket, PeerCredentials).ok()?;
    let same = |name: &&str| {
        let (theirs, ours) = (fs::metadata(format!("/proc/{}/{name}", peer.pid())), fs::metadata(format!("/proc/self/{name}")));
        matches!((theirs, ours), (Ok(theirs), Ok(ours)) if (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()))
    };
    (peer.uid() == geteuid().as_raw() && what.iter().all(same)).then(|| Pid::from_raw(peer.pid()))
}
