//! Two schedulers on one PostgreSQL, what breaks them, and what everyone else sees.
//!
//! Each fault strikes `HOLDFAST_FAULT_ROUNDS` times (default 1), each time with 80 hangups and 40
//! messages due at each of four moments around it, about half of them of the replica that is hit, in
//! each of `HOLDFAST_FAULT_PAIRS` pairs of replicas beside each other (default 1): 40 rounds of 5 pairs
//! are the 200 faults that a release is held to. The frozen replica wakes after `HOLDFAST_FROZEN_S`
//! seconds (default 5; then 30).

mod cancels;
mod clock;
mod cluster;
mod faults;
mod groups;
mod inputs;
mod messages;
