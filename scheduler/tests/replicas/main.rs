//! Two schedulers on one PostgreSQL, what breaks them, and what everyone else sees.
//!
//! Faults are repeated `HOLDFAST_FAULT_ROUNDS` times (default 1; 5 rounds are the 200 tasks of each
//! deadline around each fault that issue D asks for), and the frozen replica wakes after
//! `HOLDFAST_FROZEN_S` seconds (default 5; the issue asks for 30).

mod cancels;
mod clock;
mod cluster;
mod faults;
mod groups;
mod inputs;
