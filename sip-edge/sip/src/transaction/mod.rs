//! Transactions (RFC 3261 §17): four machines, one `match` each, and the table that finds them.

mod client_invite;
mod client_non_invite;
mod key;
#[cfg(test)]
mod ladder;
mod machine;
mod server_invite;
mod server_non_invite;
mod table;
mod timers;

pub(crate) use key::Key;
pub(crate) use table::{Failed, Match, OurRequest, Room, TheirRequest, Transactions, TxId};
pub(crate) use timers::Timing;

use smallvec::SmallVec;

/// What a machine asks of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// The request of a client, the last response of a server.
    Send,
    SendAck,
    /// Give the message that was just handled to the TU.
    PassUp,
    Failed(Failure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    TimedOut,
    Transport,
}

/// Outputs of one machine until they are drained, which is after every input.
#[derive(Debug, Default)]
struct Outputs(SmallVec<[Output; 4]>);

impl Outputs {
    fn of(output: Output) -> Self {
        Self(SmallVec::from_iter([output]))
    }

    fn push(&mut self, output: Output) {
        self.0.push(output);
    }

    fn pop(&mut self) -> Option<Output> {
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }
}
