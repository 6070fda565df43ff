//! Compiles every .proto with protox, so that no protoc is needed on the build machine.

use prost::Message as _;
use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 4] = [
    "media_relay/v1/media_relay.proto",
    "queue/v1/queue.proto",
    "scheduler/v1/scheduler.proto",
    "sip_edge/v1/sip_edge.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let set = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), set.encode_to_vec())?;
    let mut config = prost_build::Config::new();
    config.enable_type_names(); // `proto::json` finds a message's descriptor by its name.
    config.boxed(".scheduler.v1.ScheduleResult.result.task"); // A refusal is far smaller.
    tonic_prost_build::configure()
        .build_transport(false) // Its `connect` would clash with the method of that name.
        .compile_fds_with_config(set, config)?;
    Ok(())
}
