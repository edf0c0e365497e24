//! linux.sysctl.

use super::attributes::Proc;
use crate::error::{Context, Failure, Result};

/// Writes settings of the guest's own namespaces, for those who share them.
pub fn set_shared<'a>(settings: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<()> {
    apply(settings, &Proc::open()?)
}

/// Writes the settings. The kernel takes them for the namespaces of the process that writes.
pub fn apply<'a>(
    settings: impl IntoIterator<Item = (&'a String, &'a String)>,
    proc: &Proc,
) -> Result<()> {
    for (name, value) in settings {
        proc.write(&path(name)?, value)
            .context(|| format!("linux.sysctl: {name}"))?;
    }
    Ok(())
}

/// The file below /proc of a setting's name. A name with slashes may have dots in its parts, as sysctl(8) has it.
fn path(name: &str) -> Result<String> {
    let path = if name.contains('/') {
        name.to_owned()
    } else {
        name.replace('.', "/")
    };
    let sane = path
        .split('/')
        .all(|part| !part.is_empty() && part != "." && part != "..");
    if sane {
        Ok(format!("sys/{path}"))
    } else {
        Err(Failure::unsupported(format!(
            "linux.sysctl: no setting has the name {name:?}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_and_slashes() {
        assert_eq!(
            path("net.ipv4.ip_forward"),
            Ok("sys/net/ipv4/ip_forward".into())
        );
        assert_eq!(
            path("net/ipv4/conf/eth0.1/forwarding"),
            Ok("sys/net/ipv4/conf/eth0.1/forwarding".into())
        );
        assert_eq!(
            path("../x").map_err(|failure| failure.message),
            Err("linux.sysctl: no setting has the name \"../x\"".into())
        );
    }
}
