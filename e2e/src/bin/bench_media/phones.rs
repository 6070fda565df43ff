//! Thousands of phones in one thread: each has an address of its own in 127.0.0.0/8, all share a
//! few sockets. They send RTP open loop and measure what comes back with the kernel's own clock.

use crate::batch::{self, BATCH, Batch};
use anyhow::Context as _;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// RTP of all phones is on these ports and RTCP on the next ones, which nobody reads.
const FIRST_PORT: u16 = 12_000;
const SOCKETS: usize = 4;
/// First address of a phone: 127.1.0.0.
const FIRST_ADDRESS: u32 = 0x7f01_0000;
/// Kernel buffer of a socket: a second of everything.
const BUFFER_BYTES: i32 = 64 << 20;
/// How often packets are sent, unless there is no pause at all.
const TICK: Duration = Duration::from_micros(200);
/// How long packets are on their way at most.
pub(crate) const TRAVEL: Duration = Duration::from_millis(400);
/// RTP header and 20 ms of G.711.
const PACKET_BYTES: usize = 172;
/// Packet time of what relays play.
const PTIME_NS: u64 = 20_000_000;

/// A phone's stream.
#[derive(Clone, Copy)]
struct Stream {
    to: SocketAddrV4,
    sequence: u16,
}

pub(crate) struct Phones {
    sockets: Vec<UdpSocket>,
    _rtcp: Vec<UdpSocket>,
    batches: Vec<Batch>,
    streams: Vec<Stream>,
    payload_type: u8,
    /// Marks the packets of one measurement.
    run: u32,
}

/// What became of the packets of one measurement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub seconds: f64,
    pub sent: u64,
    pub received: u64,
    /// Packets that no phone has sent: music, mixes.
    pub others: u64,
    /// In µs, sorted.
    delays_us: Vec<u32>,
}

impl Outcome {
    pub(crate) fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    pub(crate) fn rate(&self) -> f64 {
        self.sent as f64 / self.seconds
    }

    /// The delay, or the deviation, that `fraction` of the packets do not exceed, in ms.
    pub(crate) fn quantile_ms(&self, fraction: f64) -> f64 {
        let last = self.delays_us.len().saturating_sub(1);
        let nth = (last as f64 * fraction).round() as usize;
        f64::from(self.delays_us.get(nth).copied().unwrap_or(u32::MAX)) / 1_000.0
    }
}

impl Phones {
    /// # Errors
    /// If their ports are taken.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let ports = (0..SOCKETS as u16).map(|nth| FIRST_PORT + 2 * nth);
        let bind = |port| {
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).with_context(|| format!("bind {port}"))
        };
        let sockets = ports.clone().map(bind).collect::<anyhow::Result<Vec<_>>>()?;
        for socket in &sockets {
            batch::configure(socket, BUFFER_BYTES).context("configure a socket")?;
        }
        let rtcp = ports.map(|port| bind(port + 1)).collect::<anyhow::Result<_>>()?;
        let batches = (0..SOCKETS).map(|_| Batch::new()).collect();
        let streams = Vec::new();
        Ok(Self { sockets, _rtcp: rtcp, batches, streams, payload_type: 0, run: 0 })
    }

    /// Where phone `nth` sends and receives.
    pub(crate) fn address(nth: usize) -> SocketAddrV4 {
        let port = FIRST_PORT + 2 * (nth % SOCKETS) as u16;
        SocketAddrV4::new(Ipv4Addr::from(FIRST_ADDRESS + (nth / SOCKETS) as u32 + 1), port)
    }

    fn number(to: Ipv4Addr, socket: usize) -> usize {
        (u32::from(to).wrapping_sub(FIRST_ADDRESS + 1)) as usize * SOCKETS + socket
    }

    /// Each phone sends to the address of its place from now on.
    pub(crate) fn send_to(&mut self, targets: impl IntoIterator<Item = SocketAddrV4>) {
        self.streams = targets.into_iter().map(|to| Stream { to, sequence: 0 }).collect();
    }

    /// All packets have this payload type from now on.
    pub(crate) fn send_as(&mut self, payload_type: u8) {
        self.payload_type = payload_type;
    }

    /// Sends `rate` packets a second in all, spread evenly over time and phones; calls `begin` when
    /// a warm-up is over and `end` when the last packet has arrived or is lost.
    pub(crate) fn talk(&mut self, rate: f64, warm_up: Duration, span: Duration) -> Outcome {
        self.send_for(rate, warm_up);
        self.send_for(rate, span)
    }

    /// One span of [`Phones::talk`]; packets of earlier ones are not counted.
    pub(crate) fn send_for(&mut self, rate: f64, span: Duration) -> Outcome {
        self.run += 1;
        let mut outcome = Outcome::default();
        outcome.delays_us.reserve((rate * span.as_secs_f64() * 1.05) as usize);
        let start = Instant::now();
        let mut next_stream = 0;
        loop {
            let since = start.elapsed();
            if since >= span {
                break;
            }
            let due = ((since.as_secs_f64() * rate) as u64).saturating_sub(outcome.sent);
            let now_ns = unix_ns();
            for _ in 0..due.min((BATCH * SOCKETS) as u64) {
                self.push(next_stream, now_ns, &mut outcome);
                next_stream = (next_stream + 1) % self.streams.len();
            }
            self.flush(&mut outcome);
            if self.receive(&mut outcome) == 0 && due < BATCH as u64 {
                std::thread::sleep(TICK);
            }
        }
        outcome.seconds = start.elapsed().as_secs_f64();
        let sent = Instant::now();
        while sent.elapsed() < TRAVEL && outcome.received < outcome.sent {
            self.receive(&mut outcome);
        }
        outcome.delays_us.sort_unstable();
        outcome
    }

    fn push(&mut self, nth: usize, now_ns: u64, outcome: &mut Outcome) {
        let socket = nth % SOCKETS;
        if self.batches[socket].is_full() {
            outcome.sent += self.batches[socket].send(&self.sockets[socket]) as u64;
        }
        let stream = &mut self.streams[nth];
        stream.sequence = stream.sequence.wrapping_add(1);
        let Stream { to, sequence } = *stream;
        let (run, payload_type) = (self.run, self.payload_type);
        self.batches[socket].push(*Self::address(nth).ip(), to, |bytes| {
            bytes[..2].copy_from_slice(&[0x80, payload_type]);
            bytes[2..4].copy_from_slice(&sequence.to_be_bytes());
            bytes[4..8].copy_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
            bytes[8..12].copy_from_slice(&(nth as u32 + 1).to_be_bytes());
            bytes[12..16].copy_from_slice(&run.to_be_bytes());
            bytes[16..24].copy_from_slice(&now_ns.to_be_bytes());
            PACKET_BYTES
        });
    }

    fn flush(&mut self, outcome: &mut Outcome) {
        for (batch, socket) in self.batches.iter_mut().zip(&self.sockets) {
            outcome.sent += batch.send(socket) as u64;
        }
    }

    /// Takes what has come, as much as is sent in a turn at most; how many. The ceiling sends all
    /// to one of the sockets.
    fn receive(&mut self, outcome: &mut Outcome) -> usize {
        let mut taken = 0;
        let mut may_have_more = [true; SOCKETS];
        for number in (0..SOCKETS * SOCKETS).map(|it| it % SOCKETS) {
            if !may_have_more[number] || taken >= BATCH * SOCKETS {
                continue;
            }
            let (batch, socket) = (&mut self.batches[number], &self.sockets[number]);
            let arrived = batch.receive(socket);
            taken += arrived;
            may_have_more[number] = arrived == BATCH;
            for nth in 0..arrived {
                let arrived = batch.arrived(nth);
                let Some(payload) = arrived.bytes.get(12..24) else { continue };
                let (run, sent_ns) = payload.split_at(4);
                if run != self.run.to_be_bytes() {
                    outcome.others += 1;
                    continue;
                }
                let sent_ns = u64::from_be_bytes(sent_ns.try_into().expect("eight bytes"));
                let delay_us = arrived.at_ns.saturating_sub(sent_ns) / 1_000;
                outcome.received += 1;
                outcome.delays_us.push(u32::try_from(delay_us).unwrap_or(u32::MAX));
            }
        }
        taken
    }

    /// Forgets what has come so far.
    pub(crate) fn forget(&mut self) {
        for (batch, socket) in self.batches.iter_mut().zip(&self.sockets) {
            while batch.receive(socket) > 0 {}
        }
    }

    /// Hears what is played to the first `listeners` phones: `sent` is what should have come, and
    /// the delays are how far each packet's distance from the one before it is from 20 ms.
    pub(crate) fn listen(&mut self, listeners: usize, span: Duration) -> Outcome {
        self.forget();
        let mut last_ns = vec![0; listeners];
        let mut outcome = Outcome::default();
        let start = Instant::now();
        while start.elapsed() < span {
            let mut taken = 0;
            for (number, (batch, socket)) in self.batches.iter_mut().zip(&self.sockets).enumerate()
            {
                let arrived = batch.receive(socket);
                taken += arrived;
                for nth in 0..arrived {
                    let arrived = batch.arrived(nth);
                    let phone = Self::number(arrived.to, number);
                    let Some(last_ns) = last_ns.get_mut(phone) else { continue };
                    if *last_ns > 0 {
                        let distance = arrived.at_ns.saturating_sub(*last_ns);
                        outcome.delays_us.push((distance.abs_diff(PTIME_NS) / 1_000) as u32);
                    }
                    *last_ns = arrived.at_ns;
                    outcome.received += 1;
                }
            }
            if taken == 0 {
                std::thread::sleep(TICK);
            }
        }
        outcome.seconds = start.elapsed().as_secs_f64();
        outcome.sent = (outcome.seconds * 50.0 * listeners as f64) as u64;
        outcome.delays_us.sort_unstable();
        outcome
    }
}

fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(since.as_nanos()).expect("until 2554")
}
