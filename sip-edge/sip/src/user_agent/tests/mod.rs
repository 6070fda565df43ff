//! Ladders of the whole user agent in virtual time: messages and orders in, what it did out.

mod bench;
mod early;
mod in_dialog;
mod large;
mod lossy;
mod proof;
mod refer;
mod register;
mod registrant;
mod reinvite;
mod reliable;
mod session;
mod snapshot;
mod uac;
mod uas;
