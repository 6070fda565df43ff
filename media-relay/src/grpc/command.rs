//! A command to a session, and which call that is of, for the log.

use super::Grpc;
use super::refusals::{busy, failed};
use crate::packet_thread::PacketThread;
use media::Error;
use std::sync::Arc;
use tonic::Status;

impl Grpc {
    /// Does `act` to a session on the packet thread. Returns what comes of it, and the `call_id` of the
    /// session, which the request does not have and each line of the log should.
    ///
    /// # Errors
    /// If the thread is overloaded, there is no such session, or `act` fails.
    pub(super) async fn command<T: Send + 'static>(
        &self,
        session_id: String,
        act: impl FnOnce(&mut PacketThread, &str) -> Result<T, Error> + Send + 'static,
    ) -> Result<(T, Arc<str>), Status> {
        let done = self.packets.call(move |thread| {
            // Before: a session may be gone afterwards.
            let call_id = thread.relay.call_id(&session_id);
            let value = act(thread, &session_id)?;
            Ok((value, call_id.ok_or(Error::NoSession(session_id))?))
        });
        done.await.map_err(busy)?.map_err(failed)
    }
}
