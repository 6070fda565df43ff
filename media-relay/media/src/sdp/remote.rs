//! What a remote's session description means to us: which audio, where, in which codecs.

use crate::codec::Codec;
use crate::sdp::formats::{Formats, payload_types, rtpmap};
use crate::sdp::{MEDIA_MAX, SDP_BYTES_MAX};
use crate::verbatim::{self, PAYLOAD_TYPES_MAX, Verbatim};
use sdp_types::{Connection, Media, Session};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Packet time that we use if the remote says nothing, in ms (RFC 3551 §4.2).
pub(crate) const PTIME_DEFAULT_MS: u32 = 20;
/// Packet times that we send are multiples of this, in ms.
const PTIME_STEP_MS: u32 = 10;
/// Longest packet time that we send, in ms.
const PTIME_MAX_MS: u32 = 60;

/// Longest text of a description that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 8_192;

/// Why a description cannot be used. What is not acceptable is answered with 488 by a UAS.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    #[error("a session description of {len} bytes is longer than {SDP_BYTES_MAX}")]
    TooLong { len: usize },
    #[error("not a session description (RFC 8866): {reason}")]
    Malformed { reason: String },
    #[error("{count} media descriptions are more than {MEDIA_MAX}")]
    TooManyMedia { count: usize },
    #[error("no usable audio: wanted `m=audio` with RTP/AVP, got {got}")]
    NoAudio { got: String },
    #[error("no codec in common: wanted one of {wanted}, got {got}")]
    NoCommonCodec { wanted: String, got: String },
    #[error("connection address {got:?} is not a unicast IP address")]
    Address { got: String },
    #[error("media for {address}, a port of ours, would come back to this session for ever")]
    Loop { address: SocketAddr },
    #[error("an {got} address cannot be reached from our {ours} one")]
    AddressFamily { got: &'static str, ours: &'static str },
}

impl Refusal {
    /// The warn-code for a description that is well-formed, but offers nothing that we can do (SIP
    /// 488, RFC 3261 §20.43).
    pub fn warn_code(&self) -> Option<u16> {
        match self {
            Self::NoAudio { .. } | Self::NoCommonCodec { .. } => Some(305),
            Self::AddressFamily { .. } => Some(301),
            Self::TooLong { .. }
            | Self::Malformed { .. }
            | Self::TooManyMedia { .. }
            | Self::Address { .. }
            | Self::Loop { .. } => None,
        }
    }
}

/// Of a media description, seen from its sender (RFC 3264 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Sendrecv,
    Sendonly,
    Recvonly,
    Inactive,
}

impl Direction {
    pub fn sends(self) -> bool {
        matches!(self, Self::Sendrecv | Self::Sendonly)
    }

    pub fn receives(self) -> bool {
        matches!(self, Self::Sendrecv | Self::Recvonly)
    }

    /// What the answer to it says (RFC 3264 §6.1).
    pub fn reversed(self) -> Self {
        match self {
            Self::Sendonly => Self::Recvonly,
            Self::Recvonly => Self::Sendonly,
            both @ (Self::Sendrecv | Self::Inactive) => both,
        }
    }

    pub(crate) fn attribute(self) -> &'static str {
        match self {
            Self::Sendrecv => "sendrecv",
            Self::Sendonly => "sendonly",
            Self::Recvonly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Sendrecv, Self::Sendonly, Self::Recvonly, Self::Inactive]
            .into_iter()
            .find(|it| name.eq_ignore_ascii_case(it.attribute()))
    }
}

/// The one audio stream that we take part in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Audio {
    pub formats: Formats,
    /// Where its RTP and RTCP go; none while on hold by c=0.0.0.0, or disabled by port 0.
    pub rtp: Option<SocketAddr>,
    pub rtcp: Option<SocketAddr>,
    pub direction: Direction,
    /// The port is 0: the stream is off (RFC 3264 §8.2).
    pub disabled: bool,
    /// As the remote wants it; what a codec can do of it: [`Codec::ptime_ms`].
    pub ptime_ms: u32,
}

impl Audio {
    /// The remote does not want to hear us.
    pub(crate) fn held(&self) -> bool {
        self.rtp.is_none() || !self.direction.receives()
    }
}

/// A remote's offer or answer with an audio stream that we can use.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Its lines that are read, for a later process; empty if they are too long to be kept.
    pub(crate) text: Arc<str>,
    /// It has none: somebody else negotiates, and this is what we know.
    pub(crate) verbatim: Option<Box<Verbatim>>,
    /// Where it was signalled from, if that is known.
    pub(crate) signalling: Option<IpAddr>,
    pub(crate) audio: Audio,
    /// Which media description that is.
    pub(crate) audio_index: usize,
    /// What it may still be, itself among them, until one is chosen.
    candidates: Vec<Candidate>,
    /// All of them, to answer each in its place.
    pub(crate) medias: Vec<MediaLine>,
}

/// An audio stream that we can use, if its address and its codecs are for us.
#[derive(Clone, Debug)]
struct Candidate {
    index: usize,
    /// Of its c= line, if it has one that can be read.
    is_ipv4: Option<bool>,
    audio: Audio,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MediaLine {
    pub media: String,
    pub proto: String,
    pub fmt: String,
}

impl Remote {
    /// Reads a session description.
    ///
    /// # Errors
    /// [`Refusal`] if it is malformed, or has no audio over RTP/AVP in a codec that we know.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > SDP_BYTES_MAX {
            return Err(Refusal::TooLong { len: bytes.len() });
        }
        let text = without_what_is_not_read(bytes);
        let session =
            Session::parse(&text).map_err(|e| Refusal::Malformed { reason: e.to_string() })?;
        let count = session.medias.len();
        if count > MEDIA_MAX {
            return Err(Refusal::TooManyMedia { count });
        }
        let candidates = read_candidates(&session)?;
        let (audio, audio_index) = (candidates[0].audio.clone(), candidates[0].index);
        let line = |it: &Media| MediaLine {
            media: it.media.clone(),
            proto: it.proto.clone(),
            fmt: it.fmt.clone(),
        };
        let text = match text.len() {
            0..=TEXT_BYTES_MAX => String::from_utf8_lossy(&text).into(),
            _ => "".into(),
        };
        let signalling = None;
        Ok(Self {
            text,
            verbatim: None,
            signalling,
            audio,
            audio_index,
            candidates,
            medias: session.medias.iter().map(line).collect(),
        })
    }

    /// What we know of a remote whose description we do not see.
    pub(crate) fn verbatim(verbatim: Verbatim) -> Self {
        let named = verbatim.payload_types.iter().take(PAYLOAD_TYPES_MAX).copied();
        let formats = Formats::by_number(verbatim.plays_in, named, verbatim.telephone_event);
        let rtcp = verbatim
            .rtp
            .and_then(|rtp| rtp.port().checked_add(1).map(|port| SocketAddr::new(rtp.ip(), port)));
        let audio = Audio {
            formats,
            rtp: verbatim.rtp,
            rtcp,
            direction: Direction::Sendrecv,
            disabled: false,
            ptime_ms: ptime(verbatim.ptime_ms),
        };
        Self {
            text: "".into(),
            verbatim: Some(Box::new(verbatim)),
            signalling: None,
            audio,
            audio_index: 0,
            candidates: Vec::new(),
            medias: Vec::new(),
        }
    }

    /// Has it play in the codec of a static payload type; false if it is not verbatim, or there is no
    /// such codec.
    pub(crate) fn play_in(&mut self, payload_type: u8, ptime_ms: u32) -> bool {
        let (Some(verbatim), Some(_)) = (&mut self.verbatim, verbatim::codec_of(payload_type))
        else {
            return false;
        };
        (verbatim.plays_in, verbatim.ptime_ms) = (Some(payload_type), ptime_ms);
        self.audio.ptime_ms = ptime(ptime_ms);
        let named = verbatim.payload_types.iter().take(PAYLOAD_TYPES_MAX).copied();
        self.audio.formats = Formats::by_number(verbatim.plays_in, named, verbatim.telephone_event);
        true
    }

    /// The same, signalled from `source`, where media may come from too.
    pub fn signalled_from(self, source: Option<IpAddr>) -> Self {
        Self { signalling: source, ..self }
    }

    /// The codec in which its sender wants to hear us.
    pub fn codec(&self) -> Codec {
        self.audio.formats.preferred().1
    }

    /// Its sender does not want to hear us: sendonly, inactive, c=0.0.0.0, or port 0.
    pub fn held(&self) -> bool {
        self.audio.held()
    }

    /// Takes the first audio that can be reached from `ours` and has one of these codecs, and keeps
    /// only these of it. On an error nothing has changed.
    ///
    /// # Errors
    /// [`Refusal::AddressFamily`] if there is none at an address of our family, else
    /// [`Refusal::NoCommonCodec`].
    pub(crate) fn choose(&mut self, ours: IpAddr, codecs: &[Codec]) -> Result<(), Refusal> {
        let of_our_family = |it: &&Candidate| it.is_ipv4 == Some(ours.is_ipv4());
        let mut reached: Vec<_> = self.candidates.iter().filter(of_our_family).collect();
        if reached.is_empty() {
            // On hold the family does not matter: 0.0.0.0 is said by IPv6 phones, too.
            reached = self.candidates.iter().filter(|it| it.audio.rtp.is_none()).collect();
        }
        let Some(first) = reached.first() else { return Err(other_family(ours)) };
        let restricted = |it: &&Candidate| {
            let mut audio = it.audio.clone();
            audio.formats.restrict(codecs).then_some((it.index, audio))
        };
        let Some((index, audio)) = reached.iter().find_map(restricted) else {
            let got: Vec<_> =
                first.audio.formats.codecs.iter().map(|(_, it)| it.rtpmap()).collect();
            return Err(no_common_codec(codecs, got.join(", ")));
        };
        (self.audio_index, self.audio, self.candidates) = (index, audio, Vec::new());
        Ok(())
    }
}

/// Empties the lines that nobody here reads: a subject in Latin-1 or an odd bandwidth must not cost a
/// call. What is left keeps its line numbers, for messages.
fn without_what_is_not_read(sdp: &[u8]) -> Vec<u8> {
    let is_read = |line: &[u8]| match line {
        [b'o' | b's' | b'i' | b'u' | b'e' | b'p' | b'b' | b't' | b'r' | b'z' | b'k', b'=', ..] => {
            false
        }
        [b'a', b'=', ..] => str::from_utf8(line).is_ok(),
        _ => true,
    };
    let lines = sdp.split(|it| *it == b'\n').map(|it| it.trim_ascii_end());
    let lines: Vec<_> = lines.map(|it| if is_read(it) { it } else { b"" }).collect();
    lines.join(&b'\n')
}

/// Every audio with a codec of ours, at least one: those with a port, or the first that is off.
fn read_candidates(session: &Session) -> Result<Vec<Candidate>, Refusal> {
    let is_audio = |it: &Media| it.media == "audio" && it.proto == "RTP/AVP";
    let audio = || session.medias.iter().enumerate().filter(|(_, it)| is_audio(it));
    let with_codec = || audio().filter_map(|(n, it)| Some((n, it, Formats::read(it)?)));
    let on: Vec<_> = with_codec()
        .filter(|(_, it, _)| it.port != 0)
        .map(|(n, it, formats)| read_candidate(session, n, it, formats))
        .collect();
    if on.iter().any(Result::is_ok) {
        return Ok(on.into_iter().flatten().collect()); // An address that is none costs its stream.
    }
    let off =
        || with_codec().next().map(|(n, it, formats)| read_candidate(session, n, it, formats));
    let found = on.into_iter().next().or_else(off).ok_or_else(|| match audio().next() {
        Some((_, media)) => no_common_codec(&Codec::ALL, named_formats(media)),
        None => Refusal::NoAudio { got: named_media(session) },
    })?;
    Ok(vec![found?])
}

fn other_family(ours: IpAddr) -> Refusal {
    match ours.is_ipv4() {
        true => Refusal::AddressFamily { got: "IPv6", ours: "IPv4" },
        false => Refusal::AddressFamily { got: "IPv4", ours: "IPv6" },
    }
}

fn no_common_codec(codecs: &[Codec], got: String) -> Refusal {
    let wanted: Vec<_> = codecs.iter().map(|it| it.rtpmap()).collect();
    Refusal::NoCommonCodec { wanted: wanted.join(", "), got }
}

fn read_candidate(
    session: &Session,
    index: usize,
    media: &Media,
    formats: Formats,
) -> Result<Candidate, Refusal> {
    let disabled = media.port == 0;
    let connection = media.connections.first().or(session.connection.as_ref());
    let ip = if disabled { None } else { read_address(connection)? };
    let rtp = ip.map(|ip| SocketAddr::new(ip, media.port));
    let direction = match disabled {
        true => Direction::Inactive,
        false => read_direction(session, media),
    };
    let rtcp = rtp.and_then(|rtp| read_rtcp(media, rtp));
    let audio = Audio { formats, rtp, rtcp, direction, disabled, ptime_ms: read_ptime(media) };
    let is_ipv4 = connection.and_then(|it| it.try_address().ok()).map(|it| it.ip.is_ipv4());
    Ok(Candidate { index, is_ipv4, audio })
}

/// None for the old way to hold, c=0.0.0.0 (RFC 3264 §8.4).
fn read_address(connection: Option<&Connection>) -> Result<Option<IpAddr>, Refusal> {
    let connection = connection.ok_or(Refusal::Address { got: String::new() })?;
    let got = || Refusal::Address { got: shortened(&connection.connection_address) };
    let ip = connection.try_address().map_err(|_| got())?.ip;
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    match ip {
        ip if ip.is_unspecified() => Ok(None),
        ip if ip.is_multicast() || broadcast => Err(got()),
        ip => Ok(Some(ip)),
    }
}

/// Of the media description, else of the session, else sendrecv.
fn read_direction(session: &Session, media: &Media) -> Direction {
    let mut attributes = media.attributes.iter().chain(&session.attributes);
    attributes.find_map(|it| Direction::parse(&it.attribute)).unwrap_or(Direction::Sendrecv)
}

/// The port after RTP's, unless a=rtcp says otherwise (RFC 3605).
fn read_rtcp(media: &Media, rtp: SocketAddr) -> Option<SocketAddr> {
    let next = || rtp.port().checked_add(1).map(|port| SocketAddr::new(rtp.ip(), port));
    let Some(Some(value)) = media.get_first_attribute_value("rtcp") else { return next() };
    let mut words = value.split_ascii_whitespace();
    let Some(port) = words.next().and_then(|it| it.parse().ok()).filter(|port| *port != 0) else {
        return next();
    };
    let named: Option<IpAddr> = words.nth(2).and_then(|it| it.parse().ok());
    let same_family = |ip: &IpAddr| ip.is_ipv4() == rtp.is_ipv4() && !ip.is_multicast();
    Some(SocketAddr::new(named.filter(same_family).unwrap_or(rtp.ip()), port))
}

/// a=ptime, not above a=maxptime, made a multiple of 10 from 10 to 60 ms.
fn read_ptime(media: &Media) -> u32 {
    let number = |name| -> Option<u32> {
        let value = media.get_first_attribute_value(name)??.trim();
        Some(value.parse::<f32>().ok()? as u32) // Some write 20.0.
    };
    let wanted = number("ptime").filter(|it| *it > 0).unwrap_or(PTIME_DEFAULT_MS);
    let most = number("maxptime").filter(|it| *it > 0).unwrap_or(PTIME_MAX_MS);
    ptime(wanted.min(most))
}

fn ptime(wanted_ms: u32) -> u32 {
    let ms = wanted_ms.min(PTIME_MAX_MS);
    (ms - ms % PTIME_STEP_MS).max(PTIME_STEP_MS)
}

/// For messages: what a media description offers.
fn named_formats(media: &Media) -> String {
    let name = |number: u8| rtpmap(media, number).map_or(number.to_string(), str::to_owned);
    let names: Vec<_> = payload_types(media).map(name).collect();
    shortened(&names.join(", "))
}

fn named_media(session: &Session) -> String {
    let name = |it: &Media| format!("{} over {}", it.media, it.proto);
    match session.medias.as_slice() {
        [] => "no media description".to_owned(),
        medias => shortened(&medias.iter().map(name).collect::<Vec<_>>().join(", ")),
    }
}

/// What a peer wrote, short enough for a message.
fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}
