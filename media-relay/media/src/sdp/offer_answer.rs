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
