//! Ladders of the whole user agent in virtual time: messages and orders in, what it did out.

mod bench;
mod in_dialog;
mod lossy;
mod register;
mod registrant;
mod uac;
mod uas;
