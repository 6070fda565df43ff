//! What operators may ask: sessions as they are now.

use crate::codec::Codec;
use crate::discard::Discards;
use crate::endpoint::{Endpoint, Hears};
use crate::relay::Relay;
use crate::session::{Session, SessionKey, Side};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub struct SessionStatus {
    pub session_id: String,
    pub call_id: String,
    pub owner: String,
    /// Since the Unix epoch.
    pub created: Duration,
    pub sides: Vec<SideStatus>,
    /// For [`Relay::sessions_after`].
    pub cursor: u64,
}

#[derive(Clone, Debug)]
pub struct SideStatus {
    pub side: Side,
    pub rtp_port: u16,
    pub codec: Option<Codec>,
    pub signalled: Option<SocketAddr>,
    pub latched: Option<SocketAddr>,
    pub hears: String,
    /// What plays, and where in it, in ms.
    pub file: Option<(String, u32)>,
    pub packets_received: u64,
    /// The same, with those that are missing in the sequence of the newest stream, and without those
    /// that came twice.
    pub packets_expected: u64,
    pub packets_sent: u64,
    /// Of those received (RFC 3389).
    pub comfort_noise_received: u64,
    /// Tones are looked for in its sound.
    pub detects_dtmf: bool,
    pub discards: Discards,
    pub remote_fraction_lost: u8,
    pub jitter_us: u32,
    pub silent: Duration,
}

impl Relay {
    pub fn session(&self, now: Instant, session_id: &str) -> Option<SessionStatus> {
        let key = self.by_id.get(session_id)?;
        Some(self.status(now, key.0, &self.sessions[key]))
    }

    /// The oldest sessions of `owner` (empty: any) that are younger than the one with `cursor`, at
    /// most `limit`.
    pub fn sessions_after(
        &self,
        now: Instant,
        cursor: Option<u64>,
        owner: &str,
        limit: usize,
    ) -> Vec<SessionStatus> {
        let younger = self.sessions.younger_than(cursor.map(SessionKey));
        younger
            .filter(|(_, it)| owner.is_empty() || *it.owner == *owner)
            .take(limit)
            .map(|(key, it)| self.status(now, key.0, it))
            .collect()
    }

    /// Sessions of `owner`, or all.
    pub fn count_sessions(&self, owner: &str) -> usize {
        let is_owned = |it: &&Session| owner.is_empty() || *it.owner == *owner;
        self.sessions.values().filter(is_owned).count()
    }

    fn status(&self, now: Instant, cursor: u64, session: &Session) -> SessionStatus {
        let sides = Side::BOTH.into_iter().filter_map(|it| Some((it, session.side(it)?)));
        SessionStatus {
            session_id: session.id.to_string(),
            call_id: session.call_id.to_string(),
            owner: session.owner.to_string(),
            created: self.wallclock(session.created),
            sides: sides.map(|(side, it)| side_status(now, side, it)).collect(),
            cursor,
        }
    }
}

fn side_status(now: Instant, side: Side, endpoint: &Endpoint) -> SideStatus {
    let playing = endpoint.player.playing();
    let hears = match (&playing, &endpoint.hears) {
        (Some(playing), _) if playing.is_music => "music".to_owned(),
        (Some(_), _) => "prompt".to_owned(),
        (None, Hears::Nothing) => "nothing".to_owned(),
        (None, Hears::OtherSide) => side.other().name().to_owned(),
        (None, Hears::Conference(name)) => format!("conference {name}"),
    };
    let stream = endpoint.reception.as_ref();
    let (expected, received) = stream.map_or((0, 0), |it| it.expected_and_received());
    let last = endpoint.last_arrival.unwrap_or(endpoint.negotiated);
    SideStatus {
        side,
        rtp_port: endpoint.ports.rtp(),
        codec: endpoint.remote.as_ref().map(|it| it.codec()),
        signalled: endpoint.rtp.signalled(),
        latched: endpoint.rtp.latched(),
        hears,
        file: playing.map(|it| (it.file.to_owned(), it.offset_ms)),
        packets_received: endpoint.packets_received,
        packets_expected: (endpoint.packets_received + expected).saturating_sub(received),
        packets_sent: endpoint.outgoing.packets(),
        comfort_noise_received: endpoint.comfort_noise_received,
        detects_dtmf: endpoint.detects_tones(),
        discards: endpoint.discards.clone(),
        remote_fraction_lost: endpoint.remote_fraction_lost,
        jitter_us: endpoint.reception.as_ref().map_or(0, |it| it.jitter_us()),
        silent: now.saturating_duration_since(last),
    }
}
