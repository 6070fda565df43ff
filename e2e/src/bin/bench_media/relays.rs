//! The relays that are compared: ours, rtpengine in user space, and the bare forwarder. Each is a
//! process of its own on processor 0; the phones have processor 1.

use crate::ng::Ng;
use crate::phones::Phones;
use crate::rtpproxy;
use anyhow::{Context as _, bail};
use e2e::{Process, binary, free_port};
use proto::media_relay::v1::media_relay_client::MediaRelayClient;
use proto::media_relay::v1::{
    AnswerRequest, ConnectRequest, DeleteRequest, JoinRequest, OfferRequest, PlayRequest, Side,
};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

/// Ports of the relays: enough for 5,000 sessions of four.
const RTP_PORTS: (u16, u16) = (20_000, 49_999);
const READY_LIMIT: Duration = Duration::from_secs(10);
/// Commands that are under way at the same time.
const CONCURRENCY: usize = 16;

/// Descriptors of a relay that are not for ports.
const FILES_BESIDES: usize = 1_000;

/// How many ports the relays may have open: those with a socket for each are limited by descriptors.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    pub ours: usize,
    pub peer: usize,
}

impl Ports {
    /// With so many descriptors, and these flags of media-relay.
    pub(crate) fn new(files: usize, flags: &[String]) -> Self {
        let peer = files.saturating_sub(FILES_BESIDES);
        let is_plain = flags.iter().any(|it| it.contains("plain"));
        Self { ours: if is_plain { peer } else { usize::MAX }, peer }
    }
}

/// What a phone speaks.
#[derive(Clone, Copy)]
pub(crate) struct Format {
    pub number: u8,
    name: &'static str,
}

impl Format {
    pub(crate) const PCMU: Self = Self { number: 0, name: "PCMU" };
    /// Its clock rate is 8,000 Hz too (RFC 3551 §4.5.2).
    pub(crate) const G722: Self = Self { number: 9, name: "G722" };
}

/// What a phone offers and answers.
fn sdp(phone: usize) -> String {
    sdp_in(phone, Format::PCMU)
}

fn sdp_in(phone: usize, Format { number, name }: Format) -> String {
    let at = Phones::address(phone);
    format!(
        "v=0\r\no=- {phone} 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP {number} 101\r\na=rtpmap:{number} {name}/8000\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\n",
        ip = at.ip(),
        port = at.port()
    )
}

/// Where an SDP wants audio.
fn target(sdp: &str) -> anyhow::Result<SocketAddrV4> {
    let word = |prefix: &str, nth: usize| {
        let line = sdp.lines().find(|it| it.starts_with(prefix))?;
        line.split_whitespace().nth(nth)
    };
    let ip: Ipv4Addr = word("c=", 2).context("find c=")?.parse()?;
    let port = word("m=audio", 1).context("find m=audio")?.parse()?;
    Ok(SocketAddrV4::new(ip, port))
}

fn on_first_cpu(program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(program);
    command
}

/// media-relay.
pub(crate) struct Ours {
    process: Process,
    rtpproxy: SocketAddr,
    client: MediaRelayClient<Channel>,
}

impl Ours {
    pub(crate) async fn start(media: &Path, flags: &[String]) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut command = on_first_cpu(&binary("media-relay")?);
        command.args(["--grpc", &format!("127.0.0.1:{port}")]);
        command.args(["--rtp-ports", &format!("{}-{}", RTP_PORTS.0, RTP_PORTS.1)]);
        command.args(["--port-quarantine", "0s", "--drain", "1s"]);
        let rtpproxy = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        command.arg("--rtpproxy-listen").arg(format!("udp:{rtpproxy}"));
        command.arg("--media-dir").arg(media).args(flags);
        let process = Process::spawn("media-relay", &mut command)?;
        process.wait_for("that it serves", READY_LIMIT, |line| {
            (line.contains("serving") && line.contains("grpc")).then_some(())
        })?;
        let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?.connect().await?;
        Ok(Self { process, rtpproxy, client: MediaRelayClient::new(channel) })
    }

    /// A client of its rtpproxy protocol.
    pub(crate) fn rtpproxy(&self) -> anyhow::Result<rtpproxy::Client> {
        rtpproxy::Client::new(self.rtpproxy)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How it says that it moves packets.
    pub(crate) fn packet_path(&self) -> String {
        let output = self.process.output();
        let path =
            output.lines().find_map(|it| it.split_once(r#""packet_path":""#)?.1.split_once('"'));
        path.map_or_else(String::new, |(path, _)| path.to_owned())
    }

    /// Connects phones 2n and 2n+1 for all `sessions`; where each phone must send.
    pub(crate) async fn connect(&self, sessions: usize) -> anyhow::Result<Vec<SocketAddrV4>> {
        let pairs = self.for_each(sessions, connect).await?;
        Ok(pairs.into_iter().flatten().collect())
    }

    /// Makes sessions `from..to` with one side each, which hears `file` for ever.
    pub(crate) async fn play(&self, from: usize, to: usize, file: &str) -> anyhow::Result<()> {
        let file = file.to_owned();
        self.for_each(to - from, move |client, nth| play(client, from + nth, file.clone())).await?;
        Ok(())
    }

    /// Puts phones `0..count` into one conference; where each must send.
    pub(crate) async fn join(
        &self,
        count: usize,
        format: Format,
    ) -> anyhow::Result<Vec<SocketAddrV4>> {
        self.for_each(count, move |client, nth| join(client, nth, format)).await
    }

    pub(crate) async fn delete(&self, sessions: usize) -> anyhow::Result<()> {
        self.for_each(sessions, |mut client, nth| async move {
            let request = DeleteRequest { session_id: session_id(nth), ..Default::default() };
            client.delete(request).await.context("delete a session")?;
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Does `what` for 0..count, some at a time; the results in order.
    async fn for_each<R: Send + 'static, F>(
        &self,
        count: usize,
        what: impl Fn(MediaRelayClient<Channel>, usize) -> F + Clone + Send + 'static,
    ) -> anyhow::Result<Vec<R>>
    where
        F: Future<Output = anyhow::Result<R>> + Send,
    {
        let mut workers = JoinSet::new();
        for worker in 0..CONCURRENCY {
            let (client, what) = (self.client.clone(), what.clone());
            workers.spawn(async move {
                let mut results = Vec::new();
                for nth in (worker..count).step_by(CONCURRENCY) {
                    results.push((nth, what(client.clone(), nth).await?));
                }
                anyhow::Ok(results)
            });
        }
        let mut results = Vec::with_capacity(count);
        while let Some(done) = workers.join_next().await {
            results.extend(done??);
        }
        results.sort_by_key(|(nth, _)| *nth);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }
}

fn session_id(nth: usize) -> String {
    format!("018f0000-0000-7000-8000-{nth:012x}")
}

fn offer(nth: usize, side: Side, sdp: String) -> OfferRequest {
    let session_id = session_id(nth);
    OfferRequest {
        call_id: session_id.clone(),
        session_id,
        side: side.into(),
        sdp: sdp.into_bytes(),
        owner: "bench".to_owned(),
        signalling_source: match side {
            Side::A => Phones::address(2 * nth).ip().to_string(),
            _ => Phones::address(2 * nth + 1).ip().to_string(),
        },
        music: String::new(),
    }
}

async fn connect(
    mut client: MediaRelayClient<Channel>,
    nth: usize,
) -> anyhow::Result<[SocketAddrV4; 2]> {
    let session_id = session_id(nth);
    let a = client.offer(offer(nth, Side::A, sdp(2 * nth))).await.context("offer A")?.into_inner();
    let b = client.offer(offer(nth, Side::B, String::new())).await.context("offer B")?;
    let answer = AnswerRequest {
        session_id: session_id.clone(),
        side: Side::B.into(),
        sdp: sdp(2 * nth + 1).into_bytes(),
    };
    client.answer(answer).await.context("answer B")?;
    client.connect(ConnectRequest { session_id, ..Default::default() }).await.context("connect")?;
    let target = |sdp: Vec<u8>| target(&String::from_utf8_lossy(&sdp));
    Ok([target(a.sdp)?, target(b.into_inner().sdp)?])
}

async fn play(
    mut client: MediaRelayClient<Channel>,
    nth: usize,
    file: String,
) -> anyhow::Result<()> {
    let mut request = offer(nth, Side::A, sdp(nth));
    request.signalling_source = Phones::address(nth).ip().to_string();
    client.offer(request).await.context("offer")?;
    let request = PlayRequest {
        session_id: session_id(nth),
        side: Side::A.into(),
        file,
        r#loop: true,
        ..Default::default()
    };
    client.play(request).await.context("play")?;
    Ok(())
}

async fn join(
    mut client: MediaRelayClient<Channel>,
    nth: usize,
    format: Format,
) -> anyhow::Result<SocketAddrV4> {
    let mut request = offer(nth, Side::A, sdp_in(nth, format));
    request.signalling_source = Phones::address(nth).ip().to_string();
    let described = client.offer(request).await.context("offer")?.into_inner();
    let request = JoinRequest {
        session_id: session_id(nth),
        side: Side::A.into(),
        conference: "bench".to_owned(),
        ..Default::default()
    };
    client.join(request).await.context("join")?;
    target(&String::from_utf8_lossy(&described.sdp))
}

/// Debian's rtpengine, without its kernel module.
pub(crate) struct Rtpengine {
    process: Process,
    ng: Ng,
}

impl Rtpengine {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut command = on_first_cpu(Path::new("rtpengine"));
        command.args(["--table=-1", "--interface=127.0.0.1", "--foreground", "--log-stderr"]);
        command.args(["--log-level=4", "--no-log-timestamps"]);
        command.arg(format!("--listen-ng=127.0.0.1:{port}"));
        command.arg(format!("--port-min={}", RTP_PORTS.0));
        command.arg(format!("--port-max={}", RTP_PORTS.1));
        let process = Process::spawn("rtpengine", &mut command)?;
        let mut ng = Ng::new(SocketAddr::from(([127, 0, 0, 1], port)))?;
        for _ in 0..100 {
            if ng.ask("ping", &[], "").is_ok() {
                return Ok(Self { process, ng });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("start rtpengine: {}", process.output())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// As [`Ours::connect`].
    pub(crate) fn connect(&mut self, sessions: usize) -> anyhow::Result<Vec<SocketAddrV4>> {
        let mut targets = Vec::with_capacity(2 * sessions);
        for nth in 0..sessions {
            targets.extend(self.connect_one(nth)?);
        }
        Ok(targets)
    }

    fn connect_one(&mut self, nth: usize) -> anyhow::Result<[SocketAddrV4; 2]> {
        let call_id = session_id(nth);
        let tags = [("call-id", call_id.as_str()), ("from-tag", "a")];
        let (offer, answer) = (sdp(2 * nth), sdp(2 * nth + 1));
        let to_b = self.ng.ask("offer", &[&tags[..], &[("sdp", &offer)]].concat(), "sdp")?;
        let pairs = [&tags[..], &[("to-tag", "b"), ("sdp", &answer)]].concat();
        let to_a = self.ng.ask("answer", &pairs, "sdp")?;
        Ok([target(&to_a)?, target(&to_b)?])
    }

    /// As [`Ours::play`]; a session has a second side that is silent.
    pub(crate) fn play(&mut self, from: usize, to: usize, file: &Path) -> anyhow::Result<()> {
        let file = file.to_str().context("name the file in UTF-8")?;
        for nth in from..to {
            let call_id = session_id(nth);
            let (offer, answer) = (sdp(nth), sdp(SILENT_PHONE));
            let tags = [("call-id", call_id.as_str()), ("from-tag", "a")];
            self.ng.ask("offer", &[&tags[..], &[("sdp", &offer)]].concat(), "")?;
            self.ng.ask(
                "answer",
                &[&tags[..], &[("to-tag", "b"), ("sdp", &answer)]].concat(),
                "",
            )?;
            let pairs = [&tags[..], &[("file", file), ("repeat-times", "100000")]].concat();
            self.ng.ask("play media", &pairs, "")?;
        }
        Ok(())
    }
}

/// A phone that nobody counts.
const SILENT_PHONE: usize = 100_000;

/// The bare forwarder: this program, once more.
pub(crate) struct Ceiling {
    process: Process,
    at: SocketAddrV4,
}

impl Ceiling {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("find this executable")?;
        let mut command = on_first_cpu(&program);
        command.args(["forward", &Phones::address(0).to_string()]);
        let process = Process::spawn("forwarder", &mut command)?;
        let at = process.wait_for("where it listens", READY_LIMIT, |line| {
            line.strip_prefix("listening on ")?.parse().ok()
        })?;
        Ok(Self { process, at })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// As [`Ours::connect`].
    pub(crate) fn connect(&self, sessions: usize) -> Vec<SocketAddrV4> {
        vec![self.at; 2 * sessions]
    }
}
