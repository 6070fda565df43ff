//! The thread that owns the core and all sockets: the one place where media meets a clock.
//!
//! It drains every output, waits for datagrams, commands or the next deadline, hands them to the
//! core, and repeats. Commands are closures that run between packets; they come over a bounded
//! channel and answer by a oneshot. Nothing on this thread waits for a disk, a lock or a peer.

use crate::metrics::Metrics;
use crate::sockets::Sockets;
use anyhow::Context as _;
use media::{Described, Offer, Output, Relay, Side};
use mio::{Events, Poll, Token, Waker};
use rand::TryRng as _;
use rand::rngs::SysRng;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{broadcast, oneshot, watch};

/// Commands that may wait for the thread; further callers are refused.
const COMMANDS_MAX: usize = 1_024;
/// Events that a watcher may be behind.
pub(crate) const EVENTS_BEHIND_MAX: usize = 4_096;
/// Datagrams that are read from one socket before it is another one's turn.
const DATAGRAMS_PER_TURN: usize = 16;
/// Commands that are done before it is the packets' turn.
const COMMANDS_PER_TURN: usize = 16;
/// Readiness events taken from the kernel at a time.
const READY_MAX: usize = 1_024;
/// Longest datagram that is read whole: an Ethernet frame's worth. The core refuses longer ones.
const DATAGRAM_BYTES_MAX: usize = 2_048;
/// Port pairs that are tried, if other processes have them, before an offer is refused.
const BIND_TRIES_MAX: usize = 256;

/// Above every port.
const WAKER: Token = Token(usize::MAX);

/// An event and when it happened.
#[derive(Clone, Debug)]
pub(crate) struct Happened {
    pub event: media::Event,
    pub at_unix_ms: i64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum OfferError {
    #[error(transparent)]
    Relay(#[from] media::Error),
    #[error("failed to bind an RTP port: {0} (sockets are limited by `ulimit -n`)")]
    Bind(io::Error),
    #[error("{BIND_TRIES_MAX} port pairs in a row belong to other processes (--rtp-ports)")]
    PortsTaken,
}

/// The thread does not take the command: too many wait.
#[derive(Debug, thiserror::Error)]
#[error("{COMMANDS_MAX} commands are waiting already")]
pub(crate) struct Busy;

type Command = Box<dyn FnOnce(&mut PacketThread) + Send>;

/// For those who give commands; cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle {
    commands: SyncSender<Command>,
    waker: Arc<Waker>,
    events: broadcast::Sender<Happened>,
    sessions: watch::Receiver<usize>,
}

impl Handle {
    /// Runs `command` on the thread, between packets, and returns what it returns.
    ///
    /// # Errors
    /// [`Busy`] if it is overloaded.
    pub(crate) async fn call<R: Send + 'static>(
        &self,
        command: impl FnOnce(&mut PacketThread) -> R + Send + 'static,
    ) -> Result<R, Busy> {
        let (reply, result) = oneshot::channel();
        let command: Command = Box::new(|thread| {
            let _ = reply.send(command(thread)); // The caller may have gone away.
        });
        match self.commands.try_send(command) {
            Ok(()) => (),
            Err(TrySendError::Full(_)) => return Err(Busy),
            Err(TrySendError::Disconnected(_)) => std::future::pending().await, // We are dying.
        }
        self.waker.wake().expect("an eventfd can be written to");
        match result.await {
            Ok(result) => Ok(result),
            Err(_) => std::future::pending().await, // The thread has died, and takes us along.
        }
    }

    /// Events from now on.
    pub(crate) fn watch(&self) -> broadcast::Receiver<Happened> {
        self.events.subscribe()
    }

    /// Completes when there is no session.
    pub(crate) async fn idle(mut self) {
        let _ = self.sessions.wait_for(|sessions| *sessions == 0).await; // Or the thread has ended.
    }
}

pub(crate) struct PacketThread {
    pub relay: Relay,
    sockets: Sockets,
    poll: Poll,
    commands: Receiver<Command>,
    /// Ports whose sockets may have more to read; each once, however often the kernel says so.
    readable: BTreeSet<u16>,
    events: broadcast::Sender<Happened>,
    sessions: watch::Sender<usize>,
    metrics: Metrics,
}

impl PacketThread {
    /// # Errors
    /// If nothing can be bound on `rtp_address`, or `config` is wrong.
    pub(crate) fn new(
        config: media::Config,
        rtp_address: IpAddr,
    ) -> anyhow::Result<(Self, Handle)> {
        let mut seed = [0; 32];
        SysRng.try_fill_bytes(&mut seed).context("read random numbers")?;
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?;
        let relay = Relay::new(config, seed, Instant::now(), unix).context("use --rtp-ports")?;
        let poll = Poll::new().context("make an epoll")?;
        let waker = Waker::new(poll.registry(), WAKER).context("make an eventfd")?;
        let registry = poll.registry().try_clone().context("clone an epoll")?;
        let sockets = Sockets::new(rtp_address, registry)?;
        let (commands_tx, commands) = sync_channel(COMMANDS_MAX);
        let (events, _) = broadcast::channel(EVENTS_BEHIND_MAX);
        let (sessions_tx, sessions) = watch::channel(0);
        let handle = Handle {
            commands: commands_tx,
            waker: Arc::new(waker),
            events: events.clone(),
            sessions,
        };
        let thread = Self {
            relay,
            sockets,
            poll,
            commands,
            readable: BTreeSet::new(),
            events,
            sessions: sessions_tx,
            metrics: Metrics::new(),
        };
        Ok((thread, handle))
    }

    /// Runs on a thread of its own; completes only with an error.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let (ended_tx, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("packets".to_owned())
            .spawn(move || {
                let _ = ended_tx.send(self.run_here()); // Nobody listens if the process is ending.
            })
            .context("start the packet thread")?;
        ended.await.context("wait for the packet thread")?
    }

    fn run_here(mut self) -> anyhow::Result<()> {
        let mut ready = Events::with_capacity(READY_MAX);
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let mut commands_left = false;
        loop {
            self.drain();
            let wait = match commands_left || !self.readable.is_empty() {
                true => Some(Duration::ZERO),
                false => self.time_to_deadline(),
            };
            match self.poll.poll(&mut ready, wait) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => ready.clear(),
                polled => polled.context("poll sockets")?,
            }
            let ports = ready.iter().filter(|it| it.token() != WAKER);
            self.readable.extend(ports.filter_map(|it| u16::try_from(it.token().0).ok()));
            self.relay.handle_timeout(Instant::now());
            self.read_sockets(&mut buffer);
            commands_left = self.do_commands();
        }
    }

    fn time_to_deadline(&self) -> Option<Duration> {
        let deadline = self.relay.poll_timeout()?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// Sends what is to be sent.
    fn transmit(&mut self) {
        let now = Instant::now();
        while let Some(transmit) = self.relay.poll_transmit() {
            if let Some(due) = transmit.due {
                self.metrics.lateness.record(now.saturating_duration_since(due));
            }
            match self.sockets.send(transmit) {
                Ok(_) => self.metrics.sent.increment(1),
                // Full, unreachable, gone: RTP is not sent again.
                Err(_) => self.metrics.send_failures.increment(1),
            }
        }
    }

    /// Sends, then closes and tells.
    fn drain(&mut self) {
        self.transmit();
        while let Some(output) = self.relay.poll_output() {
            match output {
                Output::ClosePorts(pair) => self.sockets.close(pair),
                Output::Event(event) => {
                    let _ = self.events.send(Happened { event, at_unix_ms: boot::unix_ms() });
                }
            }
        }
        let sessions = self.relay.sessions();
        if *self.sessions.borrow() != sessions {
            self.sessions.send_replace(sessions);
            self.metrics.sessions.set(sessions as f64);
            self.metrics.streams.set(self.sockets.pairs() as f64);
        }
    }

    /// Gives each readable socket one turn; one that is not empty then comes again.
    fn read_sockets(&mut self, buffer: &mut [u8]) {
        for port in std::mem::take(&mut self.readable) {
            if !self.read_socket(port, buffer) {
                self.readable.insert(port);
            }
            // Neither what is relayed nor what is due must wait for the other sockets.
            self.relay.handle_timeout(Instant::now());
            self.transmit();
        }
    }

    /// True if the socket is empty.
    fn read_socket(&mut self, port: u16, buffer: &mut [u8]) -> bool {
        for _ in 0..DATAGRAMS_PER_TURN {
            let (len, source) = match self.sockets.receive(port, buffer) {
                Ok(received) => received,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => continue, // An ICMP error of an earlier send.
            };
            self.metrics.received.increment(1);
            let datagram = &buffer[..len];
            let handled = self.relay.handle_datagram(Instant::now(), port, source, datagram);
            if let Err(reason) = handled {
                self.metrics.count_discard(reason);
            }
        }
        false
    }

    /// True if there may be more.
    fn do_commands(&mut self) -> bool {
        for _ in 0..COMMANDS_PER_TURN {
            match self.commands.try_recv() {
                Ok(command) => command(self),
                Err(_) => return false,
            }
        }
        true
    }

    /// Negotiates a side, on a port pair of its own if it is new.
    pub(crate) fn offer(&mut self, offer: Offer<'_>) -> Result<Described, OfferError> {
        let now = Instant::now();
        self.relay.check_offer(&offer)?;
        let ports = match self.relay.needs_ports(offer.session_id, offer.side) {
            true => Some(self.bind_pair(now)?),
            false => None,
        };
        Ok(self.relay.offer(now, offer, ports)?)
    }

    /// Frees a side or a session. Its ports are closed before anybody is told so.
    pub(crate) fn delete(&mut self, session_id: &str, side: Option<Side>) -> bool {
        let existed = self.relay.delete(Instant::now(), session_id, side);
        self.drain();
        existed
    }

    fn bind_pair(&mut self, now: Instant) -> Result<media::PortPair, OfferError> {
        for _ in 0..BIND_TRIES_MAX {
            let pair = self.relay.take_ports(now)?;
            match self.sockets.bind(pair) {
                Ok(()) => return Ok(pair),
                Err(e) => {
                    self.relay.give_back_ports(now, pair);
                    if e.kind() != io::ErrorKind::AddrInUse {
                        return Err(OfferError::Bind(e));
                    }
                }
            }
        }
        Err(OfferError::PortsTaken)
    }
}
