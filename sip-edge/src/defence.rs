//! Who is listened to: each source has its rate, and who behaves like an attacker can begin nothing
//! for a while. A value without clock or socket: the caller brings the time.

use ipnet::IpNet;
use sip::Suspicion;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Sources that are remembered; the others share one rate, as long as all of these are busy.
const SOURCES_MAX: usize = 65_536;
/// Those who are idle are forgotten at most so often.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);
/// How much more than its rate a source may send at once, in seconds of its rate.
const BURST_S: u32 = 2;
/// Messages that begin nothing (responses, requests in dialogs), for each one that may.
const FOLLOWING: u32 = 20;
/// Points at which a source is banned, and in what time they are forgotten.
const POINTS_MAX: u32 = 200;
const POINTS_WINDOW: Duration = Duration::from_secs(60);
/// What scanners call themselves, in lower case.
const SCANNERS: [&str; 12] = [
    "friendly-scanner",
    "sipvicious",
    "sundayddr",
    "sipcli",
    "sip-scan",
    "sipscan",
    "sivus",
    "pplsip",
    "iwar",
    "smap ",
    "eyebeam release 3006o stamp 17551", // A fixed disguise of well-known tools.
    "gulp",
];
/// How much of a message is searched for its User-Agent.
const SEARCHED_BYTES: usize = 4 * 1024;

/// What every source may do.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Requests outside of dialogs in a second.
    pub(crate) rate_per_s: u32,
    /// How long who misbehaves is not heard; zero bans nobody.
    pub(crate) ban: Duration,
    /// Sources without limits: our own machines, and trunks.
    pub(crate) trusted: Vec<IpNet>,
}

/// Why a message is not looked at; the text is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    /// It was banned before.
    Banned,
    /// It is banned from now on.
    Banning(&'static str),
    /// It sends too much.
    TooFast,
    /// Too many others send, too.
    Crowded,
}

impl Turned {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Turned::Banned | Turned::Banning(_) => "banned",
            Turned::TooFast => "source_rate",
            Turned::Crowded => "too_many_sources",
        }
    }
}

/// A bucket that fills at a rate.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    fn full(now: Instant, rate_per_s: f64) -> Self {
        Self { tokens: rate_per_s * f64::from(BURST_S), filled_at: now }
    }

    fn fill(&mut self, now: Instant, rate_per_s: f64) {
        let elapsed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * rate_per_s).min(rate_per_s * f64::from(BURST_S));
        self.filled_at = now;
    }

    fn take(&mut self, now: Instant, rate_per_s: f64) -> bool {
        self.fill(now, rate_per_s);
        let has = self.tokens >= 1.0;
        if has {
            self.tokens -= 1.0;
        }
        has
    }
}

#[derive(Clone, Copy, Debug)]
struct Source {
    beginning: Bucket,
    following: Bucket,
    points: u32,
    points_since: Instant,
    banned_until: Option<Instant>,
}

pub(crate) struct Defence {
    limits: Limits,
    sources: HashMap<IpAddr, Source>,
    /// What all share whom the table has no room for.
    crowd: Bucket,
    swept_at: Option<Instant>,
}

impl Defence {
    pub(crate) fn new(now: Instant, limits: Limits) -> Self {
        let crowd = Bucket::full(now, f64::from(limits.rate_per_s));
        Self { limits, sources: HashMap::new(), crowd, swept_at: None }
    }

    /// Whether a message is to be looked at.
    pub(crate) fn admit(&mut self, now: Instant, ip: IpAddr, bytes: &[u8]) -> Result<(), Turned> {
        if self.is_trusted(ip) {
            return Ok(());
        }
        let rate_per_s = f64::from(self.limits.rate_per_s);
        let begins = begins_something(bytes);
        let Some(source) = self.source(now, ip) else {
            return match begins && !self.crowd.take(now, rate_per_s) {
                true => Err(Turned::Crowded),
                false => Ok(()),
            };
        };
        match source.banned_until {
            Some(until) if until <= now => source.banned_until = None,
            // Its calls that stand can be ended: whoever was banned may have been forged.
            Some(_) if begins => return Err(Turned::Banned),
            _ => (),
        }
        let has_token = match begins {
            true => source.beginning.take(now, rate_per_s),
            false => source.following.take(now, rate_per_s * f64::from(FOLLOWING)),
        };
        if !has_token {
            return Err(Turned::TooFast);
        }
        match begins && is_of_a_scanner(bytes) {
            true => self.ban(now, ip, "scanner").map_or(Ok(()), Err),
            false => Ok(()),
        }
    }

    /// Takes note of what a message turned out to be; the ban, if this one was too much.
    pub(crate) fn judge(&mut self, now: Instant, ip: IpAddr, what: Suspicion) -> Option<Turned> {
        if self.is_trusted(ip) {
            return None;
        }
        let (points, reason) = match what {
            Suspicion::Proven => {
                let source = self.source(now, ip)?;
                source.points /= 2; // The others behind the same address may yet prove themselves.
                return None;
            }
            Suspicion::Unproven => (1, "unproven"),
            Suspicion::Malformed => (2, "malformed"),
            Suspicion::WrongProof => (10, "wrong_password"),
            Suspicion::NoSuchPlace => (10, "no_such_place"),
        };
        let source = self.source(now, ip)?;
        if now.saturating_duration_since(source.points_since) >= POINTS_WINDOW {
            (source.points, source.points_since) = (0, now);
        }
        source.points += points;
        match source.points >= POINTS_MAX {
            true => self.ban(now, ip, reason),
            false => None,
        }
    }

    fn ban(&mut self, now: Instant, ip: IpAddr, reason: &'static str) -> Option<Turned> {
        let ban = self.limits.ban;
        let source = self.source(now, ip).filter(|_| !ban.is_zero())?;
        source.points = 0;
        source.banned_until = Some(now + ban);
        Some(Turned::Banning(reason))
    }

    pub(crate) fn is_trusted(&self, ip: IpAddr) -> bool {
        self.limits.trusted.iter().any(|block| block.contains(&ip))
    }

    /// `None` if the table is full of others.
    fn source(&mut self, now: Instant, ip: IpAddr) -> Option<&mut Source> {
        let ip = network(ip);
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&ip) {
            self.sweep(now);
            if self.sources.len() >= SOURCES_MAX {
                return None;
            }
        }
        let rate_per_s = f64::from(self.limits.rate_per_s);
        Some(self.sources.entry(ip).or_insert_with(|| Source {
            beginning: Bucket::full(now, rate_per_s),
            following: Bucket::full(now, rate_per_s * f64::from(FOLLOWING)),
            points: 0,
            points_since: now,
            banned_until: None,
        }))
    }

    /// Forgets the sources that are as good as new.
    fn sweep(&mut self, now: Instant) {
        if self.swept_at.is_some_and(|at| now.saturating_duration_since(at) < SWEEP_PAUSE) {
            return;
        }
        self.swept_at = Some(now);
        let pause = Duration::from_secs(u64::from(BURST_S));
        self.sources.retain(|_, source| {
            let quiet = |bucket: &Bucket| now.saturating_duration_since(bucket.filled_at) >= pause;
            let is_banned = source.banned_until.is_some_and(|until| until > now);
            let has_points = source.points > 0
                && now.saturating_duration_since(source.points_since) < POINTS_WINDOW;
            is_banned || has_points || !quiet(&source.beginning) || !quiet(&source.following)
        });
    }
}

/// One customer has a whole /64 of IPv6.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
    }
}

/// Whether this may be the first of something: a request that is none of those that follow.
fn begins_something(bytes: &[u8]) -> bool {
    let following = ["SIP/2.0", "ACK", "BYE", "CANCEL", "PRACK", "UPDATE", "INFO"];
    let first = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
    !following.iter().any(|it| it.as_bytes() == first)
}

/// Whether its User-Agent is one of a scanner.
fn is_of_a_scanner(bytes: &[u8]) -> bool {
    let searched = &bytes[..bytes.len().min(SEARCHED_BYTES)];
    let lines = searched.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let head = lines.take_while(|line| !line.is_empty());
    let agents = head.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = line[..colon].trim_ascii_end();
        name.eq_ignore_ascii_case(b"User-Agent").then(|| line[colon + 1..].to_ascii_lowercase())
    });
    let named = |agent: &[u8], scanner: &str| {
        agent.windows(scanner.len()).any(|part| part == scanner.as_bytes())
    };
    agents.into_iter().any(|agent| SCANNERS.iter().any(|scanner| named(&agent, scanner)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &[u8] = b"INVITE sip:a SIP/2.0\r\nUser-Agent: A phone\r\n\r\n";
    const BYE: &[u8] = b"BYE sip:a SIP/2.0\r\n\r\n";
    const SCAN: &[u8] = b"OPTIONS sip:100 SIP/2.0\r\nuser-agent : Friendly-Scanner\r\n\r\n";

    #[test]
    fn a_flood_of_one_source_is_cut_to_its_rate_and_others_are_heard() {
        let (mut defence, start) = defence();
        let heard = |defence: &mut Defence, at: Instant, ip: &str| {
            (0..1_000).filter(|_| defence.admit(at, ip.parse().unwrap(), INVITE).is_ok()).count()
        };
        assert_eq!(heard(&mut defence, start, "192.0.2.1"), 20);
        assert_eq!(heard(&mut defence, start + Duration::from_secs(1), "192.0.2.1"), 10);
        assert_eq!(heard(&mut defence, start, "192.0.2.2"), 20);
        assert_eq!(heard(&mut defence, start, "10.0.0.1"), 1_000, "it is trusted");
        let turned = defence.admit(start, "192.0.2.2".parse().unwrap(), INVITE);
        assert_eq!(turned, Err(Turned::TooFast));
    }

    #[test]
    fn calls_that_stand_can_be_ended_while_their_source_begins_too_many() {
        let (mut defence, start) = defence();
        let ip = "192.0.2.1".parse().unwrap();
        while defence.admit(start, ip, INVITE).is_ok() {}
        let ended = (0..1_000).filter(|_| defence.admit(start, ip, BYE).is_ok()).count();
        assert_eq!(ended, 400);
        let scanned = start + Duration::from_secs(1);
        assert_eq!(defence.admit(scanned, ip, SCAN), Err(Turned::Banning("scanner")));
        assert_eq!(defence.admit(scanned, ip, INVITE), Err(Turned::Banned));
        assert_eq!(defence.admit(scanned, ip, BYE), Ok(()));
    }

    #[test]
    fn a_scanner_is_banned_by_its_name_and_for_a_while() {
        let (mut defence, start) = defence();
        let ip = "192.0.2.1".parse().unwrap();
        assert_eq!(defence.admit(start, ip, SCAN), Err(Turned::Banning("scanner")));
        let last = start + Duration::from_millis(299_999);
        assert_eq!(defence.admit(last, ip, INVITE), Err(Turned::Banned));
        assert_eq!(defence.admit(start + Duration::from_secs(300), ip, INVITE), Ok(()));
        let mut late = b"INVITE sip:a SIP/2.0\r\nSubject: x\r\n\r\n".to_vec();
        late.extend_from_slice(b"User-Agent: friendly-scanner\r\n");
        assert_eq!(defence.admit(last, "192.0.2.2".parse().unwrap(), &late), Ok(()), "a body");
    }

    #[test]
    fn who_guesses_is_banned_and_who_proves_itself_has_half_as_much_against_it() {
        let (mut defence, start) = defence();
        let ip = "192.0.2.1".parse().unwrap();
        let mut guesses = 1;
        while defence.judge(start, ip, Suspicion::WrongProof).is_none() {
            guesses += 1;
        }
        assert_eq!(guesses, 20);
        assert_eq!(defence.admit(start, ip, INVITE), Err(Turned::Banned));
        let office = "192.0.2.2".parse().unwrap();
        for _ in 0..1_000 {
            assert_eq!(defence.judge(start, office, Suspicion::Unproven), None);
            assert_eq!(defence.judge(start, office, Suspicion::Proven), None);
        }
        for second in 0..1_000 {
            let now = start + Duration::from_secs(second);
            let slow = "192.0.2.3".parse().unwrap();
            assert_eq!(defence.judge(now, slow, Suspicion::Unproven), None, "one a second");
        }
        let trusted = "10.0.0.1".parse().unwrap();
        assert!((0..99).all(|_| defence.judge(start, trusted, Suspicion::WrongProof).is_none()));
    }

    #[test]
    fn the_table_is_bounded_and_those_who_find_no_room_share_a_rate() {
        let (mut defence, start) = defence();
        for number in 0..SOURCES_MAX as u32 {
            let ip = IpAddr::from((0xc000_0000 + number).to_be_bytes());
            assert_eq!(defence.admit(start, ip, INVITE), Ok(()));
        }
        let late = |number: u8| IpAddr::from([192, 168, 0, number]);
        let heard = (0..=255).filter(|it| defence.admit(start, late(*it), INVITE).is_ok()).count();
        assert_eq!((heard, defence.sources.len()), (20, SOURCES_MAX));
        let later = start + Duration::from_secs(2);
        assert_eq!(defence.admit(later, late(0), INVITE), Ok(()));
        assert_eq!(defence.sources.len(), 1, "all others were idle");
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let (mut defence, start) = defence();
        let heard = (0..1_000_u32).filter(|it| {
            let ip = format!("2001:db8::{it:x}").parse().unwrap();
            defence.admit(start, ip, INVITE).is_ok()
        });
        assert_eq!(heard.count(), 20);
    }

    /// 10 a second, bans of 300 s.
    fn defence() -> (Defence, Instant) {
        let start = Instant::now();
        let trusted = vec!["10.0.0.0/8".parse().unwrap()];
        let limits = Limits { rate_per_s: 10, ban: Duration::from_secs(300), trusted };
        (Defence::new(start, limits), start)
    }
}
