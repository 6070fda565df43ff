//! What a side is played: music, and a prompt over it.
//!
//! The player is a cursor over shared, encoded [`Audio`]. Whoever sends asks for the next packet, so
//! a pause (the remote is on hold) is not asking. Loops are circular to the sample, or, where a codec
//! has frames, to the frame: a packet that crosses the seam holds the end and the beginning, without
//! gap or padding.

use crate::audio::{Audio, Form};
use crate::codec::{Codec, PAYLOAD_BYTES_MAX};
use crate::snapshot::PlaySnapshot;
use std::sync::Arc;
use std::time::Duration;

/// Offsets are counted in samples at 48 kHz: a whole number of them is a tick of every codec.
const OFFSETS_PER_MS: u64 = 48;
/// After so many packets a missing form is asked for again.
const PATIENCE_PACKETS: u32 = 50;

/// One playing of a file.
#[derive(Clone, Debug)]
pub struct Play {
    /// Names this playing; chosen by the caller.
    pub play_id: Arc<str>,
    /// What it plays, for people.
    pub file: Arc<str>,
    pub audio: Arc<Audio>,
    /// For ever: music. Else once: a prompt.
    pub repeat: bool,
    /// Where to begin; music takes it modulo its length.
    pub offset_ms: u32,
    /// Music is where Unix time modulo its length is, for all who listen to it.
    pub radio: bool,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlayError {
    #[error("offset_ms {offset_ms} is beyond the {duration_ms} ms of the file")]
    BeyondEnd { offset_ms: u32, duration_ms: u32 },
}

/// Nothing, music, a prompt, or a prompt over music.
#[derive(Debug, Default)]
pub(crate) struct Player {
    music: Option<Box<Cursor>>,
    prompt: Option<Box<Cursor>>,
    /// A prompt whose last sample has been cut, but whose last frame may still be on its way.
    finished: Option<Arc<str>>,
}

#[derive(Debug)]
struct Cursor {
    play: Play,
    /// Next sample, at 48 kHz.
    offset: u64,
    /// A radio that was not listened to: it is elsewhere by now.
    is_lost: bool,
    /// Packets until a missing form is asked for again.
    patience: u32,
}

/// What plays now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Playing<'a> {
    pub file: &'a str,
    pub offset_ms: u32,
    pub is_music: bool,
}

/// There is nothing to send until the audio has been encoded in this form; said now and then.
#[derive(Clone, Debug)]
pub(crate) struct Missing(pub Option<(Arc<Audio>, Form)>);

/// A packet that is being filled.
struct Packet<'a> {
    codec: Codec,
    ptime_ms: u32,
    payload: &'a mut Vec<u8>,
    /// Bytes that the payload may still have.
    room: usize,
    ticks_left: usize,
}

impl Player {
    /// Music replaces everything; a prompt replaces a prompt and interrupts music.
    ///
    /// # Errors
    /// [`PlayError::BeyondEnd`] if a prompt would begin after its end.
    pub(crate) fn play(&mut self, play: Play) -> Result<(), PlayError> {
        let (offset_ms, duration_ms) = (play.offset_ms, play.audio.duration_ms());
        let (offset, end) = (u64::from(offset_ms) * OFFSETS_PER_MS, offsets(&play.audio));
        if !play.repeat && offset >= end {
            return Err(PlayError::BeyondEnd { offset_ms, duration_ms });
        }
        let (repeat, is_lost) = (play.repeat, play.radio);
        let cursor = Some(Box::new(Cursor { offset: offset % end, play, is_lost, patience: 0 }));
        self.finished = None;
        match repeat {
            true => (self.music, self.prompt) = (cursor, None),
            false => self.prompt = cursor,
        }
        Ok(())
    }

    /// Ends prompt and music; false if nothing played.
    pub(crate) fn stop(&mut self) -> bool {
        let stopped = self.is_playing();
        *self = Self::default();
        stopped
    }

    /// Ends one playing; false if it does not play.
    pub(crate) fn stop_one(&mut self, play_id: &str) -> bool {
        let is =
            |it: &Option<Box<Cursor>>| it.as_ref().is_some_and(|it| *it.play.play_id == *play_id);
        match () {
            () if is(&self.prompt) => self.prompt = None,
            () if is(&self.music) => self.music = None,
            () => return false,
        }
        true
    }

    /// Time passes that is not asked for: a radio is elsewhere after it.
    pub(crate) fn pause(&mut self) {
        if let Some(music) = &mut self.music {
            music.is_lost = music.play.radio;
        }
    }

    /// A number of what the next packet needs, for who reads it ahead: it means nothing.
    pub(crate) fn read_ahead(&self) -> u64 {
        self.prompt.as_ref().or(self.music.as_ref()).map_or(0, |it| it.offset)
    }

    pub(crate) fn is_playing(&self) -> bool {
        self.music.is_some() || self.prompt.is_some()
    }

    /// The prompt, else the music.
    pub(crate) fn playing(&self) -> Option<Playing<'_>> {
        let cursor = self.prompt.as_ref().or(self.music.as_ref())?;
        Some(Playing {
            file: &cursor.play.file,
            offset_ms: u32::try_from(cursor.offset / OFFSETS_PER_MS).expect("an hour of ms fits"),
            is_music: cursor.play.repeat,
        })
    }

    /// Music, then the prompt over it, for a snapshot.
    pub(crate) fn layers(&self) -> impl Iterator<Item = PlaySnapshot> {
        let layers = [&self.music, &self.prompt].into_iter().flatten();
        layers.map(|it| {
            let offset_ms = u32::try_from(it.offset / OFFSETS_PER_MS).expect("an hour of ms fits");
            PlaySnapshot::of(&it.play, offset_ms)
        })
    }

    /// Appends the next packet, of `ptime_ms`, which `codec` can do, and at most
    /// [`PAYLOAD_BYTES_MAX`] bytes, to `payload`. A prompt that ends within it is followed by the
    /// music below it, else by silence. `at` is Unix time, for radios.
    ///
    /// # Errors
    /// [`Missing`]: what was appended is no packet.
    pub(crate) fn fill(
        &mut self,
        codec: Codec,
        ptime_ms: u32,
        at: Duration,
        payload: &mut Vec<u8>,
    ) -> Result<(), Missing> {
        let ticks_left = (ptime_ms * codec.ticks_per_ms()) as usize;
        let room = PAYLOAD_BYTES_MAX;
        let mut packet = Packet { codec, ptime_ms, payload, room, ticks_left };
        if let Some(prompt) = &mut self.prompt {
            prompt.take(&mut packet)?;
            if prompt.has_ended(codec, ptime_ms) {
                self.finished = self.prompt.take().map(|it| it.play.play_id);
            }
            if let Some(music) = &mut self.music {
                music.is_lost = music.play.radio;
            }
        }
        if let Some(music) = self.music.as_mut().filter(|_| self.prompt.is_none()) {
            while packet.ticks_left > 0 {
                music.tune(at + packet.filled());
                music.take(&mut packet)?;
            }
        }
        packet.fill_with_silence();
        Ok(())
    }

    /// The prompt that has been played to its end, once. Ask a frame after it was cut.
    pub(crate) fn take_finished(&mut self) -> Option<Arc<str>> {
        self.finished.take()
    }
}

impl Cursor {
    fn form(&self, codec: Codec, ptime_ms: u32) -> Form {
        Form { codec, ptime_ms, repeat: self.play.repeat }
    }

    /// Finds the radio's place at `at`.
    fn tune(&mut self, at: Duration) {
        if std::mem::take(&mut self.is_lost) {
            let passed = at.as_micros() * u128::from(OFFSETS_PER_MS) / 1_000;
            self.offset = (passed % u128::from(offsets(&self.play.audio))) as u64;
        }
    }

    /// Copies what the packet has room for and is left before the end.
    fn take(&mut self, packet: &mut Packet<'_>) -> Result<(), Missing> {
        let form = self.form(packet.codec, packet.ptime_ms);
        let Some(encoded) = self.play.audio.encoded(form) else {
            let ask = self.patience == 0;
            self.patience = if ask { PATIENCE_PACKETS } else { self.patience - 1 };
            return Err(Missing(ask.then(|| (self.play.audio.clone(), form))));
        };
        let per_tick = OFFSETS_PER_MS / u64::from(packet.codec.ticks_per_ms());
        let end = encoded.ticks();
        let tick = (self.offset / per_tick) as usize;
        let tick = if self.play.repeat { tick % end } else { tick.min(end) };
        let after = match packet.codec.unit() {
            Some(unit) => {
                let first = tick / unit.ticks;
                let units = (end / unit.ticks - first).min(packet.ticks_left / unit.ticks);
                let bytes = first * unit.bytes..(first + units) * unit.bytes;
                packet.push(&encoded.bytes()[bytes], units * unit.ticks);
                (first + units) * unit.ticks
            }
            None if tick < end => {
                let len = packet.ticks_left;
                packet.push(encoded.packet_at(tick).unwrap_or_default(), len);
                tick / len * len + len
            }
            None => tick,
        };
        if after == tick {
            packet.ticks_left = 0; // Less than a unit is left of the packet.
        }
        let after = if self.play.repeat { after % end } else { after };
        self.offset = after as u64 * per_tick;
        Ok(())
    }

    fn has_ended(&self, codec: Codec, ptime_ms: u32) -> bool {
        let encoded = self.play.audio.encoded(self.form(codec, ptime_ms));
        let per_tick = OFFSETS_PER_MS / u64::from(codec.ticks_per_ms());
        encoded.is_some_and(|it| self.offset >= it.ticks() as u64 * per_tick)
    }
}

impl Packet<'_> {
    /// How long it is so far.
    fn filled(&self) -> Duration {
        let ticks_per_ms = u64::from(self.codec.ticks_per_ms());
        let left_us = self.ticks_left as u64 * 1_000 / ticks_per_ms;
        Duration::from_micros(u64::from(self.ptime_ms) * 1_000 - left_us)
    }

    fn push(&mut self, bytes: &[u8], ticks: usize) {
        let len = bytes.len().min(self.room);
        self.payload.extend_from_slice(&bytes[..len]);
        self.room -= len;
        self.ticks_left -= ticks;
    }

    /// Codecs with frames end with one; the others are filled up.
    fn fill_with_silence(&mut self) {
        let byte = match self.codec {
            Codec::Pcmu | Codec::Pcma => self.codec.law().map_or(0, |it| it.silence()),
            Codec::L16Wide | Codec::L16Narrow => 0,
            Codec::G722 => G722_SILENCE,
            Codec::Gsm | Codec::Opus => return,
        };
        let len = self.ticks_left * self.codec.unit().map_or(0, |it| it.bytes);
        self.payload.resize(self.payload.len() + len.min(self.room), byte);
    }
}

/// What G.722 makes of zeros: the smallest steps of both bands.
const G722_SILENCE: u8 = 0xfa;

/// Length in samples at 48 kHz; never 0.
fn offsets(audio: &Audio) -> u64 {
    let (linear, sample_rate_hz) = audio.linear();
    linear.len() as u64 * (OFFSETS_PER_MS * 1_000 / u64::from(sample_rate_hz))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Decoder, Law};
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    fn ramp(samples: usize) -> Arc<Audio> {
        let codes = (0..samples).map(|it| (it % 251) as u8).collect();
        Arc::new(Audio::from_codes(Law::Pcmu, codes).unwrap())
    }

    fn play(name: &str, audio: &Arc<Audio>, repeat: bool, offset_ms: u32) -> Play {
        let audio = audio.clone();
        let (play_id, file) = (name.into(), name.into());
        Play { play_id, file, audio, repeat, offset_ms, radio: false }
    }

    /// The next packet of 20 ms.
    fn packet(player: &mut Player, codec: Codec) -> Vec<u8> {
        packet_at(player, codec, 20, NOW)
    }

    fn packet_at(player: &mut Player, codec: Codec, ptime_ms: u32, at: Duration) -> Vec<u8> {
        let mut payload = Vec::new();
        player.fill(codec, ptime_ms, at, &mut payload).expect("it has been encoded");
        payload
    }

    proptest! {
        /// However the packets are cut, music is the circular source, also shorter than a packet.
        #[test]
        fn music_equals_the_circular_source(
            samples in prop_oneof![1..5usize, 159..162usize, 1..2_000usize],
            ptimes in prop::collection::vec(1..7u32, 1..30),
            offset_ms in 0..500u32,
        ) {
            let audio = ramp(samples);
            let mut player = Player::default();
            player.play(play("music", &audio, true, offset_ms)).unwrap();
            let mut heard = Vec::new();
            for ptime in ptimes {
                heard.extend(packet_at(&mut player, Codec::Pcmu, ptime * 10, NOW));
            }
            let source = audio.codes(Codec::Pcmu).iter().cycle().skip(offset_ms as usize * 8);
            prop_assert!(heard.iter().eq(source.take(heard.len())));
        }
    }

    #[test]
    fn every_codec_loops_over_its_encoded_bytes_without_a_gap() {
        let linear: Vec<i16> = (0..24_003).map(|n: i32| (n % 97) as i16 * 100).collect();
        let audio = Arc::new(Audio::new(16_000, linear).unwrap());
        for codec in Codec::ALL {
            let form = Form { codec, ptime_ms: 20, repeat: true };
            let encoded = audio.encode(form);
            let mut player = Player::default();
            player.play(play("music", &audio, true, 0)).unwrap();
            let count = 2 * encoded.ticks() / (20 * codec.ticks_per_ms() as usize) + 3;
            let heard: Vec<u8> = (0..count).flat_map(|_| packet(&mut player, codec)).collect();
            let source = encoded.bytes().iter().cycle().take(heard.len());
            assert!(heard.iter().eq(source), "{codec:?}");
            assert!(heard.len() > 2 * encoded.bytes().len(), "{codec:?} goes round");
        }
    }

    #[test]
    fn every_codec_ends_a_prompt_and_resumes_music_where_it_was() {
        let linear: Vec<i16> = (0..80_000).map(|n: i32| (n % 97) as i16 * 100).collect();
        let music = Arc::new(Audio::new(16_000, linear.clone()).unwrap());
        let prompt = Arc::new(Audio::new(16_000, linear[..4_000].to_vec()).unwrap());
        for codec in Codec::ALL {
            let form = |repeat| Form { codec, ptime_ms: 20, repeat };
            music.encode(form(true));
            prompt.encode(form(false));
            let (mut player, mut undisturbed) = (Player::default(), Player::default());
            for player in [&mut player, &mut undisturbed] {
                player.play(play("music", &music, true, 0)).unwrap();
            }
            for _ in 0..5 {
                assert_eq!(packet(&mut player, codec), packet(&mut undisturbed, codec));
            }
            player.play(play("prompt", &prompt, false, 0)).unwrap();
            let mut packets = 0;
            while player.playing().unwrap().file == "prompt" {
                packet(&mut player, codec);
                packets += 1;
            }
            assert!((12..=16).contains(&packets), "{packets} packets of 250 ms in {codec:?}");
            assert_eq!(player.take_finished().as_deref(), Some("prompt"));
            let back_ms = player.playing().unwrap().offset_ms;
            assert!((100..120).contains(&back_ms), "{codec:?} is at {back_ms} ms of the music");
        }
    }

    #[test]
    fn a_radio_is_at_one_place_for_all_whatever_they_missed() {
        let audio = ramp(9_999);
        let radio = |player: &mut Player| {
            player.play(Play { radio: true, ..play("radio", &audio, true, 0) }).unwrap();
        };
        let (mut early, mut late) = (Player::default(), Player::default());
        radio(&mut early);
        let mut at = NOW;
        for _ in 0..10 {
            packet_at(&mut early, Codec::Pcmu, 20, at);
            at += Duration::from_millis(20);
        }
        radio(&mut late);
        early.play(play("prompt", &ramp(1_600), false, 0)).unwrap();
        for _ in 0..10 {
            packet_at(&mut early, Codec::Pcmu, 20, at);
            packet_at(&mut late, Codec::Pcmu, 20, at);
            at += Duration::from_millis(20);
        }
        let heard = packet_at(&mut early, Codec::Pcmu, 20, at);
        assert_eq!(heard, packet_at(&mut late, Codec::Pcmu, 20, at), "after a prompt");
        early.pause();
        for _ in 0..7 {
            at += Duration::from_millis(20);
            packet_at(&mut late, Codec::Pcmu, 20, at);
        }
        at += Duration::from_millis(20);
        let heard = packet_at(&mut early, Codec::Pcmu, 20, at);
        assert_eq!(heard, packet_at(&mut late, Codec::Pcmu, 20, at), "after hold");
        let place = (at.as_millis() as usize * 8) % 9_999;
        let source = audio.codes(Codec::Pcmu).iter().cycle().skip(place).take(160);
        assert!(heard.iter().eq(source), "at Unix time modulo its length");
    }

    #[test]
    fn music_resumes_at_its_offset_after_a_prompt() {
        let (music, prompt) = (ramp(1_000), ramp(200));
        let mut player = Player::default();
        player.play(play("music", &music, true, 0)).unwrap();
        packet(&mut player, Codec::Pcmu);
        player.play(play("prompt", &prompt, false, 0)).unwrap();
        assert_eq!(player.playing().unwrap().file, "prompt");
        assert_eq!(packet(&mut player, Codec::Pcmu), prompt.codes(Codec::Pcmu)[..160]);
        assert_eq!(player.finished, None);
        let last = packet(&mut player, Codec::Pcmu);
        assert_eq!(last[..40], prompt.codes(Codec::Pcmu)[160..]);
        assert_eq!(last[40..], music.codes(Codec::Pcmu)[160..280]);
        assert_eq!(player.take_finished().as_deref(), Some("prompt"));
        assert_eq!(player.take_finished(), None);
        assert_eq!(
            player.playing(),
            Some(Playing { file: "music", offset_ms: 35, is_music: true })
        );
    }

    #[test]
    fn a_prompt_can_be_stopped_by_its_id_and_the_music_goes_on() {
        let mut player = Player::default();
        player.play(play("music", &ramp(1_000), true, 0)).unwrap();
        player.play(play("prompt", &ramp(1_000), false, 0)).unwrap();
        assert!(!player.stop_one("other"));
        assert!(player.stop_one("prompt"));
        assert_eq!(player.playing().unwrap().file, "music");
        assert!(player.stop_one("music"));
        assert!(!player.is_playing());
    }

    #[test]
    fn a_prompt_alone_ends_in_silence() {
        let mut player = Player::default();
        player.play(play("prompt", &ramp(100), false, 0)).unwrap();
        assert_eq!(packet(&mut player, Codec::Pcma)[100..], [0xd5; 60]);
        assert!(!player.is_playing());
    }

    #[test]
    fn the_silence_of_g722_is_silent() {
        let mut samples = Vec::new();
        Decoder::new(Codec::G722).decode(&[G722_SILENCE; 160], &mut samples).unwrap();
        assert!(samples.iter().all(|it| it.abs() < 100), "{samples:?}");
    }

    #[test]
    fn a_form_that_was_not_made_is_asked_for() {
        let mut player = Player::default();
        player.play(play("music", &ramp(1_000), true, 0)).unwrap();
        let filled = player.fill(Codec::Opus, 20, NOW, &mut Vec::new());
        let Err(Missing(Some((audio, form)))) = filled else { panic!("{filled:?}") };
        let again = player.fill(Codec::Opus, 20, NOW, &mut Vec::new());
        assert!(matches!(again, Err(Missing(None))), "but not for every packet");
        audio.encode(form);
        assert!(!packet(&mut player, Codec::Opus).is_empty());
    }

    #[test]
    fn a_prompt_cannot_begin_after_its_end() {
        let mut player = Player::default();
        assert_eq!(
            player.play(play("prompt", &ramp(80), false, 10)).unwrap_err().to_string(),
            "offset_ms 10 is beyond the 10 ms of the file"
        );
        assert!(!player.is_playing());
    }
}
