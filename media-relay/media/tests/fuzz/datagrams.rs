//! RTP and RTCP: whatever comes to the ports of a session is answered by a bounded number of bounded
//! packets, to nobody who was not signalled or heard.

use media::sdp::Remote;
use media::{Config, Offer, Relay, Side};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const A: &str = "192.0.2.1:4000";
const B: &str = "192.0.2.2:5000";
/// Longest datagram that we send: a whole payload and what stands before it.
const SENT_BYTES_MAX: usize = 1_500;

fn sdp(address: &str, formats: &str) -> Remote {
    let address: SocketAddr = address.parse().unwrap();
    let (ip, port) = (address.ip(), address.port());
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP {formats}\r\na=rtpmap:101 telephone-event/8000\r\n"
    );
    Remote::parse(sdp.as_bytes()).unwrap()
}

/// The input is datagrams: a byte says to which port and from where, another how long it is, and
/// that comes then.
pub(crate) fn check(mut input: &[u8]) {
    let mut now = Instant::now();
    let config = Config {
        address: "198.51.100.1".parse().unwrap(),
        bound: "198.51.100.1".parse().unwrap(),
        rtp_ports: 20_000..=20_003,
        port_quarantine: Duration::ZERO,
        inactivity: Duration::from_secs(1),
        recording_max: Duration::ZERO,
        sessions_max: 1,
        codecs: media::Codec::ALL.to_vec(),
    };
    let mut relay = Relay::new(config, [1; 32], now, Duration::from_secs(1)).unwrap();
    for (side, remote) in [(Side::A, sdp(A, "0 101")), (Side::B, sdp(B, "8 101"))] {
        let remote = Some(remote);
        let offer = Offer { session_id: "s", call_id: "c", owner: "o", side, remote };
        let ports = relay.take_ports(now).unwrap();
        relay.offer(now, offer, Some(ports)).unwrap();
    }
    relay.connect(now, "s").unwrap();
    let sources = [A, B, "192.0.2.3:1", "192.0.2.1:4001"].map(|it| it.parse().unwrap());
    while let [way, len, rest @ ..] = input {
        let (datagram, after) = rest.split_at(rest.len().min(usize::from(*len) * 8));
        input = after;
        let port = 20_000 + u16::from(way % 4);
        let source = sources[usize::from(way / 4) % sources.len()];
        let _ = relay.handle_datagram(now, port, source, datagram);
        if way & 0x80 != 0 {
            now += Duration::from_millis(20);
            relay.handle_timeout(now);
        }
        let mut sent = 0;
        for transmit in relay.transmits() {
            sent += 1;
            assert!(transmit.bytes.len() <= SENT_BYTES_MAX, "{} bytes", transmit.bytes.len());
            assert_ne!(transmit.to.ip(), "198.51.100.1".parse::<std::net::IpAddr>().unwrap());
        }
        assert!(sent <= 4, "{sent} packets for one");
        relay.clear_transmits();
        while relay.poll_output().is_some() {}
    }
}
