//! queue-svc from outside: its API, its tables, its events, and what it asks sip-edge for.

mod agents;
mod care;
mod edge;
mod flags;
mod line;
mod mohqueue;
mod replicas;
mod retrieve;
mod survive;
mod tables;
mod watch;
mod world;
