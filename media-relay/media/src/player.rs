//! What a side is played: music, and a prompt over it.
//!
//! The player is a cursor over shared, encoded [`Audio`]; it knows no time. Whoever sends asks for
//! the next bytes, so a pause (the remote is on hold) is not asking. Loops are circular to the
//! sample: a frame that crosses the seam holds the end and the beginning, without gap or padding.

use crate::audio::Audio;
use crate::codec::{Codec, TICKS_PER_MS};
use crate::snapshot::PlaySnapshot;
use std::sync::Arc;

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
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlayError {
    #[error("offset_ms {offset_ms} is beyond the {duration_ms} ms of the file")]
    BeyondEnd { offset_ms: u32, duration_ms: u32 },
}

/// Nothing, music, a prompt, or a prompt over music.
#[derive(Debug, Default)]
pub(crate) struct Player {
    music: Option<Cursor>,
    prompt: Option<Cursor>,
    /// A prompt whose last sample has been cut, but whose last frame may still be on its way.
    finished: Option<Arc<str>>,
}

#[derive(Debug)]
struct Cursor {
    play: Play,
    /// Next sample.
    offset: usize,
}

/// What plays now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Playing<'a> {
    pub file: &'a str,
    pub offset_ms: u32,
    pub is_music: bool,
}

impl Player {
    /// Music replaces everything; a prompt replaces a prompt and interrupts music.
    ///
    /// # Errors
    /// [`PlayError::BeyondEnd`] if a prompt would begin after its end.
    pub(crate) fn play(&mut self, play: Play) -> Result<(), PlayError> {
        let samples = play.audio.samples();
        let offset = play.offset_ms as usize * TICKS_PER_MS as usize;
        if !play.repeat && offset >= samples {
            let duration_ms = play.audio.duration_ms();
            return Err(PlayError::BeyondEnd { offset_ms: play.offset_ms, duration_ms });
        }
        let cursor = Some(Cursor { offset: offset % samples, play });
        self.finished = None;
        match cursor.as_ref().is_some_and(|it| it.play.repeat) {
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

    pub(crate) fn is_playing(&self) -> bool {
        self.music.is_some() || self.prompt.is_some()
    }

    /// Music, then the prompt over it, for a snapshot.
    pub(crate) fn layers(&self) -> impl Iterator<Item = PlaySnapshot> {
        self.music.iter().chain(&self.prompt).map(|it| PlaySnapshot {
            play_id: it.play.play_id.to_string(),
            file: it.play.file.to_string(),
            repeat: it.play.repeat,
            radio: false,
            offset_ms: u32::try_from(it.offset / TICKS_PER_MS as usize)
                .expect("an hour of ms fits"),
        })
    }

    /// The prompt, else the music.
    pub(crate) fn playing(&self) -> Option<Playing<'_>> {
        let cursor = self.prompt.as_ref().or(self.music.as_ref())?;
        let offset_ms = cursor.offset / TICKS_PER_MS as usize;
        Some(Playing {
            file: &cursor.play.file,
            offset_ms: u32::try_from(offset_ms).expect("an hour of ms fits"),
            is_music: cursor.play.repeat,
        })
    }

    /// Fills a frame with the next codes, one per sample. A prompt that ends within it is followed
    /// by the music below it, else by silence. False, and nothing but silence, if nothing plays.
    pub(crate) fn fill(&mut self, codec: Codec, mut frame: &mut [u8]) -> bool {
        let filled = self.is_playing();
        if let Some(prompt) = &mut self.prompt {
            let taken = prompt.take(codec, frame);
            frame = &mut frame[taken..];
            if prompt.offset == prompt.play.audio.samples() {
                self.finished = self.prompt.take().map(|it| it.play.play_id);
            }
        }
        if let Some(music) = &mut self.music {
            while !frame.is_empty() {
                let taken = music.take(codec, frame);
                frame = &mut frame[taken..];
                music.offset %= music.play.audio.samples();
            }
        }
        frame.fill(codec.law().map_or(0, |it| it.silence()));
        filled
    }

    /// The prompt that has been played to its end, once. Ask a frame after it was cut.
    pub(crate) fn take_finished(&mut self) -> Option<Arc<str>> {
        self.finished.take()
    }
}

impl Cursor {
    /// Copies what fits and is left before the end; says how much.
    fn take(&mut self, codec: Codec, frame: &mut [u8]) -> usize {
        let rest = &self.play.audio.codes(codec)[self.offset..];
        let taken = rest.len().min(frame.len());
        frame[..taken].copy_from_slice(&rest[..taken]);
        self.offset += taken;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Law;
    use proptest::prelude::*;

    fn ramp(samples: usize) -> Arc<Audio> {
        let codes = (0..samples).map(|it| (it % 251) as u8).collect();
        Arc::new(Audio::from_codes(Law::Pcmu, codes).unwrap())
    }

    fn play(name: &str, audio: &Arc<Audio>, repeat: bool, offset_ms: u32) -> Play {
        let audio = audio.clone();
        Play { play_id: name.into(), file: name.into(), audio, repeat, offset_ms }
    }

    proptest! {
        /// However the frames are cut, music is the circular source, also shorter than a frame.
        #[test]
        fn music_equals_the_circular_source(
            samples in prop_oneof![1..5usize, 159..162usize, 1..2_000usize],
            frames in prop::collection::vec(prop_oneof![Just(80), Just(160), 1..500usize], 1..30),
            offset_ms in 0..500u32,
        ) {
            let audio = ramp(samples);
            let mut player = Player::default();
            player.play(play("music", &audio, true, offset_ms)).unwrap();
            let mut heard = Vec::new();
            for len in frames {
                let mut frame = vec![0; len];
                prop_assert!(player.fill(Codec::Pcmu, &mut frame));
                heard.extend(frame);
            }
            let source = audio.codes(Codec::Pcmu).iter().cycle().skip(offset_ms as usize * 8);
            prop_assert!(heard.iter().eq(source.take(heard.len())));
        }
    }

    #[test]
    fn music_resumes_at_its_offset_after_a_prompt() {
        let (music, prompt) = (ramp(1_000), ramp(200));
        let mut player = Player::default();
        player.play(play("music", &music, true, 0)).unwrap();
        let mut frame = [0; 160];
        player.fill(Codec::Pcmu, &mut frame);
        player.play(play("prompt", &prompt, false, 0)).unwrap();
        assert_eq!(player.playing().unwrap().file, "prompt");
        player.fill(Codec::Pcmu, &mut frame);
        assert_eq!(frame[..], prompt.codes(Codec::Pcmu)[..160]);
        assert_eq!(player.finished, None);
        player.fill(Codec::Pcmu, &mut frame);
        assert_eq!(frame[..40], prompt.codes(Codec::Pcmu)[160..]);
        assert_eq!(frame[40..], music.codes(Codec::Pcmu)[160..280]);
        assert_eq!(player.take_finished().as_deref(), Some("prompt"));
        assert_eq!(player.take_finished(), None);
        assert_eq!(
            player.playing(),
            Some(Playing { file: "music", offset_ms: 35, is_music: true })
        );
    }

    #[test]
    fn a_prompt_alone_ends_in_silence() {
        let mut player = Player::default();
        player.play(play("prompt", &ramp(100), false, 0)).unwrap();
        let mut frame = [0; 160];
        assert!(player.fill(Codec::Pcma, &mut frame));
        assert_eq!(frame[100..], [0xd5; 60]);
        assert!(!player.fill(Codec::Pcma, &mut frame));
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
