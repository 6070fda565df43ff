//! The thread that owns the core and all sockets: the one place where media meets a clock.
//!
//! It drains every output, waits for datagrams, commands or the next deadline, hands them to the
//! core, and repeats. Commands are closures that run between packets; they come over a bounded
//! channel and answer by a oneshot. Nothing on this thread waits for a disk, a lock or a peer.
//!
//! Packets have a turn, in which all that have come are read, relayed and sent, and all that is due
//! is sent. After a turn in which there was something to do, the next one begins only `gather`
//! after this one began: what comes or falls due meanwhile shares its wake-up and its calls of the
//! kernel. Whoever comes to a quiet relay is served at once; commands never wait for a turn.

use crate::encoder::Encoder;
use crate::metrics::Metrics;
use crate::path::{Inbox, Path};
use crate::recorder::{Feed, Finished};
use anyhow::Context as _;
use media::{Changed, Described, Offer, Output, PREFETCHED, PortPair, Relay, Resumed};
use media::{SessionSnapshot, Side};
use rand::TryRng as _;
use rand::rngs::SysRng;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{broadcast, oneshot, watch};

/// Commands that may wait for the thread; further callers are refused.
pub(crate) const COMMANDS_MAX: usize = 1_024;
/// Events that a watcher may be behind.
pub(crate) const EVENTS_BEHIND_MAX: usize = 4_096;
/// Batches that are read before it is the commands' turn.
const BATCHES_PER_TURN: usize = 32;
/// Commands that are done before it is the packets' turn.
const COMMANDS_PER_TURN: usize = 16;
/// Port pairs that are tried, if other processes have them, before an offer is refused.
const BIND_TRIES_MAX: usize = 256;

/// An event and when it happened.
#[derive(Clone, Debug)]
pub(crate) struct Happened {
    pub what: What,
    pub at_unix_ms: i64,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    Media(media::Event),
    Recorded(Finished),
}

impl Happened {
    fn now(what: What) -> Self {
        Self { what, at_unix_ms: boot::unix_ms() }
    }
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
    waker: Arc<OwnedFd>,
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
        rustix::io::write(&self.waker, &1u64.to_ne_bytes()).expect("an eventfd can be written to");
        match result.await {
            Ok(result) => Ok(result),
            Err(_) => std::future::pending().await, // The thread has died, and takes us along.
        }
    }

    /// Events from now on.
    pub(crate) fn watch(&self) -> broadcast::Receiver<Happened> {
        self.events.subscribe()
    }

    /// Tells all who watch that the file of a recording is complete.
    pub(crate) fn tell_recorded(&self, finished: Finished) {
        let _ = self.events.send(Happened::now(What::Recorded(finished))); // Perhaps nobody.
    }

    /// Somebody watches events.
    pub(crate) fn is_watched(&self) -> bool {
        self.events.receiver_count() > 0
    }

    /// Completes when there is no session.
    pub(crate) async fn idle(mut self) {
        let _ = self.sessions.wait_for(|sessions| *sessions == 0).await; // Or the thread has ended.
    }
}

pub(crate) struct PacketThread {
    pub relay: Relay,
    path: Path,
    /// Least time from the beginning of a turn of packets to that of the next.
    gather: Duration,
    /// When the next turn may begin.
    next_turn: Instant,
    commands: Receiver<Command>,
    /// Readable when a command has come.
    waker: Arc<OwnedFd>,
    inbox: Inbox,
    events: broadcast::Sender<Happened>,
    sessions: watch::Sender<usize>,
    /// Whom to tell what has become of sessions, and what did not fit.
    changes: Option<SyncSender<Changed>>,
    held_change: Option<Changed>,
    recordings: Feed,
    encoder: Encoder,
    metrics: Metrics,
}

impl PacketThread {
    /// # Errors
    /// If `config` is wrong, or the kernel refuses an eventfd.
    pub(crate) fn new(
        config: media::Config,
        path: Path,
        gather: Duration,
        recordings: Feed,
    ) -> anyhow::Result<(Self, Handle)> {
        let mut seed = [0; 32];
        SysRng.try_fill_bytes(&mut seed).context("read random numbers")?;
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?;
        let now = Instant::now();
        let relay = Relay::new(config, seed, now, unix).context("use --rtp-ports")?;
        let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let waker = Arc::new(waker.context("make an eventfd")?);
        let (commands_tx, commands) = sync_channel(COMMANDS_MAX);
        let (events, _) = broadcast::channel(EVENTS_BEHIND_MAX);
        let (sessions_tx, sessions) = watch::channel(0);
        let handle = Handle {
            commands: commands_tx,
            waker: waker.clone(),
            events: events.clone(),
            sessions,
        };
        let metrics = Metrics::new(path.name());
        let thread = Self {
            relay,
            path,
            gather,
            next_turn: now,
            commands,
            waker,
            inbox: Inbox::new(),
            events,
            sessions: sessions_tx,
            changes: None,
            held_change: None,
            recordings,
            encoder: Encoder::start()?,
            metrics,
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
        let mut commands_left = false;
        loop {
            self.drain();
            self.wait(commands_left)?;
            commands_left = self.do_commands();
            let now = Instant::now();
            if self.next_turn <= now && self.take_turn(now)? {
                self.next_turn = now + self.gather;
            }
        }
    }

    /// Waits for a command and, if it is their turn, for a datagram or the next deadline.
    fn wait(&mut self, commands_left: bool) -> anyhow::Result<()> {
        let now = Instant::now();
        let rest = self.next_turn.saturating_duration_since(now);
        let limit = match (commands_left, rest.is_zero()) {
            (true, _) => Some(Duration::ZERO),
            (false, false) => Some(rest),
            (false, true) => self.relay.poll_timeout().map(|it| it.saturating_duration_since(now)),
        };
        let limit = limit.map(|it| Timespec {
            tv_sec: it.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: it.subsec_nanos().into(),
        });
        let readiness = self.path.readiness();
        let mut waited = [
            PollFd::new(&self.waker, PollFlags::IN),
            PollFd::from_borrowed_fd(readiness, PollFlags::IN),
        ];
        let waited = if rest.is_zero() { &mut waited[..] } else { &mut waited[..1] };
        match poll(waited, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => (),
            Err(e) => return Err(io::Error::from(e)).context("poll sockets"),
        }
        if !waited[0].revents().is_empty() {
            let _ = rustix::io::read(&self.waker, &mut [0; 8]); // Resets it; it never fails then.
        }
        Ok(())
    }

    /// Does what is due at `now`, and relays what has come; true if there was anything.
    fn take_turn(&mut self, now: Instant) -> anyhow::Result<bool> {
        let mut busy = self.do_due(now);
        for _ in 0..BATCHES_PER_TURN {
            self.path.receive(&mut self.inbox).context("ask which sockets are readable")?;
            let now = Instant::now();
            busy |= self.inbox.len() > 0;
            self.metrics.received.increment(self.inbox.len() as u64);
            for (n, it) in self.inbox.iter().enumerate() {
                if n % PREFETCHED == 0 {
                    self.relay.prefetch(self.inbox.ports(n));
                }
                let handled = self.relay.handle_datagram(now, it.port, it.source, it.bytes);
                if let Err(reason) = handled {
                    self.metrics.count_discard(reason);
                }
            }
            self.transmit(now);
            if !self.inbox.is_full() {
                break;
            }
            // What is due must not wait for all that has come.
            self.do_due(now);
        }
        Ok(busy)
    }

    /// Does and sends all that is due; true if there was anything.
    fn do_due(&mut self, now: Instant) -> bool {
        let mut busy = false;
        while self.relay.poll_timeout().is_some_and(|it| it <= now) {
            self.relay.handle_timeout(now);
            self.transmit(now);
            busy = true;
        }
        busy
    }

    /// Sends what is to be sent.
    fn transmit(&mut self, now: Instant) {
        let due = self.relay.transmits().filter_map(|it| it.due).min();
        if let Some(due) = due {
            self.metrics.lateness.record(now.saturating_duration_since(due));
        }
        let sent = self.path.send(self.relay.transmits());
        self.relay.clear_transmits();
        self.metrics.sent.increment(sent.datagrams);
        self.metrics.send_failures.increment(sent.failed);
    }

    /// Sends, then closes and tells.
    fn drain(&mut self) {
        self.transmit(Instant::now());
        while let Some(output) = self.relay.poll_output() {
            match output {
                Output::ClosePorts(pair) => self.path.close(pair),
                Output::Event(event) => {
                    let _ = self.events.send(Happened::now(What::Media(event)));
                }
                Output::Recorded { recording_id, samples } => {
                    self.recordings.write(recording_id, samples);
                }
                Output::RecordingEnded { recording_id } => self.recordings.end(recording_id),
                Output::Encode(audio, form) => self.encoder.encode(audio, form),
            }
        }
        self.hand_changes_over();
        let sessions = self.relay.sessions();
        if *self.sessions.borrow() != sessions {
            self.sessions.send_replace(sessions);
            self.metrics.sessions.set(sessions as f64);
            self.metrics.streams.set(self.relay.sides() as f64);
        }
    }

    /// Has `changes` told what becomes of sessions from now on.
    pub(crate) fn tell_changes(&mut self, changes: SyncSender<Changed>) {
        self.relay.note_changes();
        self.changes = Some(changes);
    }

    /// What does not fit waits, and what changes again meanwhile is told once.
    fn hand_changes_over(&mut self) {
        let Some(changes) = &self.changes else { return };
        let now = Instant::now();
        while let Some(changed) = self.held_change.take().or_else(|| self.relay.poll_changed(now)) {
            if let Err(TrySendError::Full(changed)) = changes.try_send(changed) {
                self.held_change = Some(changed);
                return;
            }
        }
    }

    /// Takes up a session of an earlier process, on its ports; what it plays is returned.
    ///
    /// # Errors
    /// If a port is not free, or the snapshot is not one of ours.
    pub(crate) fn restore(&mut self, snapshot: &SessionSnapshot) -> anyhow::Result<Vec<Resumed>> {
        let now = Instant::now();
        let mut bound = Vec::new();
        for side in snapshot.sides.iter().flatten() {
            match self.bind_port(now, side.rtp_port) {
                Ok(pair) => bound.push(pair),
                Err(e) => {
                    for pair in bound {
                        self.path.close(pair);
                        self.relay.give_back_ports(now, pair);
                    }
                    return Err(e);
                }
            }
        }
        self.relay.restore(now, snapshot).context("read its snapshot")
    }

    fn bind_port(&mut self, now: Instant, rtp_port: u16) -> anyhow::Result<PortPair> {
        let pair = self.relay.reserve_ports(rtp_port);
        let pair =
            pair.with_context(|| format!("have port {rtp_port}: not free in --rtp-ports"))?;
        self.path.bind(pair).with_context(|| format!("bind port {rtp_port}")).inspect_err(
            |_| {
                self.relay.give_back_ports(now, pair);
            },
        )?;
        Ok(pair)
    }

    /// Has the snapshot of a session that cannot be taken up removed.
    pub(crate) fn forget(&mut self, session_id: &str) {
        if let Some(changes) = &self.changes {
            // If it does not fit now, it is tried again at the next start.
            let _ = changes.try_send(Changed::Gone(session_id.into()));
        }
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

    pub(crate) fn bind_pair(&mut self, now: Instant) -> Result<media::PortPair, OfferError> {
        for _ in 0..BIND_TRIES_MAX {
            let pair = self.relay.take_ports(now)?;
            match self.path.bind(pair) {
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
