//! Our half of RFC 3264: answers to offers, and offers of our own.

use crate::codec::Codec;
use crate::sdp::remote::{MediaLine, PTIME_DEFAULT_MS};
use crate::sdp::{Direction, Formats, Remote};
use sdp_types::{Attribute, Connection, Media, Session, Time};
use std::hash::{DefaultHasher, Hasher as _};
use std::net::IpAddr;

/// The o= line of one side; its version goes up when what we say changes (RFC 3264 §8).
#[derive(Debug)]
pub(crate) struct Origin {
    session: u64,
    version: u64,
    /// A hash of what we said last: the text itself would be most of what a side takes.
    last: Option<u64>,
}

impl Origin {
    /// `session` is a random number, at most 63 bits.
    pub(crate) fn new(session: u64) -> Self {
        Self { session: session >> 1, version: 0, last: None }
    }

    /// Session id and version.
    pub(crate) fn numbers(&self) -> (u64, u64) {
        (self.session, self.version)
    }

    /// Goes on from [`Origin::numbers`] of an earlier process. What that has said is not known, so
    /// that the next version is a new one.
    pub(crate) fn resume(session: u64, version: u64) -> Self {
        Self { session, version: version.saturating_add(1), last: None }
    }
}

/// Where we receive one side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local {
    pub address: IpAddr,
    pub rtp_port: u16,
}

/// What an offer of ours holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offered<'a> {
    /// In our order.
    pub all: &'a [Codec],
    /// What the other side sends, to go before them: then nothing need be transcoded.
    pub first: Option<Codec>,
}

impl Local {
    /// The answer to an offer: its codecs that are ours, in its order and with its numbers; every
    /// other stream rejected in its place.
    pub(crate) fn answer(&self, origin: &mut Origin, offer: &Remote) -> Vec<u8> {
        let medias = offer.medias.iter().enumerate().map(|(n, line)| {
            if n != offer.audio_index || offer.audio.disabled {
                return rejected(line);
            }
            let direction = offer.audio.direction.reversed();
            self.audio(&offer.audio.formats, direction, offer.audio.ptime_ms)
        });
        let medias = medias.collect();
        self.write(origin, medias)
    }

    /// An offer of everything that we can do; on a live side with the numbers in use, and with its
    /// other streams still off in their places (RFC 3264 §8). Also returns what it offers.
    pub(crate) fn offer(
        &self,
        origin: &mut Origin,
        in_use: Option<&Remote>,
        codecs: &Offered<'_>,
    ) -> (Vec<u8>, Formats) {
        let formats =
            Formats::offered(in_use.map(|it| &it.audio.formats), codecs.first, codecs.all);
        let ptime_ms = in_use.map_or(PTIME_DEFAULT_MS, |it| it.audio.ptime_ms);
        let audio = self.audio(&formats, Direction::Sendrecv, ptime_ms);
        let medias = match in_use {
            None => vec![audio],
            Some(remote) => {
                let mut medias: Vec<_> = remote.medias.iter().map(rejected).collect();
                medias[remote.audio_index] = audio;
                medias
            }
        };
        (self.write(origin, medias), formats)
    }

    fn audio(&self, formats: &Formats, direction: Direction, ptime_ms: u32) -> Media {
        let (fmt, mut attributes) = formats.write();
        let ptime_ms = formats.preferred().1.ptime_ms(ptime_ms);
        attributes.push(with_value("ptime", ptime_ms.to_string()));
        attributes.push(with_value("rtcp", (self.rtp_port + 1).to_string()));
        attributes.push(Attribute::new(direction.attribute()));
        Media {
            port: self.rtp_port,
            attributes,
            ..media("audio".to_owned(), "RTP/AVP".to_owned(), fmt)
        }
    }

    fn write(&self, origin: &mut Origin, medias: Vec<Media>) -> Vec<u8> {
        let mut session = Session::new(
            sdp_types::Origin::with_ip_addr(origin.session, origin.version, self.address),
            "-",
        );
        session.connection = Some(Connection::from_ip_addr(self.address));
        session.times = vec![Time::new(0, 0)];
        session.medias = medias;
        let mut bytes = text(&session);
        if origin.last.is_some_and(|last| last != hash(&bytes)) {
            origin.version += 1;
            session.origin.sess_version = origin.version;
            bytes = text(&session);
        }
        origin.last = Some(hash(&bytes));
        bytes
    }
}

fn text(session: &Session) -> Vec<u8> {
    let mut bytes = Vec::new();
    session.write(&mut bytes).expect("a Vec can be written to");
    bytes
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

fn rejected(line: &MediaLine) -> Media {
    media(line.media.clone(), line.proto.clone(), line.fmt.clone())
}

fn media(media: String, proto: String, fmt: String) -> Media {
    Media {
        media,
        port: 0,
        num_ports: None,
        proto,
        fmt,
        media_title: None,
        connections: Vec::new(),
        bandwidths: Vec::new(),
        key: None,
        attributes: Vec::new(),
    }
}

fn with_value(name: &str, value: String) -> Attribute {
    Attribute::with_value(name, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    const V4: &str = "IP4 192.0.2.1";
    const V6: &str = "IP6 2001:db8::1";

    /// An m= line, by its port, profile and payload type, and its c= line.
    fn stream(port: u16, profile: &str, fmt: u8, address: &str) -> String {
        format!("m=audio {port} {profile} {fmt}\r\nc=IN {address}\r\n")
    }

    /// The m= lines of the answer of a relay that speaks PCMU and PCMA, or why there is none.
    fn answer(ours: &str, streams: &[String]) -> String {
        let offer = format!("v=0\r\no=- 1 1 IN {V4}\r\ns=-\r\nt=0 0\r\n{}", streams.concat());
        let local = Local { address: ours.parse().unwrap(), rtp_port: 20_000 };
        let chosen = Remote::parse(offer.as_bytes()).and_then(|mut it| {
            it.choose(local.address, &[Codec::Pcmu, Codec::Pcma])?;
            Ok(it)
        });
        let sdp = match chosen {
            Ok(remote) => local.answer(&mut Origin::new(1), &remote),
            Err(refusal) => return refusal.to_string(),
        };
        let sdp = String::from_utf8(sdp).unwrap();
        let lines: Vec<_> = sdp.lines().filter(|it| it.starts_with("m=")).collect();
        lines.join(", ")
    }

    #[test]
    fn the_first_audio_that_can_be_used_is_taken_and_the_others_are_rejected_in_place() {
        let avp = |port, fmt, address| stream(port, "RTP/AVP", fmt, address);
        let savp = |port, fmt, address| stream(port, "RTP/SAVP", fmt, address);
        let multicast = "IP4 239.1.1.1";
        let offers = [
            ("IPv6 first", vec![avp(4_000, 0, V6), avp(4_002, 8, V4)]),
            ("IPv4 first", vec![avp(4_000, 0, V4), avp(4_002, 8, V6)]),
            ("IPv6 only", vec![avp(4_000, 0, V6)]),
            ("IPv4 only", vec![avp(4_000, 0, V4)]),
            ("the first off", vec![avp(0, 0, V4), avp(4_002, 8, V4)]),
            ("ours off", vec![avp(0, 0, V4), avp(4_002, 8, V6)]),
            ("all off", vec![avp(0, 0, V6), avp(0, 8, V4)]),
            ("SAVP first", vec![savp(4_000, 0, V4), avp(4_002, 8, V4)]),
            ("SAVP only", vec![savp(4_000, 0, V4)]),
            ("a codec that nobody knows first", vec![avp(4_000, 18, V4), avp(4_002, 8, V4)]),
            ("a codec that is not allowed first", vec![avp(4_000, 9, V4), avp(4_002, 8, V4)]),
            ("codecs by family", vec![avp(4_000, 0, V6), avp(4_002, 9, V4)]),
            ("multicast first", vec![avp(4_000, 0, multicast), avp(4_002, 8, V4)]),
            ("multicast, and off", vec![avp(4_000, 0, multicast), avp(0, 8, V4)]),
            ("held", vec![avp(4_000, 0, "IP6 ::"), avp(4_002, 8, "IP4 0.0.0.0")]),
            ("held by 0.0.0.0 only", vec![avp(4_000, 0, "IP4 0.0.0.0")]),
        ];
        let answers = offers.map(|(name, streams)| {
            let [v4, v6] = ["198.51.100.1", "2001:db8::2"].map(|ours| answer(ours, &streams));
            format!("{name}\n  v4: {v4}\n  v6: {v6}\n")
        });
        expect![[r#"
            IPv6 first
              v4: m=audio 0 RTP/AVP 0, m=audio 20000 RTP/AVP 8
              v6: m=audio 20000 RTP/AVP 0, m=audio 0 RTP/AVP 8
            IPv4 first
              v4: m=audio 20000 RTP/AVP 0, m=audio 0 RTP/AVP 8
              v6: m=audio 0 RTP/AVP 0, m=audio 20000 RTP/AVP 8
            IPv6 only
              v4: an IPv6 address cannot be reached from our IPv4 one
              v6: m=audio 20000 RTP/AVP 0
            IPv4 only
              v4: m=audio 20000 RTP/AVP 0
              v6: an IPv4 address cannot be reached from our IPv6 one
            the first off
              v4: m=audio 0 RTP/AVP 0, m=audio 20000 RTP/AVP 8
              v6: an IPv4 address cannot be reached from our IPv6 one
            ours off
              v4: an IPv6 address cannot be reached from our IPv4 one
              v6: m=audio 0 RTP/AVP 0, m=audio 20000 RTP/AVP 8
            all off
              v4: m=audio 0 RTP/AVP 0, m=audio 0 RTP/AVP 8
              v6: m=audio 0 RTP/AVP 0, m=audio 0 RTP/AVP 8
            SAVP first
              v4: m=audio 0 RTP/SAVP 0, m=audio 20000 RTP/AVP 8
              v6: an IPv4 address cannot be reached from our IPv6 one
            SAVP only
              v4: no usable audio: wanted `m=audio` with RTP/AVP, got audio over RTP/SAVP
              v6: no usable audio: wanted `m=audio` with RTP/AVP, got audio over RTP/SAVP
            a codec that nobody knows first
              v4: m=audio 0 RTP/AVP 18, m=audio 20000 RTP/AVP 8
              v6: an IPv4 address cannot be reached from our IPv6 one
            a codec that is not allowed first
              v4: m=audio 0 RTP/AVP 9, m=audio 20000 RTP/AVP 8
              v6: an IPv4 address cannot be reached from our IPv6 one
            codecs by family
              v4: no codec in common: wanted one of PCMU/8000, PCMA/8000, got G722/8000
              v6: m=audio 20000 RTP/AVP 0, m=audio 0 RTP/AVP 9
            multicast first
              v4: m=audio 0 RTP/AVP 0, m=audio 20000 RTP/AVP 8
              v6: an IPv4 address cannot be reached from our IPv6 one
            multicast, and off
              v4: connection address "239.1.1.1" is not a unicast IP address
              v6: connection address "239.1.1.1" is not a unicast IP address
            held
              v4: m=audio 0 RTP/AVP 0, m=audio 20000 RTP/AVP 8
              v6: m=audio 20000 RTP/AVP 0, m=audio 0 RTP/AVP 8
            held by 0.0.0.0 only
              v4: m=audio 20000 RTP/AVP 0
              v6: m=audio 20000 RTP/AVP 0
        "#]]
        .assert_eq(&answers.concat());
    }
}
