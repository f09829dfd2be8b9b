//! Compiles `protocol/*.proto` without a system `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../protocol";
    let files = [
        "decentraland/kernel/comms/v3/archipelago.proto",
        "decentraland/kernel/comms/v3/reports.proto",
        "decentraland/kernel/comms/rfc4/comms.proto",
        "decentraland/kernel/comms/rfc5/ws_comms.proto",
        "decentraland/bff/authentication_service.proto",
        "decentraland/bff/comms_director_service.proto",
        "decentraland/bff/comms_service.proto",
        "decentraland/bff/messaging_service.proto",
        "decentraland/bff/routing_service.proto",
        "decentraland/bff/topics_service.proto",
        "dcl/rpc.proto",
        "atoll/bus.proto",
        "atoll/mesh.proto",
    ];
    println!("cargo:rerun-if-changed={root}");
    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_imports(true).open_files(files)?;
    // For the test that compares them with a golden file.
    let folder = std::env::var("OUT_DIR")?;
    std::fs::write(format!("{folder}/descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let descriptors = compiler.file_descriptor_set();
    let mut build = prost_build::Config::new();
    build
        // Message bodies are forwarded and not inspected. `Bytes` shares the received buffer instead of
        // copying it.
        .bytes([
            ".atoll.mesh",
            ".decentraland.kernel.comms.rfc5",
            ".decentraland.kernel.comms.rfc4",
            ".decentraland.bff",
            ".dcl.rpc",
        ])
        .btree_map([".decentraland.kernel.comms.v3"])
        .include_file("wire.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
