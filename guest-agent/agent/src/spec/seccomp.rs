//! linux.seccomp, as the host has compiled it: under emulation that takes the guest a hundred times as long.

use serde::Deserialize;

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct Seccomp {
    /// Flags of seccomp(2).
    pub flags: u32,
    /// The filter's instructions (struct sock_filter of linux/filter.h), in hexadecimal digits.
    pub program: String,
}
