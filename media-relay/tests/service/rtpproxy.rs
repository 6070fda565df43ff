//! The rtpproxy protocol over its transports, with UDP sockets as Kamailio and as phones.

use crate::phone::Phone;
use crate::service::{LIMIT, Service};
use crate::sound::{self, melody};
use media::Codec;
use rtp_types::RtpPacket;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixStream};
use tokio::time::timeout;

/// A client over UDP, which counts its cookies.
struct Client {
    socket: UdpSocket,
    relay: SocketAddr,
    cookies: u32,
}

impl Client {
    async fn of(service: &Service) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        Self { socket, relay: address(service, "UDP"), cookies: 0 }
    }

    /// The reply to a command, without cookie and line feed.
    async fn ask(&mut self, command: &str) -> String {
        self.cookies += 1;
        let cookie = format!("7_{}", self.cookies);
        let reply = self.ask_with(&cookie, command).await;
        let reply = reply.strip_prefix(&format!("{cookie} ")).expect("our cookie").to_owned();
        reply.strip_suffix('\n').expect("a line").to_owned()
    }

    async fn ask_with(&self, cookie: &str, command: &str) -> String {
        let datagram = format!("{cookie} {command}");
        self.socket.send_to(datagram.as_bytes(), self.relay).await.unwrap();
        let mut buffer = vec![0; 2_048];
        let received = timeout(LIMIT, self.socket.recv_from(&mut buffer)).await;
        let (len, from) = received.expect("a reply in time").unwrap();
        assert_eq!(from, self.relay, "clients look at where it comes from");
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    /// The port of a reply, at the relay's address.
    async fn port(&mut self, command: &str) -> SocketAddr {
        let reply = self.ask(command).await;
        let port = reply.strip_suffix(" 127.0.0.1").unwrap_or_else(|| panic!("{reply:?}"));
        SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()))
    }

    async fn counter(&mut self, name: &str) -> u64 {
        self.ask(&format!("G {name}")).await.parse().unwrap()
    }
}

/// Where the service said that it serves the protocol.
fn address(service: &Service, transport: &str) -> SocketAddr {
    let wanted = format!("rtpproxy protocol over {transport}\"");
    let found = service.process.wait_for("that it serves the protocol", LIMIT, |line| {
        line.contains(&wanted).then_some(())?;
        line.split_once("Ok(")?.1.split_once(')')?.0.parse().ok()
    });
    found.unwrap()
}

async fn started(more: &[&str]) -> (Service, Client) {
    let flags = [&["--rtpproxy-listen", "udp:127.0.0.1:0"], more].concat();
    let service = Service::start(&flags).await;
    let client = Client::of(&service).await;
    (service, client)
}

async fn phone() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

async fn heard(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 2_048];
    let received = timeout(LIMIT, socket.recv(&mut buffer)).await;
    let len = received.expect("a datagram in time").unwrap();
    buffer.truncate(len);
    buffer
}

#[tokio::test]
async fn two_parties_hear_each_other_as_they_are() {
    let (service, mut client) = started(&[]).await;
    assert_eq!(client.ask("V").await, "20040107");
    for (date, known) in
        [("20050322", "1"), ("20071116", "1"), ("20081102", "1"), ("19990101", "0")]
    {
        assert_eq!(client.ask(&format!("VF {date}")).await, known);
    }
    assert_eq!(client.ask("VF 20081224").await, "0", "without --rtpproxy-notify");
    let ((a, a_port), (b, b_port)) = (phone().await, phone().await);
    let for_b = client.port(&format!("Uc0,101 call 127.0.0.1 {a_port} a;1")).await;
    let for_a = client.port(&format!("Lc0,101 call 127.0.0.1 {b_port} a;1 b;1")).await;
    assert_ne!(for_a, for_b);
    a.send_to(b"anything at all", for_a).await.unwrap();
    assert_eq!(heard(&b).await, b"anything at all");
    b.send_to(&[0x80, 96, 0, 1], for_b).await.unwrap();
    assert_eq!(heard(&a).await, [0x80, 96, 0, 1]);
    // Again, from either: the same ports.
    assert_eq!(client.port(&format!("U call 127.0.0.1 {b_port} b;1 a;1")).await, for_a);
    assert_eq!(client.port(&format!("L call 127.0.0.1 {a_port} b;1 a;1")).await, for_b);
    let told = client.ask("Q call a;1 b;1").await;
    assert!(told.ends_with(" 1 1 2 0"), "{told}");
    assert_eq!(client.ask("Qv call b;1 a;1 npkts_ina nrelayed").await, "npkts_ina=1 nrelayed=2");
    assert_eq!(client.ask("D call a b").await, "0");
    assert_eq!(client.ask("D call a b").await, "E50");
    assert_eq!(client.ask(&format!("L call 127.0.0.1 {b_port} a;1 b;1")).await, "0");
    assert!(client.ask("I").await.starts_with("sessions created: 1\nactive sessions: 0\n"));
    assert_eq!(client.counter("nsess_complete").await, 1);
    drop(service);
}

#[tokio::test]
async fn music_is_played_by_base_name_in_a_codec_of_the_caller() {
    let (service, mut client) = started(&[]).await;
    let wav = sound::wav(melody, 1_000, 8_000, 1);
    let code = |n: u32| {
        let sample = melody(f64::from(n) / 8_000.0) * 20_000.0;
        Codec::Pcma.law().unwrap().encode(sample as i16)
    };
    service.write("test.pcm.8", &(0..8_000).map(code).collect::<Vec<u8>>());
    service.write("only.wav", &wav);
    let (caller, port) = phone().await;
    client.port(&format!("Uc9,0,8 call 127.0.0.1 {port} a;1")).await;
    client.port("Lz30 call 127.0.0.1 1 a;1 b;1").await;
    let path = service.dir().join("test.pcm");
    for (name, number, bytes) in [(path.to_str().unwrap(), 8, 240), ("only", 9, 240)] {
        assert_eq!(client.ask(&format!("P-1 call {name} session a;1 b;1")).await, "0");
        loop {
            let packet = heard(&caller).await;
            let packet = RtpPacket::parse(&packet).unwrap();
            if packet.payload_type() == number {
                assert_eq!(packet.payload().len(), bytes, "{name}");
                break; // What came before it was on its way.
            }
        }
        assert_eq!(client.ask("S call a;1 b;1").await, "0");
    }
    assert_eq!(client.ask("P call none session a;1").await, "E60");
    assert_eq!(client.ask("P call ../only session a;1").await, "E60");
    assert_eq!(client.ask("P call only 18,97 a;1").await, "E60");
    assert_eq!(client.ask("P call only 0 x;1").await, "E50");
    assert_eq!(client.ask("P call only session b;1 a;1").await, "E35", "b has named no codecs");
    // Twice, and then no more.
    assert_eq!(client.ask("P2 call only 8 a;1").await, "0");
    let created = client.counter("nplrs_created").await;
    assert_ne!(client.counter("nplrs_destroyed").await, created, "it plays");
    let ended = async {
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        while client.counter("nplrs_destroyed").await != created {
            pace.tick().await;
        }
    };
    timeout(LIMIT, ended).await.expect("an end");
}

#[tokio::test]
async fn a_cookie_that_comes_five_times_is_done_once() {
    let (_service, mut client) = started(&[]).await;
    let first = client.ask_with("c", "U call 127.0.0.1 4000 a").await;
    for _ in 0..4 {
        assert_eq!(client.ask_with("c", "U call 127.0.0.1 4000 a").await, first);
        assert_eq!(client.ask_with("c", "X").await, first, "the cookie counts");
    }
    assert_eq!(client.counter("nsess_created").await, 1);
    assert_eq!(client.counter("ncmds_rcvd_ndups").await, 8);
    assert!(client.ask("I").await.contains("active sessions: 1\nactive streams: 2\n"));
    let mut other = Client { socket: UdpSocket::bind("127.0.0.1:0").await.unwrap(), ..client };
    assert_eq!(other.ask_with("c", "X").await, "c 0\n", "another client's is another");
    assert!(other.ask("I").await.contains("active sessions: 0\n"));
}

#[tokio::test]
async fn each_error_that_takes_more_than_words_has_its_code() {
    let (_service, mut client) = started(&["--max-sessions", "2"]).await;
    let own = client.port("U own 127.0.0.1 4000 a").await;
    assert_eq!(client.ask(&format!("L own {} {} a b", own.ip(), own.port())).await, "E37");
    assert_eq!(client.ask(&format!("C own udp:{own} a")).await, "E65");
    assert_eq!(client.ask("D own a").await, "0");
    let wrong = [
        ("U6 call 127.0.0.1 4000 a", "E36"),
        ("UL192.0.2.1 call 127.0.0.1 4000 a", "E31"),
        ("UR[::1] call 127.0.0.1 4000 a", "E32"),
        ("U call ::1 4000 a", "E32"),
        ("U call 127.0.0.1 4000 a tcp:127.0.0.1:9 tag", "E75"),
        ("U call 127.0.0.1 4000 a && M3:1 tag", "E75"),
        ("Q call a", "E50"),
        ("S call a", "E50"),
        ("R call a", "E50"),
        ("C call name a", "E50"),
        ("N call a", "E50"),
        ("G none", "E68"),
        ("UL127.0.0.1R127.0.0.9SWN call 127.0.0.1 4000 a", "2"),
        ("Q call a b none", "E62"),
        ("P call f session a", "E35"),
        ("R call a", "E65"),
        ("C call ../name a", "E65"),
        ("Cp call udp:127.0.0.1:4444 a", "2"),
        ("N call a", "0"),
        ("U call 127.0.0.1 4000 b", "2"),
        ("U call 127.0.0.1 4000 c", "E72"),
        ("D call a", "0"),
        ("Dw call a", "0"),
        ("U call 127.0.0.1 4000 c && Lc0 127.0.0.1 5000 && S ttl=9", "2"),
        ("Qv call c x ttl && S ttl=7", "ttl="),
    ];
    for (command, reply) in wrong {
        let got = client.ask(command).await;
        assert!(got.starts_with(reply), "{command}: {got}, wanted {reply}");
    }
    let many = |word: &str, times: usize| format!(" {word}").repeat(times);
    let long = client.ask(&format!("Gv{}", many("npkts_resizer_discard", 60))).await;
    assert_eq!(long, "E25");
    let long = client.ask(&format!("Qv call c x{}", many("npkts_ina", 120))).await;
    assert_eq!(long, "E26");
    let whole = format!("U{} 127.0.0.1", " ".repeat(8_192));
    assert_eq!(client.ask(&whole).await, "E5");
    assert_eq!(client.ask("X").await, "0");
}

#[tokio::test]
async fn ports_that_are_used_up_are_told_and_nothing_is_left_half() {
    let flags = ["--rtp-ports", "19100-19105", "--max-sessions", "3", "--port-quarantine", "0s"];
    let (_service, mut client) = started(&flags).await;
    client.port("U call 127.0.0.1 4000 a").await;
    for _ in 0..2 {
        assert_eq!(client.ask("U call 127.0.0.1 4000 b").await, "E71", "one pair is not enough");
    }
    assert!(client.ask("I").await.contains("active sessions: 1\nactive streams: 2\n"));
}

#[tokio::test]
async fn a_drain_refuses_new_sessions_and_keeps_the_old_ones() {
    let (mut service, mut client) = started(&["--drain", "30s"]).await;
    client.port("U call 127.0.0.1 4000 a").await;
    service.process.signal("TERM").unwrap();
    let draining = |line: &str| line.contains("\"draining\"").then_some(());
    service.process.wait_for("that it drains", LIMIT, draining).unwrap();
    assert_eq!(client.ask("U other 127.0.0.1 4000 a").await, "E99");
    client.port("L call 127.0.0.1 5000 a b").await;
    assert_eq!(client.ask("D call a").await, "0");
    service.process.wait(LIMIT).unwrap();
}

#[tokio::test]
async fn who_is_not_listed_gets_no_answer_and_does_nothing() {
    let (_service, mut client) = started(&["--rtpproxy-from", "127.0.0.2"]).await;
    let listed = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    client.socket.send_to(b"1 U call 127.0.0.1 4000 a", client.relay).await.unwrap();
    client = Client { socket: listed, ..client };
    assert_eq!(client.counter("nsess_created").await, 0);
    let answer = client.socket.try_recv(&mut [0; 9]);
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test]
async fn junk_is_answered_with_an_error_or_not_at_all_and_harms_nobody() {
    let (_service, client) = started(&[]).await;
    for junk in [&b""[..], b"\0", b"cookie", b"\xff\xfe \xff", &[b'A'; 9_000], b"c \0\0\0", b" \n"]
    {
        client.socket.send_to(junk, client.relay).await.unwrap();
    }
    let mut replies = Vec::new();
    loop {
        let reply = client.ask_with("end", "V").await;
        if reply == "end 20040107\n" {
            break;
        }
        replies.push(reply);
    }
    assert_eq!(replies, ["cookie E1\n", "c E5\n"]);
}

#[tokio::test]
async fn a_silent_session_ends_and_its_proxy_is_told_but_a_listener_stays() {
    let notified = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = notified.local_addr().unwrap().port();
    let wildcard = format!("tcp:%%CC_SELF%%:{port}");
    let flags = ["--rtpproxy-notify", &wildcard, "--rtpproxy-ttl", "1s"];
    let (service, mut client) = started(&flags).await;
    assert_eq!(client.ask("VF 20081224").await, "1");
    service.write("music.wav", &sound::wav(melody, 1_000, 8_000, 1));
    client.port("Uc0 listens 127.0.0.1 4000 a;1").await;
    assert_eq!(client.ask("P-1 listens music session a;1").await, "0");
    // As OpenSIPS asks for it: with an empty To tag, and without the socket's transport.
    client.port(&format!("U gone 127.0.0.1 4000 a;1 ;1 127.0.0.1:{port} gone%20tag")).await;
    client.port("L gone 127.0.0.1 5000 a;1 b;1").await;
    let (stream, _) = timeout(LIMIT, notified.accept()).await.unwrap().unwrap();
    let mut lines = BufReader::new(stream).lines();
    let line = timeout(LIMIT, lines.next_line()).await.unwrap().unwrap();
    assert_eq!(line.as_deref(), Some("gone tag"));
    assert_eq!(client.ask("Q gone a;1").await, "E50");
    let told = client.ask("Q listens a;1 x ttl").await;
    assert!(told.parse::<u32>().unwrap() > 3_000, "{told}");
    assert_eq!(client.counter("nsess_timeout").await, 1);
}

#[tokio::test]
async fn digits_are_told_to_who_asked_for_them() {
    let notified = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = format!("tcp:{}", notified.local_addr().unwrap());
    let (_service, mut client) = started(&["--rtpproxy-notify", &place]).await;
    let mut caller = Phone::new(Codec::Pcmu).await;
    let port = caller.socket.local_addr().unwrap().port();
    let command = format!("U call 127.0.0.1 {port} a;1 {place} over && M3:1 digits 101");
    let reply = client.ask(&command).await;
    assert!(reply.ends_with(" 127.0.0.1 && 0"), "{reply}");
    let relay = client.port("L call 127.0.0.1 5000 a;1 b;1").await;
    caller.relay_at(relay);
    caller.press(5, 8_000).await;
    let (stream, _) = timeout(LIMIT, notified.accept()).await.unwrap().unwrap();
    let mut lines = BufReader::new(stream).lines();
    let line = timeout(LIMIT, lines.next_line()).await.unwrap().unwrap();
    assert_eq!(line.as_deref(), Some("digits 5 10 60 0"));
}

#[tokio::test]
async fn streams_carry_commands_too() {
    let folder = tempfile::tempdir().unwrap();
    let (short, lasting) = (folder.path().join("short"), folder.path().join("lasting"));
    let flags = [
        format!("unix:{}", short.display()),
        format!("cunix:{}", lasting.display()),
        "tcp:127.0.0.1:0".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().flat_map(|it| ["--rtpproxy-listen", it]).collect();
    let (service, _client) = started(&flags).await;
    let mut once = UnixStream::connect(&short).await.unwrap();
    once.write_all(b"V").await.unwrap();
    let mut reply = String::new();
    once.read_to_string(&mut reply).await.unwrap();
    assert_eq!(reply, "20040107\n", "and then the connection ends");
    let tcp = TcpStream::connect(address(&service, "TCP")).await.unwrap();
    let (reading, mut writing) = tcp.into_split();
    writing.write_all(b"V\nVF 1\nU call 127.0").await.unwrap();
    writing.write_all(b".0.1 4000 a\n").await.unwrap();
    let mut lines = BufReader::new(reading).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("20040107"));
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("0"));
    assert!(lines.next_line().await.unwrap().unwrap().ends_with(" 127.0.0.1"));
    let (reading, mut writing) = UnixStream::connect(&lasting).await.unwrap().into_split();
    writing.write_all(b"D call a\nD call a\n").await.unwrap();
    writing.write_all(&[b'x'; 8_194]).await.unwrap();
    let mut lines = BufReader::new(reading).lines();
    for wanted in [Some("0"), Some("E50"), Some("E5"), None] {
        assert_eq!(lines.next_line().await.unwrap().as_deref(), wanted, "too long is the end");
    }
}

#[tokio::test]
async fn sessions_are_known_again_after_a_crash() {
    let state = tempfile::tempdir().unwrap();
    let state_dir = state.path().to_str().unwrap();
    let flags = ["--rtpproxy-listen", "udp:127.0.0.1:0", "--state-dir", state_dir];
    let service = Service::start(&flags).await;
    let mut client = Client::of(&service).await;
    let ((a, a_port), (b, b_port)) = (phone().await, phone().await);
    client.port(&format!("U call 127.0.0.1 {a_port} a;1")).await;
    let for_a = client.port(&format!("L call 127.0.0.1 {b_port} a;1 b;1")).await;
    let log = state.path().join("sessions.jsonl");
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    while !std::fs::read_to_string(&log).unwrap().contains(&format!("127.0.0.1:{b_port}")) {
        pace.tick().await;
    }
    let service = service.kill_and_start(&flags).await;
    let mut client = Client::of(&service).await;
    a.send_to(b"still here", for_a).await.unwrap();
    assert_eq!(heard(&b).await, b"still here");
    assert_eq!(client.port(&format!("L call 127.0.0.1 {b_port} a;1 b;1")).await, for_a);
    assert_eq!(client.ask("D call a;1 b;1").await, "0");
}

/// What Kamailio 5.6's modules sent, each datagram as it was, but for the folder of the music, and
/// what that of OpenSIPS would send by its source; and what they are answered: `P` for a port.
#[tokio::test]
async fn sequences_of_proxies_modules_are_answered_as_by_an_rtpproxy() {
    let (service, client) = started(&[]).await;
    service.write("test.pcm.8", &[0xd5; 8_000]);
    let folder = service.dir().display().to_string();
    let sequences = [
        (include_str!("sequences/mohqueue.txt"), "20040107 1 1 1 P P 0 0"),
        (include_str!("sequences/rtpproxy.txt"), "20040107 1 1 1 P P P 0"),
        (include_str!("sequences/opensips.txt"), "20040107 1 1 1 1 P P 0 0 0"),
    ];
    for (sequence, answers) in sequences {
        assert_eq!(sequence.lines().count(), answers.split(' ').count());
        for (line, answer) in sequence.lines().zip(answers.split(' ')) {
            let line = line.replace("{mohdir}", &folder);
            let (cookie, command) = line.split_once(' ').unwrap();
            for _ in 0..5 {
                let reply = client.ask_with(cookie, command).await;
                let words: Vec<&str> = reply.split_ascii_whitespace().collect();
                match (answer, &words[..]) {
                    ("P", [it, port, "127.0.0.1"]) => {
                        assert_eq!(*it, cookie);
                        assert!(port.parse::<u16>().unwrap() % 2 == 0, "{line}: {reply}");
                    }
                    _ => assert_eq!(words, [cookie, answer], "{line}"),
                }
            }
        }
    }
    let mut client = client;
    assert_eq!(client.counter("nsess_created").await, 4);
    assert_eq!(client.counter("nsess_destroyed").await, 4, "a bare tag means all media");
    assert_eq!(client.counter("ncmds_errs").await, 0);
}

#[tokio::test]
async fn a_call_is_recorded_into_a_file_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--recordings-dir", folder.path().to_str().unwrap()];
    let (_service, mut client) = started(&flags).await;
    let (caller, port) = phone().await;
    client.port(&format!("Uc0 call/7 127.0.0.1 {port} a;1")).await;
    let relay = client.port("Lc0 call/7 127.0.0.1 5000 a;1 b;1").await;
    assert_eq!(client.ask("R call/7 a b").await, "0");
    assert_eq!(client.ask("R call/7 a b").await, "0", "it goes on");
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    for n in 0..50u8 {
        pace.tick().await;
        let [high, low] = (u16::from(n) * 160).to_be_bytes();
        let header = [0x80, 0, 0, n, 0, 0, high, low, 0, 0, 0, 9];
        let packet = [&header[..], &[0x80; 160]].concat();
        caller.send_to(&packet, relay).await.unwrap();
    }
    assert_eq!(client.ask("Na call/7 a b").await, "0");
    assert_eq!(client.ask("C call/7 of-a a;1 b;1").await, "0");
    assert_eq!(client.ask("D call/7 a b").await, "0");
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let written = async {
        loop {
            pace.tick().await;
            let files = std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
            let mut names: Vec<String> = files
                .filter(|it| it.metadata().unwrap().len() > 44)
                .map(|it| it.file_name().into_string().unwrap())
                .collect();
            names.sort();
            if let [whole, ..] = &names[..] {
                return whole.clone();
            }
        }
    };
    let name = timeout(LIMIT, written).await.expect("a recording");
    assert!(name.starts_with("call_7=a_1-") && name.ends_with(".wav"), "{name}");
    assert!(folder.path().join("of-a.wav").exists());
}
