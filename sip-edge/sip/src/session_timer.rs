//! Session timers: who refreshes a session, how often, and when it has died (RFC 4028).

use crate::header::{Headers, Name};
use crate::param::{self, Params};
use std::time::{Duration, Instant};

/// Shortest session interval that the RFC lets anybody ask for (§5).
pub(crate) const FLOOR: Duration = Duration::from_secs(90);
/// The BYE of who does not refresh comes so long before the end, or a third of the interval (§10).
const MARGIN: Duration = Duration::from_secs(32);

/// What this side asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// `None`: no timer, unless the peer wants one.
    pub(crate) interval: Option<Duration>,
    /// Shorter ones are refused with 422.
    pub(crate) least: Duration,
}

/// Who refreshes, as it stands in `refresher`: by the roles in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refresher {
    Uac,
    Uas,
}

/// The peer wants a shorter interval than we allow: 422 with Min-SE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooSmall;

/// What one INVITE or UPDATE with its 2xx has agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) interval: Duration,
    pub(crate) refresher: Refresher,
    /// The UAC knows the extension, so that the 2xx may demand it.
    pub(crate) is_known_to_uac: bool,
}

impl Agreed {
    /// What we answer to a request (§9). `None`: no session timer.
    pub(crate) fn of_request(headers: &Headers, wish: Wish) -> Result<Option<Self>, TooSmall> {
        let is_known_to_uac = has_option(headers, Name::Supported, "timer")
            || has_option(headers, Name::Require, "timer");
        let least = seconds(headers.get(Name::MinSe)).unwrap_or_default();
        let asked = headers.get(Name::SessionExpires);
        let Some(interval) = seconds(asked) else {
            let interval = wish.interval.map(|interval| interval.max(least));
            let refresher = Refresher::Uas;
            return Ok(interval.map(|interval| Self { interval, refresher, is_known_to_uac }));
        };
        if interval < wish.least && is_known_to_uac {
            return Err(TooSmall);
        }
        let refresher = match (refresher(asked), is_known_to_uac) {
            (Some(refresher), true) => refresher,
            (None, true) => Refresher::Uac,
            (_, false) => Refresher::Uas, // A proxy asked for it.
        };
        Ok(Some(Self { interval: interval.max(FLOOR), refresher, is_known_to_uac }))
    }

    /// What the 2xx to a request of ours says (§7.2). A peer that says nothing does not know the
    /// extension: then we refresh alone, if we wanted it.
    pub(crate) fn of_response(headers: &Headers, wish: Wish) -> Option<Self> {
        let said = headers.get(Name::SessionExpires);
        let (interval, refresher) = match seconds(said) {
            Some(interval) => (interval.max(FLOOR), refresher(said).unwrap_or(Refresher::Uac)),
            None => (wish.interval?, Refresher::Uac),
        };
        Some(Self { interval, refresher, is_known_to_uac: true })
    }

    /// Value of Session-Expires in our 2xx.
    pub(crate) fn header(&self) -> String {
        let refresher = match self.refresher {
            Refresher::Uac => "uac",
            Refresher::Uas => "uas",
        };
        format!("{};refresher={refresher}", self.interval.as_secs())
    }
}

/// A session timer of a dialog that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionTimer {
    pub(crate) interval: Duration,
    /// We refresh; else the peer does, and its silence ends the session.
    pub(crate) is_ours: bool,
    pub(crate) at: Instant,
}

impl SessionTimer {
    /// From the 2xx on; `role` is ours in the request that agreed on it.
    pub(crate) fn start(now: Instant, agreed: Agreed, role: Refresher) -> Self {
        let (interval, is_ours) = (agreed.interval, agreed.refresher == role);
        let wait = if is_ours { interval / 2 } else { interval - MARGIN.min(interval / 3) };
        Self { interval, is_ours, at: now + wait }
    }
}

/// Whether a list of option tags has this one.
pub(crate) fn has_option(headers: &Headers, list: Name, option: &str) -> bool {
    let mut tags = headers.all(list).flat_map(|text| param::split(text, b','));
    tags.any(|tag| tag.trim().eq_ignore_ascii_case(option))
}

/// Delta-seconds before the parameters of a Session-Expires or Min-SE.
pub(crate) fn seconds(value: Option<&str>) -> Option<Duration> {
    let digits = value?.split(';').next()?.trim();
    digits.parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()))
}

fn refresher(value: Option<&str>) -> Option<Refresher> {
    let (_, params) = value?.split_once(';')?;
    match Params(params).get("refresher")? {
        name if name.eq_ignore_ascii_case("uac") => Some(Refresher::Uac),
        name if name.eq_ignore_ascii_case("uas") => Some(Refresher::Uas),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn uas_answers_as_table_2_of_the_rfc_says() {
        for (headers, wanted) in [
            ("", "1800;refresher=uas false"),
            ("Supported: timer", "1800;refresher=uas true"),
            ("Min-SE: 2000", "2000;refresher=uas false"),
            ("Session-Expires: 600", "600;refresher=uas false"),
            ("k: 100rel, Timer\r\nx: 600", "600;refresher=uac true"),
            ("k: timer\r\nx: 600;refresher=UAS", "600;refresher=uas true"),
            ("Require: timer\r\nx: 600 ; refresher=uac", "600;refresher=uac true"),
            ("k: timer\r\nx: 89", "too small"),
            ("k: timer\r\nx: 90", "90;refresher=uac true"),
            ("x: 10", "90;refresher=uas false"),
            ("k: timer\r\nx: soon", "1800;refresher=uas true"),
        ] {
            let wish = Wish { interval: Some(Duration::from_secs(1800)), least: FLOOR };
            let agreed = Agreed::of_request(&headers_of(headers), wish);
            let text = agreed.map_or("too small".to_owned(), |agreed| {
                agreed.map_or("none".to_owned(), |it| {
                    format!("{} {}", it.header(), it.is_known_to_uac)
                })
            });
            assert_eq!(text, wanted, "{headers}");
        }
        let wish = Wish { interval: None, least: FLOOR };
        assert_eq!(Agreed::of_request(&headers_of("k: timer"), wish), Ok(None));
    }

    #[test]
    fn uac_takes_what_the_2xx_says_and_refreshes_alone_if_that_is_nothing() {
        let wish = Wish { interval: Some(Duration::from_secs(1800)), least: FLOOR };
        for (headers, wanted) in [
            ("", "1800;refresher=uac"),
            ("x: 300;refresher=uas", "300;refresher=uas"),
            ("x: 300", "300;refresher=uac"),
            ("x: 1;refresher=uas", "90;refresher=uas"),
        ] {
            let agreed = Agreed::of_response(&headers_of(headers), wish).unwrap();
            assert_eq!(agreed.header(), wanted, "{headers}");
        }
        let none = Wish { interval: None, ..wish };
        assert_eq!(Agreed::of_response(&headers_of(""), none), None);
    }

    #[test]
    fn who_refreshes_does_it_at_half_time_and_who_waits_gives_up_before_the_end() {
        let now = Instant::now();
        for (seconds, ours, theirs) in [(1800, 900, 1768), (90, 45, 60)] {
            let interval = Duration::from_secs(seconds);
            let agreed = Agreed { interval, refresher: Refresher::Uas, is_known_to_uac: true };
            let at = |role| (SessionTimer::start(now, agreed, role).at - now).as_secs();
            assert_eq!((at(Refresher::Uas), at(Refresher::Uac)), (ours, theirs));
        }
    }

    fn headers_of(text: &str) -> Headers {
        let head = Bytes::from(format!("{text}\r\n"));
        let end = if text.is_empty() { 0 } else { head.len() };
        Headers::parse(head, 0..end).unwrap()
    }
}
