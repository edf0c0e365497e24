//! The part of the OCI runtime spec (1.2) that is carried out in the guest.
//!
//! Types of our own and not the oci-spec crate's: its closed enumerations fail on a whole spec for one unknown capability, which the
//! runtime spec wants warned of. Fields that the guest does not know are the host's to refuse.

mod linux;
mod process;
mod resources;
mod seccomp;

pub use linux::*;
pub use process::*;
pub use resources::*;
pub use seccomp::*;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Context, Failure, Result};

/// The most bytes of a spec, a process or resources that are read.
const MAX_JSON: usize = 8 * 1024 * 1024;

/// config.json.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    pub oci_version: String,
    pub hostname: String,
    pub domainname: String,
    pub root: Root,
    pub process: Option<Process>,
    pub mounts: Vec<Mount>,
    pub hooks: Hooks,
    pub annotations: BTreeMap<String, String>,
    pub linux: Linux,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Root {
    pub readonly: bool,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    pub destination: String,
    pub r#type: String,
    pub source: String,
    pub options: Vec<String>,
    pub uid_mappings: Vec<IdMapping>,
    pub gid_mappings: Vec<IdMapping>,
}

/// The hooks that run in the guest.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hook {
    pub path: String,
    pub args: Vec<String>,
    /// None: whoever runs the hook says what it gets.
    pub env: Option<Vec<String>>,
    /// Seconds.
    pub timeout: Option<i64>,
}

/// Reads a JSON object of the spec. A field that is null counts as absent: encoders in Go write empty lists so.
pub fn parse<T: DeserializeOwned>(what: &str, json: &[u8]) -> Result<T> {
    if json.len() > MAX_JSON {
        return Err(Failure::invalid(format!(
            "{what}: expected at most {MAX_JSON} bytes, got {}",
            json.len()
        )));
    }
    // Most come without a null, and need no tree of values that is looked through. What is wrong, that tree's reader tells.
    if let Ok(parsed) = serde_json::from_slice(json) {
        return Ok(parsed);
    }
    let mut value: Value =
        serde_json::from_slice(json).class(crate::error::Class::InvalidArgument, || what)?;
    drop_nulls(&mut value);
    T::deserialize(value).class(crate::error::Class::InvalidArgument, || what)
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_means_absent() {
        let spec: Spec = parse("spec", br#"{"mounts": null, "hostname": null, "linux": {"namespaces": [{"type": "pid", "path": null}]}}"#)
            .expect("a spec");
        assert!(spec.mounts.is_empty());
        assert_eq!(spec.linux.namespaces[0].path, "");
    }

    #[test]
    fn a_wrong_type_is_named() {
        let failure = parse::<Spec>("spec", br#"{"hostname": 7}"#).expect_err("a failure");
        assert_eq!(
            failure.message,
            "spec: invalid type: integer `7`, expected a string"
        );
    }

    #[test]
    fn reads_a_spec_as_runc_writes_it() {
        let spec: Spec =
            parse("spec", include_bytes!("../../tests/data/runc-spec.json")).expect("a spec");
        assert_eq!(spec.process.expect("a process").args, ["sh"]);
        assert_eq!(spec.mounts.len(), 7);
        assert_eq!(spec.linux.masked_paths.len(), 10);
    }
}
