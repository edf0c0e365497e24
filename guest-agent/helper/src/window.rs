//! Terminals' sizes.

use std::os::fd::RawFd;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct WindowSize {
    pub rows: u16,
    pub columns: u16,
}

pub fn is_terminal(number: RawFd) -> bool {
    // SAFETY: any number will do.
    unsafe { libc::isatty(number) == 1 }
}

/// The size of a terminal; `None` where the descriptor is none, or has no size.
pub fn of(number: RawFd) -> Option<WindowSize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the structure outlives the call.
    Errno::result(unsafe { libc::ioctl(number, libc::TIOCGWINSZ, &mut size) }).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// The size of the first of the standard streams that is a terminal.
pub fn of_standard_streams() -> Option<WindowSize> {
    (0..3).find_map(of)
}

/// Sets the size of a terminal.
pub fn set(number: RawFd, size: WindowSize) -> nix::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the structure outlives the call.
    Errno::result(unsafe { libc::ioctl(number, libc::TIOCSWINSZ, &size) }).map(drop)
}
