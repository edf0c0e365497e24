//! linux.personality.

use crate::error::{Context, Failure, Result};
use crate::spec::Linux;

/// PER_LINUX and PER_LINUX32 of linux/personality.h.
fn domain(name: &str) -> Result<libc::c_ulong> {
    match name {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => Err(Failure::unsupported(format!(
            "linux.personality: unknown domain {other:?}"
        ))),
    }
}

/// Sets the execution domain of the process.
pub fn set(linux: &Linux) -> Result<()> {
    let Some(personality) = &linux.personality else {
        return Ok(());
    };
    if let Some(flag) = personality.flags.first() {
        return Err(Failure::unsupported(format!(
            "linux.personality.flags: {flag}: no flag is supported"
        )));
    }
    // SAFETY: plain numbers.
    let result = unsafe { libc::personality(domain(&personality.domain)?) };
    nix::errno::Errno::result(result)
        .context(|| format!("linux.personality: {}", personality.domain))
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_domain_is_refused() {
        assert_eq!(
            domain("MOON"),
            Err(Failure::unsupported(
                "linux.personality: unknown domain \"MOON\""
            ))
        );
        assert_eq!(domain("LINUX32"), Ok(8));
    }
}
