//! Generates the agent's side of proto/agent/v1/agent.proto.

fn main() -> std::io::Result<()> {
    let proto = "../../proto/agent/v1/agent.proto";
    println!("cargo:rerun-if-changed={proto}");
    // All `bytes` are handed on as they arrived, without a copy.
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .bytes(".")
        .compile_protos(&[proto], &["../../proto"])
}
