//! A record of each call in a table, if wanted (`--cdr-database-url`): what `call.ended` says, as a row.
//!
//! The event is the record, and the stream keeps it until its row is there: any sip-edge reads it, under
//! one durable name, inserts the row, and only then acknowledges. So a row may be inserted twice, which
//! changes nothing, but none is missing as long as the stream keeps events. No call waits for any of it.

use crate::metrics;
use crate::store::Store;
use anyhow::Context as _;
use proto::sip_edge::v1::{Call, CallEvent};
use proto::subjects;
use std::time::Duration;
use tracing::warn;

/// The name of all sip-edges as one reader of [`subjects::CALLS_ENDED`].
const DURABLE: &str = "sip-edge-records";
/// Events that are in hand together.
const AT_ONCE: usize = 8;
/// How long the database may take; less than the time after which NATS gives the event to another.
const LIMIT: Duration = Duration::from_secs(4);

/// Writes records, also of calls that ended while nobody did. Never ends.
pub(crate) async fn write(nats: boot::Nats, store: Store) -> anyhow::Result<()> {
    let handle = |payload: Vec<u8>| {
        let store = store.clone();
        async move {
            match parse(&payload) {
                Ok(call) => insert(&store, &call).await,
                Err(e) => {
                    warn!("passed over the end of a call: {e:#}"); // It would not get any better.
                    Ok(())
                }
            }
        }
    };
    nats.consume_together(DURABLE, subjects::CALLS_ENDED, AT_ONCE, handle).await
}

async fn insert(store: &Store, call: &Call) -> anyhow::Result<()> {
    let inserted = tokio::time::timeout(LIMIT, store.insert(call)).await;
    let inserted = match inserted {
        Ok(inserted) => inserted.context("insert the record of a call (--cdr-database-url)"),
        Err(_) => {
            Err(anyhow::anyhow!("the database of --cdr-database-url gave no answer in {LIMIT:?}"))
        }
    };
    metrics::record(inserted.is_ok());
    inserted
}

fn parse(payload: &[u8]) -> anyhow::Result<Call> {
    let event: CallEvent = proto::json::event_from_json(payload)?;
    let call = event.call.unwrap_or_default();
    anyhow::ensure!(!call.call_id.is_empty(), "it does not say which");
    Ok(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_without_a_call_is_passed_over() {
        let end = r#"{"call":{"call_id":"c1","cause":"USER_BUSY"},"new_field":1}"#;
        assert_eq!(parse(end.as_bytes()).unwrap().cause, "USER_BUSY");
        for bad in [&b"{}"[..], b"\xff", b"[", br#"{"call":{"cause":"x"}}"#] {
            parse(bad).unwrap_err();
        }
    }

    #[test]
    fn what_is_no_database_is_refused_without_its_password() {
        for bad in
            ["", "redis://u:secret@h", "postgres://u:secret@h:port/d", "mysql://u:secret@h:p"]
        {
            let refused = format!("{:#}", Store::at(bad).err().expect(bad));
            assert!(!refused.contains("secret"), "{refused}");
        }
    }
}
