//! Audio that is encoded while somebody waits for it: the codec of a side has changed while it
//! listened. A thread of its own, so that packets do not wait.

use anyhow::Context as _;
use media::{Audio, Form};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

/// Encodings that may wait; the core asks again for what is left out.
const ENCODINGS_MAX: usize = 256;

pub(crate) struct Encoder(SyncSender<(Arc<Audio>, Form)>);

impl Encoder {
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let (sender, encodings) = sync_channel::<(Arc<Audio>, Form)>(ENCODINGS_MAX);
        let encode = move || {
            while let Ok((audio, form)) = encodings.recv() {
                audio.encode(form);
            }
        };
        let thread = std::thread::Builder::new().name("encoder".to_owned()).spawn(encode);
        thread.context("start the encoder thread")?;
        Ok(Self(sender))
    }

    pub(crate) fn encode(&self, audio: Arc<Audio>, form: Form) {
        let _ = self.0.try_send((audio, form)); // The core asks again.
    }
}
