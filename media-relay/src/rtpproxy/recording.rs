//! `R`, `C` and `N`: sessions recorded into a file.

use super::calls::Call;
use super::error_code::ErrorCode;
use super::place::OWNER;
use crate::packet_thread::Handle;
use crate::recorder::{About, Recorder};
use media::{Error, RecordingError, Side};
use std::time::Instant;
use tracing::{info, warn};

/// Longest file name, in bytes.
const FILE_BYTES_MAX: usize = 200;

/// What is to be recorded: both sides, or one.
pub(super) struct Recorded {
    pub session_id: String,
    pub name: String,
    pub side: Option<Side>,
    /// Below `--recordings-dir`.
    pub file: String,
}

/// The file of a call's recording: its Call-ID and tag, as far as they can be in a name, and what
/// tells it from others of the same name.
pub(super) fn file_of(call: &Call) -> String {
    let name = format!("{}={}", plain(&call.call_id), plain(&call.tag));
    let begins = &name[..name.floor_char_boundary(FILE_BYTES_MAX - 64)];
    format!("{begins}-{}.wav", call.session_id)
}

/// The file that a client has named; none if it would not be below the folder.
pub(super) fn file_named(name: &str) -> Option<String> {
    let is_name = |it: &str| !it.is_empty() && !it.starts_with('.') && plain(it) == it;
    let is_file = name.len() <= FILE_BYTES_MAX && name.split('/').all(is_name);
    is_file.then(|| format!("{}.wav", name.strip_suffix(".wav").unwrap_or(name)))
}

/// With `_` for what a file name should not have.
fn plain(name: &str) -> String {
    let is_plain = |it: &char| it.is_ascii_alphanumeric() || "_.-@=+".contains(*it);
    name.chars().map(|it| if is_plain(&it) { it } else { '_' }).collect()
}

/// Begins a recording; one that goes on already is as good.
///
/// # Errors
/// The code to answer with; the log has the reason.
pub(super) async fn record(
    packets: Handle,
    recorder: Recorder,
    recorded: Recorded,
) -> Result<(), ErrorCode> {
    let Recorded { session_id, name, side, file } = recorded;
    let refused = |why: &dyn std::fmt::Display| {
        warn!(%session_id, file, "failed to record: {why}");
        ErrorCode::NotCopied
    };
    let id = session_id.clone();
    let format = packets.call(move |it| it.relay.recording_format(&id, side)).await;
    let format = match format.map_err(|_| ErrorCode::Overload)? {
        Ok(format) => format,
        Err(Error::Recording(RecordingError::Exists(_))) => return Ok(()),
        Err(e) => return Err(refused(&e)),
    };
    let recording_id = boot::new_id();
    let about = About {
        recording_id: recording_id.clone(),
        session_id: session_id.clone(),
        call_id: name,
        owner: OWNER.to_owned(),
        side,
        file: file.clone(),
    };
    let opener = recorder.clone();
    let opened = tokio::task::spawn_blocking(move || opener.open(about, format)).await;
    opened.expect("a panic ends the process").map_err(|e| refused(&e))?;
    let (session, recording) = (session_id.clone(), recording_id.clone());
    let started = packets
        .call(move |it| it.relay.start_recording(Instant::now(), &session, &recording, format));
    let result = match started.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(refused(&e)),
        Err(_) => Err(ErrorCode::Overload),
    };
    result.inspect_err(|_| recorder.discard(&recording_id))?;
    info!(session_id, ?side, file, recording_id, "recording");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_clients_name_stay_below_the_folder() {
        assert_eq!(file_named("a/b.wav").as_deref(), Some("a/b.wav"));
        assert_eq!(file_named("call@host=1").as_deref(), Some("call@host=1.wav"));
        for wrong in ["/etc/a", "../a", "a/../b", "", "a//b", ".a", "a b", "ä"] {
            assert_eq!(file_named(wrong), None, "{wrong}");
        }
    }
}
