//! `Connect` that waits until side B is heard.

use super::Grpc;
use super::fields::invalid;
use crate::packet_thread::{Happened, What};
use boot::about_call;
use media::{EventKind, Side};
use proto::media_relay::v1 as wire;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::timeout;
use tonic::{Response, Status};
use tracing::info;

/// The longest wait for side B, in ms.
const HEARD_WITHIN_MS_MAX: u32 = 60_000;

impl Grpc {
    pub(super) async fn connect_when_heard(
        &self,
        session_id: String,
        within_ms: u32,
    ) -> Result<Response<wire::ConnectResponse>, Status> {
        if within_ms > HEARD_WITHIN_MS_MAX {
            return Err(invalid("heard_within_ms", within_ms, "0 to 60000"));
        }
        let events = self.packets.watch();
        let begun = self
            .command(session_id.clone(), |it, id| it.relay.connect_when_heard(Instant::now(), id));
        let (mut connected, call_id) = begun.await?;
        if !connected {
            let within = Duration::from_millis(within_ms.into());
            let _ = timeout(within, heard(events, &session_id)).await; // The relay knows better.
            let ended = self
                .command(session_id.clone(), |it, id| it.relay.stop_waiting(Instant::now(), id));
            connected = ended.await?.0;
        }
        info!(%session_id, %call_id, connected, "connected when heard");
        Ok(about_call(&call_id, wire::ConnectResponse { silent: !connected }))
    }
}

/// Returns when the first packet of side B is told of.
async fn heard(mut events: Receiver<Happened>, session_id: &str) {
    loop {
        match events.recv().await {
            Ok(Happened { what: What::Media(event), .. }) => {
                let is_first = event.kind == EventKind::Latched && event.side == Side::B;
                if is_first && *event.session_id == *session_id {
                    return;
                }
            }
            Ok(_) | Err(RecvError::Lagged(_)) => (),
            Err(RecvError::Closed) => return,
        }
    }
}
