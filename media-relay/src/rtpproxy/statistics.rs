//! What `Q`, `G` and `I` tell.

use super::error_code::ErrorCode;
use media::{Discard, SessionStatus, Side, SideStatus};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest reply, in bytes.
const REPLY_BYTES_MAX: usize = 1_024;

/// Commands, counted wherever they come in.
#[derive(Debug, Default)]
pub(super) struct Commands {
    pub received: AtomicU64,
    pub repeated: AtomicU64,
    pub succeeded: AtomicU64,
    pub failed: AtomicU64,
}

/// Packets of a session, or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Packets {
    pub received: u64,
    pub relayed: u64,
    pub played: u64,
    pub discarded: u64,
    /// As the sequence numbers tell.
    pub expected: u64,
}

impl Packets {
    pub(super) fn of(status: &SessionStatus) -> Self {
        status.sides.iter().fold(Self::default(), |sum, side| sum.with(&Self::of_side(side)))
    }

    fn of_side(side: &SideStatus) -> Self {
        let received = side.packets_received;
        let unheard = side.discards.get(Discard::NoListener) + side.discards.get(Discard::OnHold);
        Self {
            received,
            relayed: received.saturating_sub(unheard),
            played: side.packets_sent,
            discarded: side.discards.iter().map(|(_, count)| count).sum(),
            expected: side.packets_expected,
        }
    }

    pub(super) fn with(&self, other: &Self) -> Self {
        Self {
            received: self.received + other.received,
            relayed: self.relayed + other.relayed,
            played: self.played + other.played,
            discarded: self.discarded + other.discarded,
            expected: self.expected + other.expected,
        }
    }

    fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.received)
    }

    fn repeated(&self) -> u64 {
        self.received.saturating_sub(self.expected)
    }
}

/// What is counted over all sessions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Totals {
    pub created: u64,
    pub destroyed: u64,
    pub timed_out: u64,
    /// Of those that are gone: both sides were heard, one, or none.
    pub complete: u64,
    pub one_way: u64,
    pub unheard: u64,
    pub players: u64,
    pub duration: Duration,
    pub packets: Packets,
    /// When G was asked last, and what had been received then.
    pub rated: (Instant, u64),
}

impl Totals {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            created: 0,
            destroyed: 0,
            timed_out: 0,
            complete: 0,
            one_way: 0,
            unheard: 0,
            players: 0,
            duration: Duration::ZERO,
            packets: Packets::default(),
            rated: (now, 0),
        }
    }

    /// Counts a session that is gone.
    pub(super) fn end(&mut self, status: &SessionStatus, lasted: Duration) {
        self.destroyed += 1;
        match status.sides.iter().filter(|it| it.packets_received > 0).count() {
            0 => self.unheard += 1,
            1 => self.one_way += 1,
            _ => self.complete += 1,
        }
        self.duration += lasted;
        self.packets = self.packets.with(&Packets::of(status));
    }
}

/// What lives now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Living {
    pub sessions: usize,
    pub sides: usize,
    pub players: u64,
    pub packets: Packets,
}

const COUNTERS: [&str; 26] = [
    "nsess_created",
    "nsess_destroyed",
    "nsess_timeout",
    "nsess_complete",
    "nsess_nortp",
    "nsess_owrtp",
    "nplrs_created",
    "nplrs_destroyed",
    "npkts_rcvd",
    "npkts_played",
    "npkts_relayed",
    "npkts_resizer_in",
    "npkts_resizer_out",
    "npkts_resizer_discard",
    "npkts_discard",
    "total_duration",
    "ncmds_rcvd",
    "ncmds_rcvd_ndups",
    "ncmds_succd",
    "ncmds_errs",
    "ncmds_repld",
    "rtpa_nsent",
    "rtpa_nrcvd",
    "rtpa_ndups",
    "rtpa_nlost",
    "pps_in",
];

/// The reply to `G`: the counters of these names, or all.
///
/// # Errors
/// [`ErrorCode::UnknownCounter`], or [`ErrorCode::StatsTooLong`].
pub(super) fn counters(
    totals: &mut Totals,
    living: &Living,
    commands: &Commands,
    now: Instant,
    (verbose, names): (bool, &[String]),
) -> Result<String, ErrorCode> {
    let packets = totals.packets.with(&living.packets);
    let (before, received_before) = totals.rated;
    let elapsed = now.saturating_duration_since(before).as_secs_f64().max(0.001);
    let per_second = (packets.received - received_before) as f64 / elapsed;
    totals.rated = (now, packets.received);
    let count = |it: &AtomicU64| it.load(Ordering::Relaxed).to_string();
    let value = |name: &str| {
        Some(match name {
            "nsess_created" => totals.created.to_string(),
            "nsess_destroyed" => totals.destroyed.to_string(),
            "nsess_timeout" => totals.timed_out.to_string(),
            "nsess_complete" => totals.complete.to_string(),
            "nsess_nortp" => totals.unheard.to_string(),
            "nsess_owrtp" => totals.one_way.to_string(),
            "nplrs_created" => totals.players.to_string(),
            "nplrs_destroyed" => totals.players.saturating_sub(living.players).to_string(),
            "npkts_rcvd" => packets.received.to_string(),
            "npkts_played" => packets.played.to_string(),
            "npkts_relayed" => packets.relayed.to_string(),
            // Nothing is re-packetised.
            "npkts_resizer_in" | "npkts_resizer_out" | "npkts_resizer_discard" => "0".to_owned(),
            "npkts_discard" => packets.discarded.to_string(),
            "total_duration" => format!("{:.3}", totals.duration.as_secs_f64()),
            "ncmds_rcvd" => count(&commands.received),
            "ncmds_rcvd_ndups" => count(&commands.repeated),
            "ncmds_succd" => count(&commands.succeeded),
            "ncmds_errs" => count(&commands.failed),
            "ncmds_repld" => {
                let replied = [&commands.succeeded, &commands.failed];
                replied.map(|it| it.load(Ordering::Relaxed)).iter().sum::<u64>().to_string()
            }
            "rtpa_nsent" => packets.expected.to_string(),
            "rtpa_nrcvd" => packets.received.to_string(),
            "rtpa_ndups" => packets.repeated().to_string(),
            "rtpa_nlost" => packets.lost().to_string(),
            "pps_in" => format!("{per_second:.3}"),
            _ => return None,
        })
    };
    let wanted: Vec<&str> = match names {
        [] => COUNTERS.to_vec(),
        names => names.iter().map(String::as_str).collect(),
    };
    let values = wanted.into_iter().map(|name| Some((name, value(name)?)));
    let values: Option<Vec<_>> = values.collect();
    joined(&values.ok_or(ErrorCode::UnknownCounter)?, verbose, ErrorCode::StatsTooLong)
}

/// The reply to `I`; `load` is in processors.
pub(super) fn info(totals: &Totals, living: &Living, load: Option<f64>) -> String {
    let packets = totals.packets.with(&living.packets);
    let mut text = format!(
        "sessions created: {}\nactive sessions: {}\nactive streams: {}\npackets received: {}\n\
         packets transmitted: {}",
        totals.created,
        living.sessions,
        living.sides,
        packets.received,
        packets.relayed + packets.played
    );
    if let Some(load) = load {
        let _ = write!(text, "\naverage load: {load:.6}");
    }
    text
}

/// The reply to `Q` about the party at `side`, whose session may be silent for `ttl_s` more.
///
/// # Errors
/// [`ErrorCode::UnknownStatistic`], or [`ErrorCode::QueryTooLong`].
pub(super) fn query(
    status: &SessionStatus,
    side: Side,
    ttl_s: u64,
    verbose: bool,
    names: &[String],
) -> Result<String, ErrorCode> {
    let of = |side: Side| status.sides.iter().find(|it| it.side == side);
    let received = |side: Side| of(side).map_or(0, |it| it.packets_received);
    let all = Packets::of(status);
    let jitter_ms = || {
        let us = status.sides.iter().map(|it| it.jitter_us).max().unwrap_or(0);
        format!("{:.3}", f64::from(us) / 1_000.0)
    };
    let value = |name: &str| {
        Some(match name {
            "ttl" => ttl_s.to_string(),
            "npkts_ina" => received(side).to_string(),
            "npkts_ino" => received(side.other()).to_string(),
            "nrelayed" => all.relayed.to_string(),
            "ndropped" => all.discarded.to_string(),
            "rtpa_nsent" => all.expected.to_string(),
            "rtpa_nrcvd" => all.received.to_string(),
            "rtpa_ndups" => all.repeated().to_string(),
            "rtpa_nlost" => all.lost().to_string(),
            // RFC 3550's jitter is an average that follows: it is the last one, too.
            "rtpa_jlast" | "rtpa_javg" => jitter_ms(),
            _ => return None,
        })
    };
    const USUAL: [&str; 5] = ["ttl", "npkts_ina", "npkts_ino", "nrelayed", "ndropped"];
    let wanted: Vec<&str> = match names {
        [] => USUAL.to_vec(),
        names => names.iter().map(String::as_str).collect(),
    };
    let values: Option<Vec<_>> = wanted.into_iter().map(|it| Some((it, value(it)?))).collect();
    joined(&values.ok_or(ErrorCode::UnknownStatistic)?, verbose, ErrorCode::QueryTooLong)
}

fn joined(
    values: &[(&str, String)],
    verbose: bool,
    too_long: ErrorCode,
) -> Result<String, ErrorCode> {
    let word = |(name, value): &(&str, String)| match verbose {
        true => format!("{name}={value}"),
        false => value.clone(),
    };
    let text = values.iter().map(word).collect::<Vec<_>>().join(" ");
    if text.len() > REPLY_BYTES_MAX { Err(too_long) } else { Ok(text) }
}
