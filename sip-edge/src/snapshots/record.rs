//! A call as it stands in the bucket: JSON, so that an operator can read it and a later version can
//! add to it.

use crate::calls::CallId;
use anyhow::{Context as _, ensure};
use call::LegNumber;
use serde::{Deserialize, Serialize};
use sip::LegSnapshot;

/// Rises when an older sip-edge could not go on with what a newer one writes.
const VERSION: u32 = 1;
/// Longest record, in bytes; a call that needs more is not kept.
pub(crate) const RECORD_BYTES_MAX: usize = 256 * 1_024;

/// All that another sip-edge needs to go on with a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    /// `--edge-name` of who has the call, and which process of it.
    pub(crate) owner: String,
    pub(crate) process: String,
    pub(crate) call: call::Snapshot,
    /// What stands at SIP, also beyond the legs that the call goes on with.
    pub(crate) legs: Vec<(LegNumber, LegSnapshot)>,
    pub(crate) session_id: String,
    /// URL of the media-relay that has the session.
    pub(crate) media_relay: String,
    pub(crate) from: String,
    pub(crate) contact: String,
    pub(crate) source: String,
    pub(crate) our_uri: String,
    pub(crate) our_display: Option<String>,
    pub(crate) max_forwards: u8,
    pub(crate) sip_call_ids: Vec<(LegNumber, String)>,
    pub(crate) history: Vec<(String, String)>,
    /// The Originate that made it, as JSON.
    pub(crate) originate: Option<String>,
}

/// The parts of a record that do not depend on who writes it.
pub(crate) struct Kept {
    pub(crate) call: call::Snapshot,
    pub(crate) legs: Vec<(LegNumber, LegSnapshot)>,
}

impl Record {
    pub(crate) fn new(owner: &Owner, kept: Kept, entry: &crate::calls::Entry) -> Self {
        Self {
            version: VERSION,
            owner: owner.owner.clone(),
            process: owner.process.clone(),
            call: kept.call,
            legs: kept.legs,
            session_id: entry.session_id.clone(),
            media_relay: entry.media.url.to_string(),
            from: entry.from.clone(),
            contact: entry.contact.clone(),
            source: entry.source.clone(),
            our_uri: entry.our_uri.clone(),
            our_display: entry.our_display.clone(),
            max_forwards: entry.max_forwards,
            sip_call_ids: entry.sip_call_ids.clone(),
            history: entry.history.clone(),
            originate: entry.originate.as_ref().map(proto::json::to_json),
        }
    }

    /// # Errors
    /// If it is of a later version, or no record.
    pub(crate) fn read(json: &[u8]) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(json).context("read its version")?;
        ensure!(version <= VERSION, "got version {version}, wanted at most {VERSION}: update");
        serde_json::from_slice(json).context("read it")
    }

    /// # Errors
    /// If it is larger than [`RECORD_BYTES_MAX`].
    pub(crate) fn write(&self) -> anyhow::Result<Vec<u8>> {
        let json = serde_json::to_vec(self).context("write a call as JSON")?;
        let len = json.len();
        ensure!(len <= RECORD_BYTES_MAX, "{len} bytes, wanted at most {RECORD_BYTES_MAX}");
        Ok(json)
    }

    pub(crate) fn call_id(&self) -> CallId {
        CallId::from(self.call.call_id())
    }
}

/// Whose call it is: a sip-edge's `--edge-name`, and which process of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Owner {
    pub(crate) owner: String,
    pub(crate) process: String,
}
