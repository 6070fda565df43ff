//! Requests that are too large for UDP (RFC 3261 §18.1.1).

use super::bench::{Bench, SDP};
use crate::{LegId, OutboundInvite, Transport};

#[test]
fn a_large_invite_goes_by_tcp_if_nobody_has_said_udp() {
    for (subject_bytes, tcp_if_large, wanted) in
        [(10, true, Transport::Udp), (1_300, true, Transport::Tcp), (1_300, false, Transport::Udp)]
    {
        let mut bench = Bench::new();
        let invite = OutboundInvite {
            target: "sip:bob@192.0.2.1".into(),
            peer: bench.phone,
            from_uri: "sip:queue@198.51.100.1".into(),
            from_display: None,
            max_forwards: 70,
            sdp: SDP.into(),
            headers: vec![("Subject".into(), "x".repeat(subject_bytes))],
            credentials: None,
            tcp_if_large,
        };
        bench.order(|ua, now| assert!(ua.invite(now, invite).is_ok()));
        let (peer, bytes) = bench.sent.last().unwrap();
        assert_eq!(peer.transport, wanted, "{subject_bytes} bytes, {tcp_if_large}");
        let via = format!("Via: SIP/2.0/{} 198.51.100.1:5060;", wanted.name());
        assert!(String::from_utf8_lossy(bytes).contains(&via), "{bytes:?}");
        assert_eq!(bench.ua.transport(LegId::from_u64(1)), Some(wanted));
    }
}
