//! A phone that is a UDP socket: it says where it is, sends tones and digits, and keeps what it hears.

use crate::service::{LIMIT, Service};
use media::Codec;
use proto::media_relay::v1::Side;
use rtp_types::{RtpPacket, RtpPacketBuilder};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{MissedTickBehavior, interval, timeout};

#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    pub payload: Vec<u8>,
}

pub(crate) struct Phone {
    pub socket: Arc<UdpSocket>,
    pub codec: Codec,
    /// Where the relay receives it.
    relay: Option<SocketAddr>,
    sent: u16,
}

impl Phone {
    pub(crate) async fn new(codec: Codec) -> Self {
        Self::at("127.0.0.1", codec).await
    }

    pub(crate) async fn at(ip: &str, codec: Codec) -> Self {
        let socket = UdpSocket::bind((ip, 0)).await.unwrap();
        Self { socket: Arc::new(socket), codec, relay: None, sent: 0 }
    }

    pub(crate) fn sdp(&self) -> String {
        let (ip, port) = (self.ip(), self.socket.local_addr().unwrap().port());
        let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
        let number = self.codec.static_payload_type().unwrap();
        format!(
            "v=0\r\no=- 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP {number} 101\r\na=rtpmap:101 telephone-event/8000\r\n"
        )
    }

    fn ip(&self) -> IpAddr {
        self.socket.local_addr().unwrap().ip()
    }

    /// Offers itself as a side of a session.
    pub(crate) async fn join(&mut self, service: &Service, session_id: &str, side: Side) {
        let response = service.offer(session_id, side, self.sdp()).await.unwrap();
        assert_eq!(response.codec, self.codec.rtpmap());
        self.set_relay(&response.sdp);
    }

    /// The same phone, to listen with while it is busy speaking.
    pub(crate) fn ears(&self) -> Self {
        Self { socket: self.socket.clone(), ..*self }
    }

    pub(crate) fn set_relay(&mut self, sdp: &[u8]) {
        self.relay = Some(relay_address(sdp));
    }

    pub(crate) fn relay_at(&mut self, relay: SocketAddr) {
        self.relay = Some(relay);
    }

    pub(crate) fn relay_port(&self) -> u16 {
        self.relay.unwrap().port()
    }

    /// The next `count` packets.
    pub(crate) async fn hear(&self, count: usize) -> Vec<Heard> {
        let mut heard = Vec::new();
        let mut buffer = [0; 2_048];
        while heard.len() < count {
            let received = timeout(LIMIT, self.socket.recv(&mut buffer)).await;
            let len = received.expect("RTP in time").unwrap();
            let packet = RtpPacket::parse(&buffer[..len]).unwrap();
            heard.push(Heard {
                payload_type: packet.payload_type(),
                sequence: packet.sequence_number(),
                timestamp: packet.timestamp(),
                ssrc: packet.ssrc(),
                payload: packet.payload().to_vec(),
            });
        }
        heard
    }

    /// Decoded audio of the next `count` packets.
    pub(crate) async fn hear_samples(&self, count: usize) -> Vec<f64> {
        let heard = self.hear(count).await;
        let codes = heard.iter().flat_map(|it| &it.payload);
        codes.map(|it| f64::from(self.codec.law().unwrap().decode(*it))).collect()
    }

    /// Sends `voice` (one sample per tick) for ever, a packet each 20 ms.
    pub(crate) async fn speak(&mut self, voice: impl Fn(f64) -> f64) {
        let mut pace = interval(Duration::from_millis(20));
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            pace.tick().await;
            let first = u32::from(self.sent) * 160;
            let sample =
                |n| self.codec.law().unwrap().encode(voice(f64::from(first + n) / 8_000.0) as i16);
            let payload: Vec<u8> = (0..160).map(sample).collect();
            let number = self.codec.static_payload_type().unwrap();
            self.send(number, u32::from(self.sent) * 160, &payload).await;
        }
    }

    /// One press: the packets of a whole event.
    pub(crate) async fn press(&mut self, code: u8, timestamp: u32) {
        for (end, duration) in [(0, 160u16), (0, 320), (0x80, 480), (0x80, 480), (0x80, 480)] {
            let [high, low] = duration.to_be_bytes();
            self.send(101, timestamp, &[code, end | 10, high, low]).await;
        }
    }

    async fn send(&mut self, payload_type: u8, timestamp: u32, payload: &[u8]) {
        let packet = RtpPacketBuilder::<&[u8], &[u8]>::new()
            .payload_type(payload_type)
            .sequence_number(self.sent)
            .timestamp(timestamp)
            .ssrc(0x1234)
            .payload(payload)
            .write_vec()
            .unwrap();
        self.sent = self.sent.wrapping_add(1);
        self.socket.send_to(&packet, self.relay.unwrap()).await.unwrap();
    }
}

/// Where a description of the relay says that it receives.
pub(crate) fn relay_address(sdp: &[u8]) -> SocketAddr {
    let text = String::from_utf8(sdp.to_vec()).unwrap();
    let after = |prefix: &str| {
        let line = text.lines().find_map(|it| it.strip_prefix(prefix))?;
        Some(line.split(' ').next().unwrap().to_owned())
    };
    let connection = after("c=IN IP4 ").or_else(|| after("c=IN IP6 ")).unwrap();
    SocketAddr::new(connection.parse().unwrap(), after("m=audio ").unwrap().parse().unwrap())
}
