//! What tests and the demo run against: real servers, services and phones as child processes on
//! loopback, each with its own ports and folder, gone when the test is.

pub mod audio;
mod authority;
mod baresip;
pub mod bench;
mod carrier;
mod collector;
mod cut;
mod dispatcher;
mod dnsmasq;
pub mod document;
mod drive;
mod fleet;
mod free_port;
mod front;
pub mod kamailio;
pub mod manual;
mod mariadb;
mod nats;
mod other_edge;
pub mod phone;
mod postgres;
mod process;
mod prometheus;
mod reader;
mod reaper;
mod recording_edge;
mod replica;
mod sipp;
mod stack;
mod unprivileged;

pub use authority::Authority;
pub use baresip::{Account, Baresip};
pub use carrier::{CUSTOMER, Carrier};
pub use collector::{Collector, Spans, attribute_text};
pub use cut::Cut;
pub use dispatcher::Dispatcher;
pub use dnsmasq::Dnsmasq;
pub use drive::{start_bridge_at, start_originate_at};
pub use fleet::{Fleet, REPLICAS};
pub use free_port::{free_port, free_ports};
pub use front::Front;
pub use kamailio::Kamailio;
pub use mariadb::MariaDb;
pub use nats::NatsServer;
pub use postgres::Postgres;
pub use process::{Process, binary};
pub use prometheus::{Prometheus, http_get};
pub use reader::{Ids, Reader};
pub use recording_edge::{Effect, RecordingEdge};
pub use replica::{Replica, ReplicaFlags};
pub use sipp::{Scenario, Sipp, Tally, Transport};
pub use stack::{
    Databases, Echo, MUSIC, PROMPT, Ports, QUEUE, QUEUE_USER, SERVICES, Service, Setup, Stack,
    USERS,
};
