//! The RTP socket of a phone: keeps every packet with its arrival, talks and presses keys on time.

use crate::audio::Codec;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// One packet of audio lasts so long.
const PTIME: Duration = Duration::from_millis(20);
const SAMPLES_PER_PACKET: usize = 160;
/// Packets that are kept: 20 minutes of one stream.
const PACKETS_MAX: usize = 60_000;
/// How long a phone is heard after it has answered, in packets.
const BREATH_PACKETS: u32 = 50;
const TELEPHONE_EVENT: u8 = 101;
/// A key is down for so many packets, and its end is sent three times (RFC 4733 §2.5.1.4).
const PRESS_PACKETS: u16 = 5;
const END_REPEATS: usize = 3;
/// Longest pause that a marker bit may announce the end of.
const PAUSE_MAX_TICKS: u32 = 8_000;

/// A packet as it arrived.
#[derive(Clone, Debug)]
pub struct Packet {
    pub arrival: Instant,
    pub marker: bool,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    pub payload: Vec<u8>,
}

/// All that a phone has heard.
#[derive(Default)]
pub struct Ear {
    packets: Mutex<Vec<Packet>>,
    grown: Condvar,
}

pub(crate) struct RtpPort {
    pub(crate) local: SocketAddr,
    pub(crate) ear: Arc<Ear>,
    mouth: Arc<Mutex<Mouth>>,
    stopped: Arc<AtomicBool>,
}

/// What is to be said.
struct Mouth {
    remote: Option<SocketAddr>,
    payload_type: u8,
    payload: Vec<u8>,
    said: usize,
    presses: Vec<char>,
    /// Silence, with its payload type, and how many packets of it are still to be sent.
    breath: Option<(u8, Vec<u8>, u32)>,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
}

impl Ear {
    pub fn packets(&self) -> Vec<Packet> {
        self.packets.lock().unwrap().clone()
    }

    pub fn clear(&self) {
        self.packets.lock().unwrap().clear();
    }

    /// Waits until so many packets in all have come.
    ///
    /// # Errors
    /// If they have not within `limit`.
    pub fn wait_for_packets(&self, count: usize, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        let mut packets = self.packets.lock().unwrap();
        while packets.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                anyhow::bail!("heard {} packets within {limit:?}, wanted {count}", packets.len());
            }
            packets = self.grown.wait_timeout(packets, left).unwrap().0;
        }
        Ok(())
    }

    /// Waits until the audio of the next `duration` has come.
    ///
    /// # Errors
    /// If it takes more than 3 s longer.
    pub fn listen(&self, duration: Duration) -> anyhow::Result<()> {
        let heard = self.packets.lock().unwrap().len();
        let more = (duration.as_millis() / PTIME.as_millis()) as usize;
        self.wait_for_packets(heard + more, duration + Duration::from_secs(3))
    }

    /// The audio in order of its timestamps, at 8 kHz; what is missing is silence.
    pub fn audio(&self, codec: Codec) -> Vec<f32> {
        let packets = self.packets.lock().unwrap();
        let audio = packets.iter().filter(|it| it.payload_type == codec.payload_type());
        let mut samples: Vec<f32> = Vec::new();
        let mut start = None;
        for packet in audio {
            let start = *start.get_or_insert(packet.timestamp);
            let at = packet.timestamp.wrapping_sub(start) as usize;
            if at > PACKETS_MAX * SAMPLES_PER_PACKET {
                continue; // Before the first packet, or absurd.
            }
            let decoded = codec.decode(&packet.payload);
            samples.resize(samples.len().max(at + decoded.len()), 0.0);
            samples[at..at + decoded.len()].copy_from_slice(&decoded);
        }
        samples
    }

    /// The longest time between the arrivals of two packets in a row.
    pub fn longest_gap(&self) -> Duration {
        let packets = self.packets.lock().unwrap();
        let gaps = packets.windows(2).map(|pair| pair[1].arrival - pair[0].arrival);
        gaps.max().unwrap_or_default()
    }

    /// The first fault in the stream's numbers: another SSRC, a lost or repeated packet, a timestamp
    /// that does not follow. A marker bit excuses a pause of up to a second before it (RFC 3551 §4.1).
    /// Events of RFC 4733 share timestamps and are left out.
    pub fn discontinuity(&self) -> Option<String> {
        let packets = self.packets.lock().unwrap();
        packets.windows(2).find_map(|pair| {
            let (a, b) = (&pair[0], &pair[1]);
            let lasted = a.payload.len() as u32;
            if a.ssrc != b.ssrc {
                Some(format!("SSRC {:08x} became {:08x}", a.ssrc, b.ssrc))
            } else if b.sequence != a.sequence.wrapping_add(1) {
                Some(format!("sequence number {} follows {}", b.sequence, a.sequence))
            } else if excused(a, b) {
                None
            } else if b.timestamp != a.timestamp.wrapping_add(lasted) {
                Some(format!("timestamp {} follows {} + {lasted}", b.timestamp, a.timestamp))
            } else {
                None
            }
        })
    }
}

/// Whether timestamps need not follow: events, and the marked end of a pause.
fn excused(a: &Packet, b: &Packet) -> bool {
    let events = [a, b].iter().any(|it| it.payload_type == TELEPHONE_EVENT);
    events || b.marker && b.timestamp.wrapping_sub(a.timestamp) <= PAUSE_MAX_TICKS
}

impl RtpPort {
    pub(crate) fn bind() -> anyhow::Result<Self> {
        let socket = even_port()?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let port = Self {
            local: socket.local_addr()?,
            ear: Arc::new(Ear::default()),
            mouth: Arc::new(Mutex::new(Mouth::new(socket.local_addr()?.port()))),
            stopped: Arc::default(),
        };
        let (ear, stopped, talking) = (port.ear.clone(), port.stopped.clone(), socket.try_clone()?);
        std::thread::spawn(move || listen(&socket, &ear, &stopped));
        let (mouth, stopped) = (port.mouth.clone(), port.stopped.clone());
        std::thread::spawn(move || talk(&talking, &mouth, &stopped));
        Ok(port)
    }

    pub(crate) fn talk_to(&self, remote: SocketAddr) {
        self.mouth.lock().unwrap().remote = Some(remote);
    }

    pub(crate) fn speak(&self, payload_type: u8, payload: Vec<u8>) {
        let mut mouth = self.mouth.lock().unwrap();
        mouth.payload_type = payload_type;
        mouth.payload = payload;
        mouth.said = 0;
    }

    /// A second of silence, unless something is said.
    pub(crate) fn breathe(&self, codec: Codec) {
        let mut mouth = self.mouth.lock().unwrap();
        let silence = codec.encode(&[0.0; SAMPLES_PER_PACKET]);
        mouth.breath = Some((codec.payload_type(), silence, BREATH_PACKETS));
    }

    pub(crate) fn hush(&self) {
        self.mouth.lock().unwrap().payload.clear();
    }

    pub(crate) fn press(&self, digit: char) {
        self.mouth.lock().unwrap().presses.push(digit);
    }
}

impl Drop for RtpPort {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// RTP ports are even (RFC 3550 §11); the odd one above stays free for RTCP as far as we care.
fn even_port() -> std::io::Result<UdpSocket> {
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        if socket.local_addr()?.port() % 2 == 0 {
            return Ok(socket);
        }
    }
}

fn listen(socket: &UdpSocket, ear: &Ear, stopped: &AtomicBool) {
    let mut datagram = [0; 2048];
    while !stopped.load(Ordering::Relaxed) {
        let Ok((len, _)) = socket.recv_from(&mut datagram) else { continue };
        let arrival = Instant::now();
        let Some(packet) = parse(&datagram[..len], arrival) else { continue };
        let mut packets = ear.packets.lock().unwrap();
        if packets.len() < PACKETS_MAX {
            packets.push(packet);
        }
        ear.grown.notify_all();
    }
}

/// RFC 3550 §5.1, without CSRCs, extension or padding: nothing we talk to needs them here.
fn parse(datagram: &[u8], arrival: Instant) -> Option<Packet> {
    if datagram.len() < 12 || datagram[0] != 0x80 {
        return None;
    }
    let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|i| datagram[at + i]));
    Some(Packet {
        arrival,
        marker: datagram[1] & 0x80 != 0,
        payload_type: datagram[1] & 0x7f,
        sequence: word(0) as u16,
        timestamp: word(4),
        ssrc: word(8),
        payload: datagram[12..].to_vec(),
    })
}

/// One packet every 20 ms by an absolute schedule.
fn talk(socket: &UdpSocket, mouth: &Mutex<Mouth>, stopped: &AtomicBool) {
    let mut due = Instant::now();
    while !stopped.load(Ordering::Relaxed) {
        due += PTIME;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut mouth = mouth.lock().unwrap();
        let Some(remote) = mouth.remote else { continue };
        let packets = mouth.packets();
        drop(mouth);
        for packet in packets {
            let _ = socket.send_to(&packet, remote);
        }
    }
}

impl Mouth {
    fn new(port: u16) -> Self {
        Self {
            remote: None,
            payload_type: 0,
            payload: Vec::new(),
            said: 0,
            presses: Vec::new(),
            breath: None,
            sequence: port,
            timestamp: u32::from(port) << 8,
            ssrc: 0x5000_0000 | u32::from(port),
        }
    }

    /// What is due in this slot: a whole press (in fast motion; its timestamps say how long it
    /// lasted), or 20 ms of speech, or nothing.
    fn packets(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        if let Some(digit) = self.presses.pop() {
            let code = "0123456789*#ABCD".find(digit).expect("a DTMF digit") as u8;
            for nth in 1..=PRESS_PACKETS {
                packets.push(self.event(code, false, nth * SAMPLES_PER_PACKET as u16, nth == 1));
            }
            for _ in 0..END_REPEATS {
                packets.push(self.event(
                    code,
                    true,
                    (PRESS_PACKETS + 1) * SAMPLES_PER_PACKET as u16,
                    false,
                ));
            }
            self.timestamp = self.timestamp.wrapping_add(u32::from(PRESS_PACKETS + 1) * 160);
        } else if !self.payload.is_empty() {
            let said =
                (0..SAMPLES_PER_PACKET).map(|i| self.payload[(self.said + i) % self.payload.len()]);
            let said: Vec<u8> = said.collect();
            self.said += SAMPLES_PER_PACKET;
            packets.push(self.packet(self.payload_type, false, &said));
            self.timestamp = self.timestamp.wrapping_add(SAMPLES_PER_PACKET as u32);
        } else {
            if let Some((payload_type, silence, left @ 1..)) = self.breath.take() {
                packets.push(self.packet(payload_type, false, &silence));
                self.breath = Some((payload_type, silence, left - 1));
            }
            self.timestamp = self.timestamp.wrapping_add(SAMPLES_PER_PACKET as u32);
        }
        packets
    }

    /// RFC 4733 §2.3: event, end bit and volume, duration.
    fn event(&mut self, code: u8, end: bool, duration: u16, marker: bool) -> Vec<u8> {
        let [high, low] = duration.to_be_bytes();
        self.packet(TELEPHONE_EVENT, marker, &[code, if end { 0x8a } else { 0x0a }, high, low])
    }

    fn packet(&mut self, payload_type: u8, marker: bool, payload: &[u8]) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = vec![0x80, payload_type | if marker { 0x80 } else { 0 }];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(self.timestamp.to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend(payload);
        packet
    }
}
