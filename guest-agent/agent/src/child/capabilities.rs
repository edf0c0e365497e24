//! The five capability sets of a process.

use std::str::FromStr;
use std::sync::OnceLock;

use caps::{CapSet, Capability, CapsHashSet};

use crate::console;
use crate::error::{Context, Result};
use crate::spec::Capabilities;

/// Those that this kernel knows. It is asked once, with a call for each: by a process that waits for its plan, before that comes.
pub fn supported() -> &'static CapsHashSet {
    static SUPPORTED: OnceLock<CapsHashSet> = OnceLock::new();
    SUPPORTED.get_or_init(caps::runtime::thread_all_supported)
}

/// Drops what the bounding set does not hold. Before the user changes, while there is still the right to do so.
pub fn limit_bounding(capabilities: &Capabilities) -> Result<()> {
    let wanted = set(&capabilities.bounding);
    for &capability in supported() {
        if !wanted.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability)
                .context(|| format!("drop {capability} from the bounding set"))?;
        }
    }
    Ok(())
}

/// Sets the other four. After the user has changed.
pub fn apply(capabilities: &Capabilities) -> Result<()> {
    let permitted = set(&capabilities.permitted);
    let effective = set(&capabilities.effective);
    let inheritable = set(&capabilities.inheritable);
    // Inheritable ones first, while all are still permitted; effective ones are a part of the permitted.
    let effective = effective.intersection(&permitted).copied().collect();
    caps::set(None, CapSet::Inheritable, &inheritable)
        .and_then(|()| caps::set(None, CapSet::Effective, &effective))
        .and_then(|()| caps::set(None, CapSet::Permitted, &permitted))
        .context(|| "set the capabilities")?;
    caps::clear(None, CapSet::Ambient).context(|| "clear the ambient capabilities")?;
    // One is granted only where it is permitted and inheritable too. runc's own default spec asks for others, and the OCI spec wants no end
    // for it, so the rest is passed over.
    for capability in set(&capabilities.ambient)
        .into_iter()
        .filter(|one| permitted.contains(one) && inheritable.contains(one))
    {
        caps::raise(None, CapSet::Ambient, capability)
            .context(|| format!("raise the ambient capability {capability}"))?;
    }
    Ok(())
}

/// The capabilities by those names that this kernel knows; others are warned of, as the spec says.
fn set(names: &[String]) -> CapsHashSet {
    let supported = supported();
    let mut found = CapsHashSet::new();
    for name in names {
        match Capability::from_str(&caps::to_canonical(name)) {
            Ok(capability) if supported.contains(&capability) => drop(found.insert(capability)),
            _ => console::log(format_args!(
                "capability {name} is unknown to the guest's kernel, and ignored"
            )),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_and_unknown_ones_ignored() {
        let found = set(&["CAP_CHOWN".into(), "CAP_MOON".into(), "CAP_KILL".into()]);
        assert_eq!(
            found,
            [Capability::CAP_CHOWN, Capability::CAP_KILL]
                .into_iter()
                .collect()
        );
    }
}
