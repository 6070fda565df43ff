//! Commands, datagrams, time and crashes in any order: the relay keeps its promises to the shell, and
//! in the end every port is free again.

use media::sdp::Remote;
use media::{
    Audio, Changed, Config, Detection, Digit, Join, Law, LeaveReason, Offer, Output, Play,
    PortPair, Relay, SendDigits, SessionSnapshot, Side,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PAIRS: usize = 6;
const SESSIONS_MAX: usize = 4;
const SESSIONS: [&str; 5] = ["s0", "s1", "s2", "s3", "s4"];
const CONFERENCES: [&str; 2] = ["red", "blue"];
/// Numbers of codecs and what else is offered; the last has nothing that we know.
const FORMATS: [&str; 6] = ["0", "8 101", "0 8 96 101", "9 0", "3 13", "77"];
const DIRECTIONS: [&str; 4] = ["sendrecv", "sendonly", "recvonly", "inactive"];
/// Packets that one side may be sent within one step of time.
const SENT_MAX: usize = 4_000;

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        self.0.split_off_first().copied()
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        Some(all[usize::from(self.byte()?) % all.len()])
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let len = usize::from(self.byte()?).min(self.0.len());
        self.0.split_off(..len).map(<[u8]>::to_vec)
    }
}

struct World {
    relay: Relay,
    start: Instant,
    now: Instant,
    audio: Arc<Audio>,
    snapshots: BTreeMap<String, SessionSnapshot>,
}

pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut world = World::new();
    while world.step(&mut input).is_some() {
        world.look();
    }
    world.end();
}

fn relay(now: Instant, unix: Duration) -> Relay {
    let config = Config {
        address: "198.51.100.1".parse().unwrap(),
        bound: "198.51.100.1".parse().unwrap(),
        rtp_ports: 20_000..=20_000 + 2 * PAIRS as u16 - 1,
        port_quarantine: Duration::from_secs(1),
        inactivity: Duration::from_secs(2),
        recording_max: Duration::from_secs(5),
        sessions_max: SESSIONS_MAX,
        codecs: media::Codec::ALL.to_vec(),
    };
    let mut relay = Relay::new(config, [1; 32], now, unix).unwrap();
    relay.note_changes();
    relay
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let codes = (0..777).map(|it| it as u8).collect();
        let audio = Arc::new(Audio::from_codes(Law::Pcmu, codes).unwrap());
        let relay = relay(now, Duration::from_secs(1_000));
        Self { relay, start: now, now, audio, snapshots: BTreeMap::new() }
    }

    /// One operation; none at the end of the input.
    fn step(&mut self, input: &mut Input<'_>) -> Option<()> {
        let now = self.now;
        let operation = input.byte()?;
        let session = input.of(&SESSIONS)?;
        let side = input.of(&Side::BOTH)?;
        match operation % 20 {
            0 | 1 => {
                let sdp = self.sdp(input)?;
                self.offer(session, side, Remote::parse(sdp.as_bytes()).ok());
            }
            2 => self.offer(session, side, None),
            3 => {
                if let Ok(remote) = Remote::parse(self.sdp(input)?.as_bytes()) {
                    let _ = self.relay.answer(now, session, side, remote);
                }
            }
            4 => _ = self.relay.delete(now, session, Some(side)),
            5 => _ = self.relay.delete(now, session, None),
            6 => {
                let how = input.byte()?;
                let play = self.play(how & 1 != 0, how & 2 != 0, u32::from(how >> 2));
                let _ = self.relay.play(now, session, side, play);
            }
            7 => _ = self.relay.stop(now, session, side),
            8 => _ = self.relay.connect(now, session),
            9 => _ = self.relay.join(now, session, side, input.of(&CONFERENCES)?),
            10 => _ = self.relay.leave(now, session, side, LeaveReason::Left),
            11 => {
                let port = 20_000 + u16::from(input.byte()? % (2 * PAIRS as u8 + 2));
                let source = address(input.byte()?);
                let _ = self.relay.handle_datagram(now, port, source, &input.bytes()?);
            }
            12 => self.run(Duration::from_millis(u64::from(input.byte()?) * 10)),
            14 => {
                let recorded = if input.byte()? & 1 == 0 { None } else { Some(side) };
                if let Ok(format) = self.relay.recording_format(session, recorded) {
                    self.relay.start_recording(now, session, "r", format).expect("it said so");
                }
            }
            15 => _ = self.relay.stop_recording(now, session),
            16 => {
                let digits =
                    vec!["5".parse::<Digit>().expect("it is one"); usize::from(input.byte()? % 64)];
                if let Ok(digits) = SendDigits::new(digits, 100, 100) {
                    let _ = self.relay.send_dtmf(now, session, side, &digits);
                }
            }
            17 => {
                let how = input.byte()?;
                let join = Join {
                    pin: if how & 1 == 0 { "" } else { "1" },
                    participants_max: usize::from(how >> 6),
                    music: (how & 2 != 0).then(|| self.play(true, false, 0)),
                    muted: how & 4 != 0,
                    deaf: how & 8 != 0,
                    ..Join::named(CONFERENCES[usize::from(how >> 4) % 2])
                };
                let _ = self.relay.join_with(now, session, side, join);
            }
            18 => {
                let how = input.byte()?;
                let (muted, deaf) = (Some(how & 1 != 0), Some(how & 2 != 0));
                let _ = self.relay.update_participant(now, session, side, muted, deaf);
            }
            19 => {
                let detection = [Detection::Auto, Detection::On, Detection::Off];
                let _ = self.relay.detect_dtmf(session, side, input.of(&detection)?);
            }
            _ => self.crash(Duration::from_millis(u64::from(input.byte()?) * 50)),
        }
        Some(())
    }

    fn play(&self, repeat: bool, radio: bool, offset_ms: u32) -> Play {
        let (play_id, file, audio) = ("p".into(), "f".into(), self.audio.clone());
        Play { play_id, file, audio, repeat, radio, offset_ms }
    }

    /// Of a remote anywhere, or of one who says that it is us.
    fn sdp(&self, input: &mut Input<'_>) -> Option<String> {
        let (formats, direction) = (input.of(&FORMATS)?, input.of(&DIRECTIONS)?);
        let how = input.byte()?;
        let (ip, port) = match how % 8 {
            0 => ("0.0.0.0".to_owned(), 4_000),
            1 => ("192.0.2.1".to_owned(), 0),
            2 | 3 => ("198.51.100.1".to_owned(), 20_000 + 2 * u16::from(how / 8) % 16),
            _ => ("192.0.2.1".to_owned(), 4_000 + u16::from(how)),
        };
        let ptime_ms = how / 3;
        Some(format!(
            "v=0\r\no=- 1 1 IN IP4 1.1.1.1\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP {formats}\r\na=rtpmap:101 telephone-event/8000\r\n\
             a=rtpmap:96 opus/48000/2\r\na=ptime:{ptime_ms}\r\na={direction}\r\n"
        ))
    }

    fn offer(&mut self, session_id: &str, side: Side, remote: Option<Remote>) {
        let offer = Offer { session_id, call_id: "c", owner: "o", side, remote };
        if self.relay.check_offer(&offer).is_err() {
            return;
        }
        let ports = match self.relay.needs_ports(session_id, side) {
            true => match self.relay.take_ports(self.now) {
                Ok(ports) => Some(ports),
                Err(_) => return,
            },
            false => None,
        };
        let _ = self.relay.offer(self.now, offer, ports);
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.relay.poll_timeout().filter(|it| *it <= until) {
            self.now = self.now.max(due);
            self.relay.handle_timeout(self.now);
            let next = self.relay.poll_timeout();
            assert!(next.is_none_or(|it| it > self.now), "it would spin");
            self.look();
        }
        self.now = until;
    }

    /// SIGKILL, and the next process some time later.
    fn crash(&mut self, gap: Duration) {
        self.now += gap;
        let unix = Duration::from_secs(1_000) + (self.now - self.start);
        let before = std::mem::replace(&mut self.relay, relay(self.now, unix));
        let snapshots = std::mem::take(&mut self.snapshots);
        assert_eq!(snapshots.len(), before.sessions(), "one for each");
        for snapshot in snapshots.values() {
            for side in snapshot.sides.iter().flatten() {
                self.relay.reserve_ports(side.rtp_port).expect("each port is in one session");
            }
            let resumed = self.relay.restore(self.now, snapshot).expect("it is one of ours");
            for it in resumed {
                let duration_ms = self.audio.duration_ms();
                let Some(offset_ms) = it.play.offset_after(it.age, duration_ms) else { continue };
                let play = Play {
                    play_id: it.play.play_id.as_str().into(),
                    file: it.play.file.as_str().into(),
                    audio: self.audio.clone(),
                    repeat: it.play.repeat,
                    radio: it.play.radio,
                    offset_ms,
                };
                match it.is_conference_music {
                    // If that is full, one is in none.
                    true => {
                        _ = self.relay.resume_conference_music(
                            self.now,
                            &it.session_id,
                            it.side,
                            play,
                        )
                    }
                    false => self.relay.play(self.now, &it.session_id, it.side, play).unwrap(),
                }
            }
        }
        assert_eq!(
            (self.relay.sessions(), self.relay.sides()),
            (before.sessions(), before.sides())
        );
        let members = |it: &Relay, conference| {
            let conference = it.conference(self.now, conference)?;
            let members = conference.participants.into_iter();
            let mut members: Vec<_> =
                members.map(|it| (it.session_id, it.side, it.muted, it.deaf)).collect();
            members.sort();
            Some((members, conference.participants_max, conference.has_pin))
        };
        for conference in CONFERENCES {
            assert_eq!(members(&before, conference), members(&self.relay, conference));
        }
        let all = |it: &Relay| {
            let mut all = it.sessions_after(self.now, None, "", SESSIONS_MAX);
            all.sort_by(|a, b| a.session_id.cmp(&b.session_id));
            all
        };
        for (before, after) in all(&before).iter().zip(&all(&self.relay)) {
            assert_eq!((&before.session_id, &before.owner), (&after.session_id, &after.owner));
            for (before, after) in before.sides.iter().zip(&after.sides) {
                assert_eq!(
                    (before.side, before.rtp_port, before.codec, before.signalled),
                    (after.side, after.rtp_port, after.codec, after.signalled)
                );
            }
        }
    }

    /// Drains what comes out, as the shell does.
    fn look(&mut self) {
        assert!(self.relay.sessions() <= SESSIONS_MAX);
        assert!(self.relay.sides() <= PAIRS);
        assert!(self.relay.transmits().count() <= SENT_MAX);
        self.relay.clear_transmits();
        while let Some(output) = self.relay.poll_output() {
            if let Output::Encode(audio, form) = output {
                audio.encode(form);
            }
        }
        while let Some(changed) = self.relay.poll_changed(self.now) {
            match changed {
                Changed::Lives(it) => _ = self.snapshots.insert(it.session_id.clone(), *it),
                Changed::Gone(id) => _ = self.snapshots.remove(&*id),
            }
        }
    }

    fn end(&mut self) {
        for session in SESSIONS {
            self.relay.delete(self.now, session, None);
        }
        self.look();
        assert_eq!((self.relay.sessions(), self.relay.sides()), (0, 0));
        assert_eq!(self.relay.poll_timeout(), None, "nothing is left to be done");
        assert!(self.snapshots.is_empty());
        let later = self.now + Duration::from_secs(1);
        let mut pairs: Vec<PortPair> =
            (0..PAIRS).map(|_| self.relay.take_ports(later).expect("all are free")).collect();
        pairs.sort();
        pairs.dedup();
        assert_eq!(pairs.len(), PAIRS);
        assert!(self.relay.take_ports(later).is_err(), "and there are no more");
    }
}

fn address(way: u8) -> SocketAddr {
    let ip = if way & 1 == 0 { [192, 0, 2, 1] } else { [203, 0, 113, way] };
    SocketAddr::from((ip, 4_000 + u16::from(way)))
}
