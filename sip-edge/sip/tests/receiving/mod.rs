//! What a user agent makes of messages that are files.

use bytes::Bytes;
use sip::{Config, Event, HostPort, Output, Peer, Transport, UserAgent};
use std::fs;
use std::path::Path;
use std::time::Instant;

/// The messages in a folder below `tests`, by name.
pub(crate) fn messages(folder: &str) -> Vec<(String, Bytes)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut messages: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|it| it == "sip"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, Bytes::from(fs::read(path).unwrap()))
        })
        .collect();
    messages.sort();
    messages
}

pub(crate) fn agent() -> UserAgent {
    UserAgent::new(Config::new(HostPort::new("198.51.100.1", 5060)), 7)
}

pub(crate) fn phone() -> Peer {
    Peer::new(Transport::Udp, "192.0.2.1:5060".parse().unwrap())
}

/// First lines of what is sent, and what is told or discarded.
pub(crate) fn outcome(ua: &mut UserAgent, bytes: Bytes) -> String {
    ua.handle_message(Instant::now(), 0, phone(), bytes);
    let mut outcomes = Vec::new();
    while let Some(output) = ua.poll_output() {
        outcomes.push(match output {
            Output::Send { bytes, .. } => {
                let end = bytes.iter().position(|it| *it == b'\r').unwrap();
                String::from_utf8_lossy(&bytes[8..end]).into_owned()
            }
            Output::Event(Event::Invited { invite, .. }) => {
                let sdp = invite.sdp.map(|sdp| format!(" with {} bytes of SDP", sdp.len()));
                format!("Invited{}", sdp.unwrap_or_default())
            }
            Output::Event(event) => format!("{event:?}"),
            Output::Judged { .. } => continue,
            Output::Alias { peer, alias } => format!("{peer} is {alias}"),
            Output::Discarded(reason) => format!("({reason})"),
        });
    }
    outcomes.join(", ")
}
