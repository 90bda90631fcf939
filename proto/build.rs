//! Compiles the `.proto` files without `protoc`: protox is a protobuf compiler in Rust.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["agent.proto", "cri.proto", "podresources.proto"];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
