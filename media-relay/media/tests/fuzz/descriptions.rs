//! Session descriptions: whatever is accepted is answered by one that we would accept ourselves.

use media::sdp::{Remote, SDP_BYTES_MAX};
use media::{Config, Offer, Relay, Side};
use std::time::{Duration, Instant};

pub(crate) fn check(sdp: &[u8]) {
    let Ok(remote) = Remote::parse(sdp) else { return };
    assert!(sdp.len() <= SDP_BYTES_MAX);
    let now = Instant::now();
    let config = Config {
        address: "198.51.100.1".parse().unwrap(),
        bound: "198.51.100.1".parse().unwrap(),
        rtp_ports: 20_000..=20_003,
        port_quarantine: Duration::ZERO,
        inactivity: Duration::ZERO,
        recording_max: Duration::ZERO,
        sessions_max: 1,
        codecs: media::Codec::ALL.to_vec(),
    };
    let mut relay = Relay::new(config, [1; 32], now, Duration::from_secs(1)).unwrap();
    let codec = remote.codec();
    let remote = Some(remote);
    let offer = Offer { session_id: "s", call_id: "c", owner: "o", side: Side::A, remote };
    if relay.check_offer(&offer).is_err() {
        return;
    }
    let ports = relay.take_ports(now).unwrap();
    let described = relay.offer(now, offer, Some(ports)).unwrap();
    assert_eq!(described.codec, Some(codec));
    let ours = Remote::parse(&described.sdp).unwrap_or_else(|e| {
        panic!("{e} in our answer {}", String::from_utf8_lossy(&described.sdp))
    });
    assert_eq!(ours.codec(), codec, "in the remote's order");
    // Once more is a refresh: nothing about it changes, neither ports nor version.
    let remote = Some(Remote::parse(sdp).unwrap());
    let again = Offer { session_id: "s", call_id: "c", owner: "o", side: Side::A, remote };
    assert_eq!(relay.offer(now, again, None).unwrap().sdp, described.sdp);
}
