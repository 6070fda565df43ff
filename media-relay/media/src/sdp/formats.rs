//! Payload types: which codecs and events a media description names, and how we write them.

use crate::codec::Codec;
use crate::verbatim;
use sdp_types::{Attribute, Media};
use smallvec::SmallVec;

/// Payload types of telephone-event and comfort noise beside the codecs of one description.
pub(crate) type Events = SmallVec<[TelephoneEvents; 2]>;

/// The payload type of telephone-event at 8 kHz in our first offer; the customary one.
const TELEPHONE_EVENT: u8 = 101;
/// RTP clocks of telephone-event that we understand, in Hz: those of our codecs.
const EVENT_CLOCKS_HZ: [u32; 3] = [8_000, 16_000, 48_000];
/// Comfort noise has a payload type of its own beside codecs at 8 kHz (RFC 3389 §4).
const COMFORT_NOISE: u8 = 13;
/// What we say of Opus (RFC 7587 §6.1): that we hear mono, and can repair losses.
const OPUS_FMTP: &str = "stereo=0;sprop-stereo=0;useinbandfec=1";

/// telephone-event at one clock rate (RFC 4733 §2.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TelephoneEvents {
    pub payload_type: u8,
    pub clock_rate_hz: u32,
}

/// Payload types of what both sides can do, in the remote's order; at least one codec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Formats {
    pub codecs: SmallVec<[(u8, Codec); 2]>,
    pub telephone_events: Events,
    pub comfort_noise: Option<u8>,
}

impl Formats {
    /// What we send.
    pub(crate) fn preferred(&self) -> (u8, Codec) {
        self.codecs[0]
    }

    pub(crate) fn codec_of(&self, payload_type: u8) -> Option<Codec> {
        self.codecs.iter().find(|(number, _)| *number == payload_type).map(|(_, codec)| *codec)
    }

    /// The events that go with a codec: of its clock rate, else of any.
    pub(crate) fn events_beside(&self, codec: Codec) -> Option<TelephoneEvents> {
        let like = |it: &&TelephoneEvents| it.clock_rate_hz == codec.clock_rate_hz();
        self.telephone_events.iter().find(like).or(self.telephone_events.first()).copied()
    }

    pub(crate) fn events_of(&self, payload_type: u8) -> Option<TelephoneEvents> {
        self.telephone_events.iter().find(|it| it.payload_type == payload_type).copied()
    }

    /// What a media description names; none without a codec of ours.
    pub(super) fn read(media: &Media) -> Option<Self> {
        let mut formats =
            Self { codecs: SmallVec::new(), telephone_events: Events::new(), comfort_noise: None };
        for payload_type in payload_types(media) {
            let rtpmap = rtpmap(media, payload_type);
            let codec = match rtpmap {
                Some(rtpmap) => Codec::from_rtpmap(rtpmap),
                None => {
                    Codec::ALL.into_iter().find(|it| it.static_payload_type() == Some(payload_type))
                }
            };
            match codec {
                // Else the same codec under a second number.
                Some(codec) if formats.codecs.iter().all(|(_, it)| *it != codec) => {
                    formats.codecs.push((payload_type, codec));
                }
                Some(_) => (),
                None => formats.read_event(payload_type, rtpmap),
            }
        }
        formats.keep_events_beside_codecs();
        (!formats.codecs.is_empty()).then_some(formats)
    }

    /// By payload types alone: all that are static, `first` before those that were `named`, and those
    /// before the others. What we do not know is left out.
    pub(super) fn by_number(
        first: Option<u8>,
        named: impl Iterator<Item = u8>,
        telephone_event: Option<u8>,
    ) -> Self {
        let others = Codec::ALL.into_iter().filter_map(|it| it.static_payload_type());
        let mut codecs = SmallVec::<[(u8, Codec); 2]>::new();
        for number in first.into_iter().chain(named).chain(others) {
            if let Some(codec) = verbatim::codec_of(number)
                && codecs.iter().all(|(it, _)| *it != number)
            {
                codecs.push((number, codec));
            }
        }
        let events = telephone_event.map(|payload_type| TelephoneEvents {
            payload_type,
            clock_rate_hz: EVENT_CLOCKS_HZ[0],
        });
        Self { codecs, telephone_events: events.into_iter().collect(), comfort_noise: None }
    }

    /// Keeps only these codecs, unless there were none then: false.
    pub(super) fn restrict(&mut self, codecs: &[Codec]) -> bool {
        if !self.codecs.iter().any(|(_, it)| codecs.contains(it)) {
            return false;
        }
        self.codecs.retain(|(_, it)| codecs.contains(it));
        self.keep_events_beside_codecs();
        true
    }

    fn read_event(&mut self, payload_type: u8, rtpmap: Option<&str>) {
        let rtpmap = rtpmap.map(str::to_ascii_lowercase);
        let rtpmap = rtpmap.as_ref().map(|it| it.strip_suffix("/1").unwrap_or(it));
        if rtpmap == Some("cn/8000") || (rtpmap.is_none() && payload_type == COMFORT_NOISE) {
            self.comfort_noise.get_or_insert(payload_type);
        }
        let clock = rtpmap.and_then(|it| it.strip_prefix("telephone-event/"));
        let clock_rate_hz = clock.and_then(|it| it.parse().ok()).unwrap_or(0);
        let is_new = self.telephone_events.iter().all(|it| it.clock_rate_hz != clock_rate_hz);
        if EVENT_CLOCKS_HZ.contains(&clock_rate_hz) && is_new {
            self.telephone_events.push(TelephoneEvents { payload_type, clock_rate_hz });
        }
    }

    /// Events of a clock that no codec has are of no use, unless there are no others.
    fn keep_events_beside_codecs(&mut self) {
        let codecs = &self.codecs;
        let fits = |it: &TelephoneEvents| {
            codecs.iter().any(|(_, codec)| codec.clock_rate_hz() == it.clock_rate_hz)
        };
        if self.telephone_events.iter().any(fits) {
            self.telephone_events.retain(|it| fits(it));
        } else {
            self.telephone_events.truncate(1);
        }
        if !codecs.iter().any(|(_, it)| it.sample_rate_hz() == 8_000) {
            self.comfort_noise = None;
        }
    }

    /// What we offer: what the remote uses already first and by its numbers; then `first`, so that
    /// two legs need not be transcoded; then the rest of `codecs`.
    pub(super) fn offered(in_use: Option<&Self>, first: Option<Codec>, codecs: &[Codec]) -> Self {
        let mut formats = in_use.cloned().unwrap_or(Self {
            codecs: SmallVec::new(),
            telephone_events: Events::new(),
            comfort_noise: None,
        });
        let first = first.filter(|it| codecs.contains(it));
        for codec in first.into_iter().chain(codecs.iter().copied()) {
            if formats.codecs.iter().all(|(_, it)| *it != codec) {
                let number = customary(codec);
                let number = Some(number).filter(|it| formats.is_free(*it));
                let number = number.or_else(|| formats.free(customary(Codec::L16Narrow) + 1));
                formats.codecs.extend(number.map(|it| (it, codec)));
            }
        }
        for clock_rate_hz in [8_000, 48_000] {
            let beside = |(_, it): &(u8, Codec)| it.clock_rate_hz() == clock_rate_hz;
            let is_needed = formats.codecs.iter().any(beside)
                && formats.telephone_events.iter().all(|it| it.clock_rate_hz != clock_rate_hz);
            if let Some(payload_type) = is_needed.then(|| formats.free(TELEPHONE_EVENT)).flatten() {
                formats.telephone_events.push(TelephoneEvents { payload_type, clock_rate_hz });
            }
        }
        formats
    }

    /// The dynamic payload type that is free from this one on, or before it.
    fn free(&self, from: u8) -> Option<u8> {
        (from..128).chain(96..from).find(|it| self.is_free(*it))
    }

    fn is_free(&self, number: u8) -> bool {
        self.codec_of(number).is_none()
            && self.events_of(number).is_none()
            && self.comfort_noise != Some(number)
    }

    /// The payload types of an m= line, and their attributes.
    pub(super) fn write(&self) -> (String, Vec<Attribute>) {
        let mut fmt = Vec::new();
        let mut attributes = Vec::new();
        let mut write = |number: u8, rtpmap: &str, parameters: Option<&str>| {
            fmt.push(number.to_string());
            attributes.push(Attribute::with_value("rtpmap", format!("{number} {rtpmap}")));
            let parameters = parameters.map(|it| format!("{number} {it}"));
            attributes.extend(parameters.map(|it| Attribute::with_value("fmtp", it)));
        };
        for (number, codec) in &self.codecs {
            write(*number, codec.rtpmap(), (*codec == Codec::Opus).then_some(OPUS_FMTP));
        }
        if let Some(number) = self.comfort_noise {
            write(number, "CN/8000", None);
        }
        for events in &self.telephone_events {
            let rtpmap = format!("telephone-event/{}", events.clock_rate_hz);
            write(events.payload_type, &rtpmap, Some("0-15"));
        }
        (fmt.join(" "), attributes)
    }
}

/// The payload type of our first offers, whatever their order: an earlier process has said the same.
fn customary(codec: Codec) -> u8 {
    codec.static_payload_type().unwrap_or(match codec {
        Codec::Opus => 96,
        Codec::L16Wide => 97,
        _ => 98,
    })
}

pub(super) fn payload_types(media: &Media) -> impl Iterator<Item = u8> {
    let numbers = media.fmt.split_ascii_whitespace().filter_map(|it| it.parse().ok());
    numbers.filter(|number| *number < 128)
}

/// Encoding name, clock rate and channels of a payload type, as written.
pub(super) fn rtpmap(media: &Media, payload_type: u8) -> Option<&str> {
    media.get_attribute_values("rtpmap").flatten().find_map(|value| {
        let (number, name) = value.trim().split_once(char::is_whitespace)?;
        (number.parse() == Ok(payload_type)).then(|| name.trim())
    })
}
