//! The relay as a whole, in virtual time: commands and datagrams in, datagrams and events out.

mod bench;
mod bounds;
mod conference;
mod crash;
mod digits;
mod hold;
mod mixed;
mod music;
mod negotiation;
mod recording;
mod rooms;
mod security;
mod talk;
mod transcoding;
mod verbatim;
