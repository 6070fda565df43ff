//! The wire types of Holdfast: protobuf messages, gRPC services and NATS subjects. No logic.
//!
//! The `.proto` files beside this crate are the manual of the API.

pub mod json;
pub mod subjects;
pub mod task_json;

/// Encoded `FileDescriptorSet` of all four services, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub mod media_relay {
    /// In the metadata of FAILED_PRECONDITION with "488 …": the warn-code for the 488.
    pub const WARN_CODE: &str = "holdfast-warn-code";

    pub mod v1 {
        tonic::include_proto!("media_relay.v1");
    }
}

pub mod queue {
    pub mod v1 {
        tonic::include_proto!("queue.v1");
        include!(concat!(env!("OUT_DIR"), "/queue.v1.serde.rs"));
    }
}

pub mod scheduler {
    pub mod v1 {
        tonic::include_proto!("scheduler.v1");
    }
}

pub mod sip_edge {
    pub mod v1 {
        tonic::include_proto!("sip_edge.v1");
        include!(concat!(env!("OUT_DIR"), "/sip_edge.v1.serde.rs"));
    }
}
