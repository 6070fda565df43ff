//! The core as a user agent server that takes every call at once: 100, 180, 200.

use bytes::Bytes;
use sip::{Config, Event, HostPort, Output, Peer, Transport, UserAgent};
use std::net::SocketAddr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
    m=audio 20000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=sendrecv\r\n";

pub(crate) struct Core {
    pub(crate) ua: UserAgent,
    sdp: Bytes,
}

impl Core {
    pub(crate) fn new(addr: SocketAddr, max_dialogs: usize) -> Self {
        let mut config = Config::new(HostPort::new(addr.ip().to_string(), addr.port()));
        config.max_dialogs = max_dialogs;
        config.max_transactions = 4 * max_dialogs;
        config.max_transaction_bytes = usize::MAX;
        Self { ua: UserAgent::new(config, 1), sdp: Bytes::from_static(SDP.as_bytes()) }
    }

    pub(crate) fn receive(&mut self, now: Instant, source: SocketAddr, bytes: Bytes) {
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.ua.handle_message(now, unix_s, Peer::new(Transport::Udp, source), bytes);
    }

    /// The next datagram to send; whoever calls is answered meanwhile.
    pub(crate) fn poll_sent(&mut self, now: Instant) -> Option<(SocketAddr, Bytes)> {
        loop {
            match self.ua.poll_output()? {
                Output::Send { peer, bytes } => return Some((peer.addr, bytes)),
                Output::Event(Event::Invited { leg, .. }) => {
                    self.ua.ring(now, leg, 180, None);
                    self.ua.answer(now, leg, self.sdp.clone());
                }
                _ => (),
            }
        }
    }
}
