//! The real binary over gRPC, with UDP sockets as phones.

mod crash;
mod errors;
mod files;
mod life;
mod paths;
mod phone;
mod recording;
mod rtpproxy;
mod service;
mod sound;
mod talk;
