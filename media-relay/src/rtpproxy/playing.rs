//! `P`: finds a file in a codec that the party has named, and plays it.

use super::error_code::ErrorCode;
use crate::library::Library;
use crate::packet_thread::Handle;
use media::{Audio, Codec, Error, Form, Play, Side};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tracing::{info, warn};

/// What is to be played, and to whom.
pub(super) struct Playing {
    pub packets: Handle,
    pub files: Library,
    pub session_id: String,
    pub side: Side,
    pub name: String,
    /// None: those that the party has named.
    pub codecs: Option<Vec<u8>>,
    /// None: for ever.
    pub times: Option<u32>,
    /// None: as before.
    pub packet_time_ms: Option<u32>,
}

/// A file, and how it is to be sent.
struct Found {
    file: String,
    audio: Arc<Audio>,
    payload_type: u8,
    codec: Codec,
}

/// What has begun.
pub(super) struct Begun {
    play_id: String,
    /// Until it is to be stopped; none if it ends by itself, or never.
    lasts: Option<Duration>,
}

impl Playing {
    /// Plays, in place of what was being played.
    ///
    /// # Errors
    /// The code to answer with; the log has the reason.
    pub(super) async fn begin(&self) -> Result<Begun, ErrorCode> {
        let id = self.session_id.clone();
        let side = self.side;
        let attached = self.packets.call(move |it| it.relay.attached(&id, side).cloned()).await;
        let attached = attached.map_err(|_| ErrorCode::Overload)?.ok_or(ErrorCode::NoSession)?;
        let named = match &self.codecs {
            Some(codecs) => codecs,
            None if attached.payload_types.is_empty() => return Err(ErrorCode::Unusable),
            None => &attached.payload_types,
        };
        let ptime_ms = self.packet_time_ms.unwrap_or(attached.ptime_ms);
        let Found { file, audio, payload_type, codec } = self.find(named).await.map_err(|why| {
            warn!(session_id = self.session_id, file = self.name, "failed to play: {why}");
            ErrorCode::NothingPlayed
        })?;
        let repeat = self.times != Some(1);
        let form = Form { codec, ptime_ms: codec.ptime_ms(ptime_ms), repeat };
        if audio.encoded(form).is_none() {
            let audio = audio.clone();
            let encoding = tokio::task::spawn_blocking(move || {
                audio.encode(form);
            });
            encoding.await.expect("a panic ends the process");
        }
        let duration = Duration::from_millis(audio.duration_ms().into());
        let play_id = boot::new_id();
        let play = Play {
            play_id: play_id.as_str().into(),
            file: file.as_str().into(),
            audio,
            repeat,
            offset_ms: 0,
            radio: false,
        };
        let id = self.session_id.clone();
        let played = self.packets.call(move |it| {
            let now = Instant::now();
            it.relay.stop(now, &id, side)?;
            it.relay.play_in(&id, side, payload_type, ptime_ms)?;
            it.relay.play(now, &id, side, play)
        });
        played.await.map_err(|_| ErrorCode::Overload)?.map_err(|e| match e {
            Error::NoSession(_) | Error::NoSide { .. } => ErrorCode::NoSession,
            _ => ErrorCode::NothingPlayed,
        })?;
        info!(session_id = self.session_id, ?side, file, payload_type, "playing");
        let lasts = self.times.filter(|it| *it > 1).map(|it| duration.saturating_mul(it));
        Ok(Begun { play_id, lasts })
    }

    /// Stops what was to be played so often.
    pub(super) async fn end(self, begun: Begun) {
        let Some(lasts) = begun.lasts else { return };
        sleep(lasts).await;
        let (id, side) = (self.session_id, self.side);
        let stop = move |it: &mut crate::packet_thread::PacketThread| {
            let _ = it.relay.stop_one(Instant::now(), &id, side, &begun.play_id); // It may be gone.
        };
        if self.packets.call(stop).await.is_err() {
            warn!("failed to end what was played as often as it should: too busy");
        }
    }

    /// The raw file of the first payload type named that has one; else what the name means by itself,
    /// in the first codec named that we have.
    async fn find(&self, named: &[u8]) -> Result<Found, String> {
        let codec_of =
            |number: u8| Codec::ALL.into_iter().find(|it| it.static_payload_type() == Some(number));
        let usable: Vec<(u8, Codec)> =
            named.iter().filter_map(|it| Some((*it, codec_of(*it)?))).collect();
        let Some(&(first, first_codec)) = usable.first() else {
            return Err(format!("payload types {named:?} have none of 0, 3, 8, 9 among them"));
        };
        let raw = usable.iter().map(|(number, _)| format!("{}.{number}", self.name));
        let names: Vec<String> = raw.chain([self.name.clone()]).collect();
        let (nth, audio) = self.files.load_any(names.clone()).await.map_err(|e| e.to_string())?;
        let (payload_type, codec) = usable.get(nth).copied().unwrap_or((first, first_codec));
        Ok(Found { file: names[nth].clone(), audio, payload_type, codec })
    }
}
