//! All transactions: found by key, driven, and forgotten when they terminate (RFC 3261 §17).

use super::client_invite::{self, ClientInvite};
use super::client_non_invite::{self, ClientNonInvite};
use super::key::Key;
use super::machine::Machine;
use super::server_invite::{self, ServerInvite};
use super::server_non_invite::{self, ServerNonInvite};
use super::timers::Timing;
use super::{Failure, Output};
use crate::compose;
use crate::deadlines::Deadlines;
use crate::envelope::Envelope;
use crate::message::Response;
use crate::method::Method;
use crate::peer::Peer;
use crate::user_agent::{self, LegId};
use bytes::Bytes;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

/// Where messages to the network are put.
type Outbox = VecDeque<user_agent::Output>;

/// 2xx of different callees that one INVITE may bring: the first is kept, the others ended.
const MAX_FORKS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TxId(u64);

#[derive(Debug)]
struct Transaction {
    machine: Machine,
    method: Method,
    key: Key,
    merge_key: Option<Key>,
    peer: Peer,
    /// The request of a client, the last response of a server; empty before the first.
    message: Bytes,
    /// ACK of the final response from 300 up.
    ack: Option<Bytes>,
    /// ACKs of the 2xx, by the To tag that they came with.
    acks: Vec<(String, Peer, Bytes)>,
    leg: Option<LegId>,
    deadline: Option<Instant>,
    /// What it adds to [`Transactions::request_bytes`].
    request_bytes: usize,
}

/// What all transactions may take at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) transactions: usize,
    pub(crate) request_bytes: usize,
}

impl Room {
    /// What requests outside of calls may take: seven eighths.
    fn of_strangers(self) -> Self {
        let most = |all: usize| all - all / 8;
        Self { transactions: most(self.transactions), request_bytes: most(self.request_bytes) }
    }
}

/// A request of a peer, about to get its transaction.
pub(crate) struct TheirRequest<'a> {
    pub(crate) key: Key,
    pub(crate) method: Method,
    pub(crate) envelope: &'a Envelope<'a>,
    /// Where the responses go.
    pub(crate) peer: Peer,
    /// Whether it belongs to a call that stands.
    pub(crate) is_known: bool,
    pub(crate) bytes: usize,
}

/// A request of ours, about to be sent.
pub(crate) struct OurRequest {
    pub(crate) key: Key,
    pub(crate) method: Method,
    pub(crate) peer: Peer,
    pub(crate) bytes: Bytes,
    /// Whom the outcome concerns; nobody, if the leg is over or never was.
    pub(crate) leg: Option<LegId>,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// It belongs to no transaction.
    New,
    Absorbed,
    /// An ACK of a 2xx, for the dialog.
    PassedUp,
}

/// A transaction that ended without what it waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed {
    pub(crate) tx: TxId,
    pub(crate) leg: Option<LegId>,
    pub(crate) failure: Failure,
    /// Whether an INVITE failed, and in which role we were.
    pub(crate) is_invite: bool,
    pub(crate) is_client: bool,
    pub(crate) method: Method,
}

#[derive(Debug)]
pub(crate) struct Full;

/// What one input made of a machine.
#[derive(Default)]
struct Settled {
    passed_up: bool,
    failed: Option<Failed>,
}

#[derive(Debug)]
pub(crate) struct Transactions {
    timing: Timing,
    room: Room,
    /// Bytes of the requests of peers.
    request_bytes: usize,
    last_id: u64,
    all: HashMap<TxId, Transaction>,
    by_key: HashMap<Key, TxId>,
    by_merge_key: HashMap<Key, TxId>,
    by_peer: BTreeSet<(Peer, TxId)>,
    deadlines: Deadlines<TxId>,
}

impl Transactions {
    pub(crate) fn new(timing: Timing, room: Room) -> Self {
        Self {
            timing,
            room,
            request_bytes: 0,
            last_id: 0,
            all: HashMap::new(),
            by_key: HashMap::new(),
            by_merge_key: HashMap::new(),
            by_peer: BTreeSet::new(),
            deadlines: Deadlines::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether no index holds what the table does not: a leak, if the table is empty.
    #[cfg(test)]
    pub(crate) fn is_clean(&self) -> bool {
        self.by_key.len() == self.all.len()
            && self.by_peer.len() == self.all.len()
            && self.by_merge_key.len() <= self.all.len()
            && self.deadlines.len() <= self.all.len()
            && self.request_bytes == self.all.values().map(|tx| tx.request_bytes).sum::<usize>()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Fires what is due; each failure comes back once, `None` when nothing is due any more.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) -> Option<Failed> {
        while let Some(id) = self.deadlines.due(now) {
            let tx = self.all.get_mut(&id).expect("every deadline has its transaction");
            tx.machine.handle_timeout(now);
            let settled = self.settle(now, id, out);
            if settled.failed.is_some() {
                return settled.failed;
            }
        }
        None
    }

    /// Tells every transaction with this peer, and says which of them failed.
    pub(crate) fn handle_transport_failed(
        &mut self,
        now: Instant,
        peer: Peer,
        out: &mut Outbox,
    ) -> Vec<Failed> {
        let with_peer = (peer, TxId(0))..=(peer, TxId(u64::MAX));
        let ids: Vec<_> = self.by_peer.range(with_peer).map(|(_, id)| *id).collect();
        let mut failed = Vec::new();
        for id in ids {
            let Some(tx) = self.all.get_mut(&id) else { continue };
            tx.machine.handle_transport_failed(now);
            failed.extend(self.settle(now, id, out).failed);
        }
        failed
    }

    /// Gives a request to its transaction, if it has one.
    pub(crate) fn receive_request(
        &mut self,
        now: Instant,
        key: &Key,
        method: Method,
        out: &mut Outbox,
    ) -> Match {
        let Some(&id) = self.by_key.get(key) else { return Match::New };
        let tx = self.all.get_mut(&id).expect("every key has its transaction");
        match (&mut tx.machine, method) {
            (Machine::ServerInvite(tx), Method::Ack) => {
                tx.handle(now, server_invite::Input::Acknowledged);
            }
            (Machine::ServerInvite(tx), _) => tx.handle(now, server_invite::Input::Retransmitted),
            (Machine::ServerNonInvite(tx), _) => {
                tx.handle(now, server_non_invite::Input::Retransmitted);
            }
            (Machine::ClientInvite(_) | Machine::ClientNonInvite(_), _) => return Match::New,
        }
        match self.settle(now, id, out).passed_up {
            true => Match::PassedUp,
            false => Match::Absorbed,
        }
    }

    /// Whether this new request is one that we have already, come by another way.
    pub(crate) fn is_merged(&self, envelope: &Envelope<'_>) -> bool {
        Key::merged(envelope).is_some_and(|key| self.by_merge_key.contains_key(&key))
    }

    /// The INVITE's transaction that a CANCEL is about.
    pub(crate) fn find(&self, key: &Key) -> Option<TxId> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn leg(&self, id: TxId) -> Option<LegId> {
        self.all.get(&id)?.leg
    }

    /// Begins a server transaction.
    pub(crate) fn open_server(&mut self, request: TheirRequest<'_>) -> Result<TxId, Full> {
        let TheirRequest { key, method, envelope, peer, is_known, bytes } = request;
        let room = if is_known { self.room } else { self.room.of_strangers() };
        if self.all.len() >= room.transactions || self.request_bytes + bytes > room.request_bytes {
            return Err(Full);
        }
        let reliable = peer.transport.is_reliable();
        let machine = match method {
            Method::Invite => Machine::ServerInvite(ServerInvite::new(self.timing, reliable)),
            _ => Machine::ServerNonInvite(ServerNonInvite::new(self.timing, reliable)),
        };
        let merge_key = Key::merged(envelope).filter(|key| !self.by_merge_key.contains_key(key));
        let id = self.insert(machine, method, key, merge_key, peer);
        self.all.entry(id).and_modify(|tx| tx.request_bytes = bytes);
        self.request_bytes += bytes;
        Ok(id)
    }

    pub(crate) fn set_leg(&mut self, id: TxId, leg: LegId) {
        if let Some(tx) = self.all.get_mut(&id) {
            tx.leg = Some(leg);
        }
    }

    /// Sends a request and begins its client transaction.
    pub(crate) fn open_client(
        &mut self,
        now: Instant,
        request: OurRequest,
        out: &mut Outbox,
    ) -> TxId {
        let OurRequest { key, method, peer, bytes, leg } = request;
        let reliable = peer.transport.is_reliable();
        let machine = match method {
            Method::Invite => Machine::ClientInvite(ClientInvite::new(now, self.timing, reliable)),
            _ => Machine::ClientNonInvite(ClientNonInvite::new(now, self.timing, reliable)),
        };
        let id = self.insert(machine, method, key, None, peer);
        self.all.entry(id).and_modify(|tx| (tx.message, tx.leg) = (bytes, leg));
        self.settle(now, id, out);
        id
    }

    fn insert(
        &mut self,
        machine: Machine,
        method: Method,
        key: Key,
        merge_key: Option<Key>,
        peer: Peer,
    ) -> TxId {
        self.last_id += 1;
        let id = TxId(self.last_id);
        self.by_key.insert(key.clone(), id);
        if let Some(merge_key) = merge_key.clone() {
            self.by_merge_key.insert(merge_key, id);
        }
        self.by_peer.insert((peer, id));
        let tx = Transaction {
            machine,
            method,
            key,
            merge_key,
            peer,
            message: Bytes::new(),
            ack: None,
            acks: Vec::new(),
            leg: None,
            deadline: None,
            request_bytes: 0,
        };
        self.all.insert(id, tx);
        id
    }

    /// Sends a response; nothing happens if the transaction has answered finally already.
    pub(crate) fn respond(
        &mut self,
        now: Instant,
        id: TxId,
        status: u16,
        response: Bytes,
        out: &mut Outbox,
    ) {
        let Some(tx) = self.all.get_mut(&id) else { return };
        tx.message = response;
        match &mut tx.machine {
            Machine::ServerInvite(tx) => tx.handle(now, server_invite::Input::Respond(status)),
            Machine::ServerNonInvite(tx) => {
                tx.handle(now, server_non_invite::Input::Respond(status));
            }
            Machine::ClientInvite(_) | Machine::ClientNonInvite(_) => {
                unreachable!("only servers respond")
            }
        }
        self.settle(now, id, out);
    }

    /// Repeats the last provisional response (RFC 3261 §13.3.1.1).
    pub(crate) fn repeat_provisional(&mut self, now: Instant, id: TxId, out: &mut Outbox) {
        if let Some(Transaction { machine: Machine::ServerInvite(tx), .. }) = self.all.get_mut(&id)
        {
            tx.handle(now, server_invite::Input::Retransmitted);
            self.settle(now, id, out);
        }
    }

    /// Gives a response to its transaction; what comes back is for the TU: the transaction, which
    /// may be over by now, and its leg.
    pub(crate) fn receive_response(
        &mut self,
        now: Instant,
        key: &Key,
        response: &Response,
        out: &mut Outbox,
    ) -> Option<(TxId, Option<LegId>)> {
        let id = *self.by_key.get(key)?;
        let tx = self.all.get_mut(&id).expect("every key has its transaction");
        match &mut tx.machine {
            Machine::ClientInvite(machine) => {
                if response.status >= 300 && tx.ack.is_none() {
                    tx.ack = compose::ack(&tx.message, response);
                }
                machine.handle(now, client_invite::Input::Response(response.status));
            }
            Machine::ClientNonInvite(machine) => {
                machine.handle(now, client_non_invite::Input::Response(response.status));
            }
            Machine::ServerInvite(_) | Machine::ServerNonInvite(_) => return None,
        }
        let leg = tx.leg;
        self.settle(now, id, out).passed_up.then_some((id, leg))
    }

    /// Ends a pending INVITE of ours that has no final response within 64·T1 (RFC 3261 §9.1).
    /// False if that holds for it already.
    pub(crate) fn limit(&mut self, now: Instant, id: TxId, out: &mut Outbox) -> bool {
        let Some(Transaction { machine: Machine::ClientInvite(tx), .. }) = self.all.get_mut(&id)
        else {
            return false;
        };
        let is_first = tx.poll_timeout().is_none();
        if is_first {
            tx.handle(now, client_invite::Input::Cancelled);
            self.settle(now, id, out);
        }
        is_first
    }

    /// The request of a client transaction, and where it went.
    pub(crate) fn request(&self, id: TxId) -> Option<(Bytes, Peer)> {
        self.all.get(&id).map(|tx| (tx.message.clone(), tx.peer))
    }

    /// The ACK that answered the 2xx with this To tag.
    pub(crate) fn ack(&self, id: TxId, to_tag: &str) -> Option<(Peer, Bytes)> {
        let acks = &self.all.get(&id)?.acks;
        acks.iter().find(|(tag, ..)| tag == to_tag).map(|(_, peer, ack)| (*peer, ack.clone()))
    }

    /// Keeps the ACK for retransmissions of its 2xx.
    ///
    /// # Errors
    /// The INVITE has forked more often than [`MAX_FORKS`].
    pub(crate) fn keep_ack(
        &mut self,
        id: TxId,
        to_tag: &str,
        peer: Peer,
        ack: Bytes,
    ) -> Result<(), Full> {
        let Some(tx) = self.all.get_mut(&id) else { return Ok(()) };
        if tx.acks.len() >= MAX_FORKS {
            return Err(Full);
        }
        tx.acks.push((to_tag.to_owned(), peer, ack));
        Ok(())
    }

    fn destroy(&mut self, id: TxId) {
        let Some(tx) = self.all.remove(&id) else { return };
        self.by_key.remove(&tx.key);
        if let Some(merge_key) = &tx.merge_key {
            self.by_merge_key.remove(merge_key);
        }
        self.by_peer.remove(&(tx.peer, id));
        self.request_bytes -= tx.request_bytes;
        self.deadlines.shift(id, tx.deadline, None);
    }

    /// Performs what the machine asked for, and brings every index up to date.
    fn settle(&mut self, now: Instant, id: TxId, out: &mut Outbox) -> Settled {
        let mut settled = Settled::default();
        let tx = self.all.get_mut(&id).expect("settled by those who found it");
        if tx.machine.poll_timeout().is_some_and(|at| at <= now) {
            tx.machine.handle_timeout(now); // Timers of length zero, by reliable transports.
        }
        while let Some(output) = tx.machine.poll_output() {
            let peer = tx.peer;
            match output {
                Output::Send if tx.message.is_empty() => (),
                Output::Send => {
                    out.push_back(user_agent::Output::Send { peer, bytes: tx.message.clone() });
                }
                Output::SendAck => {
                    let ack = tx.ack.clone();
                    out.extend(ack.map(|bytes| user_agent::Output::Send { peer, bytes }));
                }
                Output::PassUp => settled.passed_up = true,
                Output::Failed(failure) => {
                    let (is_client, is_invite) = (tx.machine.is_client(), tx.machine.is_invite());
                    let (leg, method) = (tx.leg, tx.method);
                    let failed = Failed { tx: id, leg, failure, is_invite, is_client, method };
                    settled.failed = Some(failed);
                }
            }
        }
        if tx.machine.is_terminated() {
            self.destroy(id);
        } else {
            let deadline = tx.machine.poll_timeout();
            let old = std::mem::replace(&mut tx.deadline, deadline);
            self.deadlines.shift(id, old, deadline);
        }
        settled
    }
}
