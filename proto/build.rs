//! Compiles every .proto with protox, so that no protoc is needed on the build machine.

use prost::Message as _;
use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 4] = [
    "media_relay/v1/media_relay.proto",
    "queue/v1/queue.proto",
    "scheduler/v1/scheduler.proto",
    "sip_edge/v1/sip_edge.proto",
];

/// The messages that events are made of: [`pbjson_build`] writes their JSON mapping.
const EVENTS: [&str; 13] = [
    ".queue.v1.AgentState",
    ".queue.v1.AgentStatus",
    ".queue.v1.CallStatus",
    ".queue.v1.Caller",
    ".queue.v1.ExpectedWait",
    ".queue.v1.QueueEvent",
    ".queue.v1.QueueEventType",
    ".sip_edge.v1.Call",
    ".sip_edge.v1.CallEvent",
    ".sip_edge.v1.CallEventType",
    ".sip_edge.v1.CallState",
    ".sip_edge.v1.Leg",
    ".sip_edge.v1.LegState",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let set = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = set.encode_to_vec();
    pbjson_build::Builder::new()
        .register_descriptors(&descriptors)?
        .preserve_proto_field_names()
        .ignore_unknown_fields() // Services are not all replaced at the same moment.
        .ignore_unknown_enum_variants()
        .build(&EVENTS)?;
    fs::write(out.join("descriptors.bin"), descriptors)?;
    let mut config = prost_build::Config::new();
    config.enable_type_names(); // `proto::json` finds a message's descriptor by its name.
    config.boxed(".scheduler.v1.ScheduleResult.result.task"); // A refusal is far smaller.
    tonic_prost_build::configure()
        .build_transport(false) // Its `connect` would clash with the method of that name.
        .compile_fds_with_config(set, config)?;
    Ok(())
}
