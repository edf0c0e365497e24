//! The agent's own folders in the guest. They are made at boot: in a user namespace, the set-up may use them and not make them.

/// Where a mount that can only be made by path is made, and taken away from again.
pub const SCRATCH: &str = "/run/husk/scratch";
/// Where the empty root of the sandbox's first process is mounted, in its own mount namespace.
pub const EMPTY: &str = "/run/husk/empty";
/// Device nodes that are bound into user namespaces.
pub const DEVICES: &str = "/run/husk/devices";
/// The writable layers of overlays.
pub const OVERLAYS: &str = "/run/husk/overlays";
/// A folder each for the containers, in which the host has their root file systems put together.
pub const CONTAINERS: &str = "/run/husk/containers";

/// All of them.
pub const ALL: [&str; 5] = [SCRATCH, EMPTY, DEVICES, OVERLAYS, CONTAINERS];
