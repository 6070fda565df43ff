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
    let remote = Some(remote);
    let offer = Offer { session_id: "s", call_id: "c", owner: "o", side: Side::A, remote };
    if relay.check_offer(&offer).is_err() {
        return;
    }
    let ports = relay.take_ports(now).unwrap();
    let described = relay.offer(now, offer, Some(ports)).unwrap();
    let ours = Remote::parse(&described.sdp).unwrap_or_else(|e| {
        panic!("{e} in our answer {}", String::from_utf8_lossy(&described.sdp))
    });
    assert_eq!(Some(ours.codec()), described.codec, "in the remote's order");
    assert_eq!(medias(&described.sdp), medias(sdp), "each stream is answered in its place");
    // Once more is a refresh: nothing about it changes, neither ports nor version.
    let remote = Some(Remote::parse(sdp).unwrap());
    let again = Offer { session_id: "s", call_id: "c", owner: "o", side: Side::A, remote };
    assert_eq!(relay.offer(now, again, None).unwrap().sdp, described.sdp);
}

/// The media and the protocol of every m= line.
fn medias(sdp: &[u8]) -> Vec<(String, String)> {
    let word = |line: &[u8], n| {
        let word = line[2..].split(|it| *it == b' ').nth(n).unwrap_or_default();
        String::from_utf8_lossy(word.trim_ascii()).into_owned()
    };
    let lines = sdp.split(|it| *it == b'\n').filter(|it| it.starts_with(b"m="));
    lines.map(|line| (word(line, 0), word(line, 2))).collect()
}
