//! Generates the agent's side of proto/agent/v1/agent.proto, and has the program linked at fixed addresses.

fn main() -> std::io::Result<()> {
    // Every container process begins as this program. Relocating a static-pie first takes as long as all the rest of the set-up
    // (60 ms instead of 35 under software emulation), so the position is fixed.
    println!("cargo:rustc-link-arg-bins=-no-pie");
    println!("cargo:rustc-link-arg-bins=-static");

    let proto = "../../proto/agent/v1/agent.proto";
    println!("cargo:rerun-if-changed={proto}");
    // All `bytes` are handed on as they arrived, without a copy.
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .bytes(".")
        .compile_protos(&[proto], &["../../proto"])
}
