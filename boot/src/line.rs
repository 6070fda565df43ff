//! A connection to NATS that only publishes, writes only while this process may act, and says what the
//! server has taken, or what JetStream keeps.
//!
//! The client library buffers what it publishes, and sends it whenever it can: a process that stood
//! still past its right to act would publish when it wakes. Here what is written goes to the socket at
//! once, and the socket is behind a [`Gate`]. A server handles what comes by one connection in order,
//! so its PONG to the PING behind a batch says that it has all of it. JetStream confirms each message
//! by itself, to an inbox of the connection with the number of the message in it.

mod said;

use crate::gated::{Gate, Gated};
use crate::login::Login;
use anyhow::{Context as _, bail, ensure};
use async_nats::{ConnectInfo, Protocol, ServerInfo};
use said::{Said, frame_len};
use std::io::{self, ErrorKind, Write as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long NATS may take to let us in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// What a server says at once, in bytes: its greeting names a cluster at most.
const SAID_MAX: usize = 65_536;
/// A batch is written in pieces of about so many bytes.
const PIECE_BYTES: usize = 65_536;

/// A connection to NATS of one period of its [`Gate`]. One that has failed is of no use any more.
pub struct Line {
    stream: BufReader<Box<dyn Stream>>,
    period: u32,
    payload_max: usize,
    /// Of what the server says at present.
    said: Vec<u8>,
    /// Where JetStream confirms; empty until it is asked to.
    inbox: String,
    /// Messages that it was asked to confirm.
    stored: u64,
}

/// What is to be published.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Printable ASCII without a space.
    pub subject: &'a str,
    /// `Nats-Msg-Id`: the same for the same message, however often it is sent. Printable ASCII.
    pub id: &'a str,
    pub payload: &'a [u8],
}

/// A message that NATS does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its place in the batch.
    pub at: usize,
    pub why: String,
    /// It never will, whatever the operator does.
    pub for_ever: bool,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Line {
    /// Connects (with TLS if the URL is `tls://`, or the server wants it) under `name` in the server's
    /// lists.
    ///
    /// # Errors
    /// If the gate is closed, or NATS does not let us in within 2 s.
    pub async fn connect(name: &str, login: &Login, gate: Gate) -> anyhow::Result<Self> {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, Self::greet(name, login, gate)).await;
        connected.with_context(|| format!("no answer in {CONNECT_TIMEOUT:?}"))?
    }

    async fn greet(name: &str, login: &Login, gate: Gate) -> anyhow::Result<Self> {
        let address = login.server();
        let stream = Gated::connect(gate, address.host(), address.port()).await?;
        let period = stream.period();
        let mut line = Self::new(Box::new(stream), period);
        let info = line.say().await?;
        let info = info.strip_prefix(b"INFO ").context("got another greeting than INFO")?;
        let info: ServerInfo = serde_json::from_slice(info).context("read INFO")?;
        ensure!(info.headers, "the server takes no headers (wanted NATS 2.2 or later)");
        let tls_required = address.tls_required() || info.tls_required;
        if tls_required {
            ensure!(line.stream.buffer().is_empty(), "the server says more before TLS");
            let stream = secure(address.host(), line.stream.into_inner()).await?;
            line = Self::new(stream, period);
        }
        line.payload_max = info.max_payload;
        let mut connect = connect_info(name, tls_required);
        login.prove(&info, &mut connect).context("log in")?;
        let connect = serde_json::to_string(&connect)?;
        line.write(format!("CONNECT {connect}\r\nPING\r\n").as_bytes()).await?;
        loop {
            match line.next().await? {
                Said::Pong => return Ok(line),
                Said::Forbidden(subject) => bail!("the server forbids {subject:?}"),
                Said::Ping | Said::Kept(_) | Said::NotKept(..) | Said::Nothing => {}
            }
        }
    }

    fn new(stream: Box<dyn Stream>, period: u32) -> Self {
        let (said, inbox) = (Vec::new(), String::new());
        Self { stream: BufReader::new(stream), period, payload_max: 0, said, inbox, stored: 0 }
    }

    /// The period in which it may write.
    pub fn period(&self) -> u32 {
        self.period
    }

    /// Returns once the server has all of the messages, but for those that it will never take, which
    /// come back in the order of their places.
    ///
    /// # Errors
    /// If the connection has ended, or this process may not act any more. Any of the messages may have
    /// been taken nevertheless. The same if this is dropped before it has returned.
    pub async fn publish<'a>(
        &mut self,
        messages: impl Iterator<Item = Message<'a>> + Clone,
    ) -> io::Result<Vec<Refused>> {
        let (mut refused, mut piece) = (Vec::new(), Vec::new());
        for (at, message) in messages.clone().enumerate() {
            match message.payload.len() + message.header().len() > self.payload_max {
                true => refused.push(self.too_long(at, &message)),
                false => message.encode(None, &mut piece),
            }
            if piece.len() >= PIECE_BYTES {
                self.write(&piece).await?;
                piece.clear();
            }
        }
        piece.extend(b"PING\r\n");
        self.write(&piece).await?;
        loop {
            match self.next().await? {
                Said::Pong => break,
                Said::Forbidden(subject) => {
                    let forbidden =
                        messages.clone().enumerate().filter(|it| it.1.subject == subject);
                    refused.extend(forbidden.map(|(at, _)| not_permitted(at)));
                }
                Said::Ping => self.write(b"PONG\r\n").await?,
                Said::Kept(_) | Said::NotKept(..) | Said::Nothing => {}
            }
        }
        refused.sort_unstable_by_key(|it| it.at);
        refused.dedup_by_key(|it| it.at);
        Ok(refused)
    }

    /// Has JetStream keep the messages; returns once it has said of each whether it does. The places of
    /// those that it keeps are put into `kept` as it says so, whatever comes of the rest; of the others
    /// the reasons come back, by place.
    ///
    /// # Errors
    /// As [`Line::publish`]. JetStream may also not answer at all: the caller has the time limit.
    pub(crate) async fn store(
        &mut self,
        messages: &[Message<'_>],
        kept: &mut Vec<usize>,
    ) -> io::Result<Vec<Refused>> {
        let mut piece = Vec::new();
        if self.inbox.is_empty() {
            self.inbox = format!("_INBOX.{}", uuid::Uuid::now_v7().simple());
            piece.extend(format!("SUB {}.* 1\r\n", self.inbox).as_bytes());
        }
        let (first, mut refused) = (self.stored, Vec::new());
        self.stored += messages.len() as u64;
        for (at, message) in messages.iter().enumerate() {
            match message.payload.len() + message.header().len() > self.payload_max {
                true => refused.push(self.too_long(at, message)),
                false => message.encode(Some((&self.inbox, first + at as u64)), &mut piece),
            }
            if piece.len() >= PIECE_BYTES {
                self.write(&piece).await?;
                piece.clear();
            }
        }
        self.write(&piece).await?;
        let mut left = messages.len() - refused.len();
        // What was asked before, and is answered only now, is of no interest.
        let place = |number: u64| number.checked_sub(first).and_then(|at| usize::try_from(at).ok());
        while left > 0 {
            match self.next().await? {
                Said::Kept(number) => {
                    let Some(at) = place(number) else { continue };
                    kept.push(at);
                    left -= 1;
                }
                Said::NotKept(number, why) => {
                    let Some(at) = place(number) else { continue };
                    refused.push(Refused { at, why, for_ever: false });
                    left -= 1;
                }
                Said::Forbidden(subject) => {
                    let of_it = messages.iter().enumerate().filter(|it| it.1.subject == subject);
                    let before = refused.len();
                    refused.extend(of_it.map(|(at, _)| not_permitted(at)));
                    refused.sort_by_key(|it| it.at);
                    refused.dedup_by_key(|it| it.at);
                    left = left.saturating_sub(refused.len() - before);
                }
                Said::Ping => self.write(b"PONG\r\n").await?,
                Said::Pong | Said::Nothing => {}
            }
        }
        Ok(refused)
    }

    /// Waits until the server looks whether we are there; then [`Line::here`] is to be called. It may
    /// be dropped at any time, but for [`Line::here`].
    ///
    /// # Errors
    /// If the connection has ended.
    pub async fn probed(&mut self) -> io::Result<()> {
        loop {
            if let Said::Ping = self.next().await? {
                return Ok(());
            }
        }
    }

    /// Says that we are.
    ///
    /// # Errors
    /// As [`Line::publish`].
    pub async fn here(&mut self) -> io::Result<()> {
        self.write(b"PONG\r\n").await
    }

    fn too_long(&self, at: usize, message: &Message<'_>) -> Refused {
        let (has, max) = (message.payload.len(), self.payload_max);
        let why = format!(
            "a payload of {has} bytes, wanted at most {max} with its id, as NATS is set up"
        );
        Refused { at, why, for_ever: true }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes).await?;
        self.stream.get_mut().flush().await // TLS has a buffer.
    }

    async fn next(&mut self) -> io::Result<Said> {
        Said::read(&self.say().await?)
    }

    /// What the server says next: a line without its end, or one with the message behind it. What was
    /// read of it is kept if this is dropped.
    async fn say(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(len) = frame_len(&self.said) {
                if len > SAID_MAX {
                    return Err(too_much());
                }
                if self.said.len() >= len {
                    let said = std::mem::take(&mut self.said);
                    return Ok(said.trim_ascii_end().to_vec());
                }
            }
            let come = self.stream.fill_buf().await?;
            if come.is_empty() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let taken = match frame_len(&self.said) {
                Some(len) => come.len().min(len - self.said.len()),
                None => {
                    come.iter().position(|byte| *byte == b'\n').map_or(come.len(), |end| end + 1)
                }
            };
            self.said.extend_from_slice(&come[..taken]);
            self.stream.consume(taken);
            if self.said.len() > SAID_MAX {
                return Err(too_much());
            }
        }
    }
}

fn not_permitted(at: usize) -> Refused {
    let why = "NATS does not permit us to publish this".to_owned();
    Refused { at, why, for_ever: false }
}

fn too_much() -> io::Error {
    let what = format!("NATS says a line of more than {SAID_MAX} bytes");
    io::Error::new(ErrorKind::InvalidData, what)
}

impl Message<'_> {
    fn header(&self) -> String {
        format!("NATS/1.0\r\nNats-Msg-Id: {}\r\n\r\n", self.id)
    }

    /// `confirm`: the inbox, and the number in it, to which JetStream confirms the message.
    fn encode(&self, confirm: Option<(&str, u64)>, batch: &mut Vec<u8>) {
        let Self { subject, payload, .. } = self;
        let header = self.header();
        let (of_header, of_all) = (header.len(), header.len() + payload.len());
        let _ = match confirm {
            None => write!(batch, "HPUB {subject} {of_header} {of_all}\r\n{header}"),
            Some((inbox, number)) => {
                write!(batch, "HPUB {subject} {inbox}.{number} {of_header} {of_all}\r\n{header}")
            }
        }; // A vector takes everything.
        batch.extend_from_slice(payload);
        batch.extend(b"\r\n");
    }
}

fn connect_info(name: &str, tls_required: bool) -> ConnectInfo {
    ConnectInfo {
        verbose: false,
        pedantic: false,
        user_jwt: None,
        nkey: None,
        signature: None,
        name: Some(name.to_owned()),
        echo: false,
        lang: "rust".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: Protocol::Original,
        tls_required,
        user: None,
        pass: None,
        auth_token: None,
        headers: true,
        no_responders: true,
    }
}

/// TLS with the authorities of this system.
async fn secure(host: &str, stream: Box<dyn Stream>) -> anyhow::Result<Box<dyn Stream>> {
    let mut roots = RootCertStore::empty();
    let _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("set TLS versions")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    Ok(Box::new(stream.context("begin TLS")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};

    const INFO: &str = r#"INFO {"headers":true,"max_payload":100}"#;

    /// A line in period 1, the server's end of it, and what sets the period; 0 is none.
    async fn connected() -> (Line, TcpStream, Arc<AtomicU32>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let login = Login::at(&format!("nats://{}", listener.local_addr().unwrap())).unwrap();
        let period = Arc::new(AtomicU32::new(1));
        let of_gate = period.clone();
        let gate = move || Some(of_gate.load(Relaxed)).filter(|period| *period > 0);
        let serving = async {
            let mut server = listener.accept().await.unwrap().0;
            server.write_all(format!("{INFO}\r\n").as_bytes()).await.unwrap();
            let connect = heard(&mut server, "PING\r\n").await;
            assert!(connect.starts_with("CONNECT {") && connect.contains(r#""name":"us""#));
            server.write_all(b"PONG\r\n").await.unwrap();
            server
        };
        let (line, server) = tokio::join!(Line::connect("us", &login, Arc::new(gate)), serving);
        (line.unwrap(), server, period)
    }

    /// What comes, up to these words.
    async fn heard(server: &mut TcpStream, end: &str) -> String {
        let mut heard = Vec::new();
        while !heard.ends_with(end.as_bytes()) {
            heard.push(server.read_u8().await.unwrap());
        }
        String::from_utf8(heard).unwrap()
    }

    fn message(subject: &'static str, payload: &'static [u8]) -> Message<'static> {
        Message { subject, id: "task/0", payload }
    }

    #[tokio::test]
    async fn a_batch_is_done_when_the_server_has_all_of_it() {
        let (mut line, mut server, _) = connected().await;
        let messages = [message("a", b"1"), message("b", &[0; 100]), message("c", b"\r\n")];
        let publishing = line.publish(messages.into_iter());
        let serving = async {
            let header = "NATS/1.0\r\nNats-Msg-Id: task/0\r\n\r\n";
            let of = |subject, bytes, payload| {
                format!("HPUB {subject} 33 {bytes}\r\n{header}{payload}\r\n")
            };
            let expected = of("a", 34, "1") + &of("c", 35, "\r\n") + "PING\r\n";
            assert_eq!(heard(&mut server, "PING\r\n").await, expected);
            // It says other things first, and in pieces.
            server.write_all(b"INFO {}\r\nPING\r\n-ERR 'Permissions Viola").await.unwrap();
            assert_eq!(heard(&mut server, "\r\n").await, "PONG\r\n");
            server.write_all(b"tion for Publish to \"c\"'\r\nPONG\r\n").await.unwrap();
        };
        let (refused, ()) = tokio::join!(publishing, serving);
        let refused: Vec<_> = refused.unwrap().into_iter().map(|it| (it.at, it.why)).collect();
        let long = "a payload of 100 bytes, wanted at most 100 with its id, as NATS is set up";
        let forbidden = "NATS does not permit us to publish this";
        assert_eq!(refused, [(1, long.to_owned()), (2, forbidden.to_owned())]);
    }

    #[tokio::test]
    async fn jetstream_says_of_each_message_whether_it_keeps_it() {
        let (mut line, mut server, _) = connected().await;
        let messages =
            [message("a", b"1"), message("b", &[0; 100]), message("c", b"3"), message("d", b"4")];
        for round in 0..2 {
            let mut kept = Vec::new();
            let storing = line.store(&messages, &mut kept);
            let serving = async {
                let heard = heard(&mut server, "\r\n4\r\n").await;
                let word = heard.split_whitespace().find(|it| it.starts_with("_INBOX.")).unwrap();
                let inbox = word.rsplit_once('.').unwrap().0.to_owned();
                assert_eq!(heard.starts_with(&format!("SUB {inbox}.* 1\r\n")), round == 0);
                assert!(heard.contains(&format!("HPUB c {inbox}.{} 33 34\r\n", round * 4 + 2)));
                let says = |at: u64, json: &str| {
                    format!("MSG {inbox}.{} 1 {}\r\n{json}\r\n", round * 4 + at, json.len())
                };
                let (good, bad) = (r#"{"stream":"S","seq":1}"#, r#"{"error":{"code":503}}"#);
                // The last first; the others in pieces, with a word of something else.
                let all = says(3, good) + "PING\r\n" + &says(2, bad) + &says(0, good);
                let (first, second) = all.split_at(all.len() - 9);
                server.write_all(first.as_bytes()).await.unwrap();
                assert_eq!(self::heard(&mut server, "\r\n").await, "PONG\r\n");
                server.write_all(second.as_bytes()).await.unwrap();
            };
            let (refused, ()) = tokio::join!(storing, serving);
            assert_eq!(kept, [3, 0]);
            let refused: Vec<_> =
                refused.unwrap().into_iter().map(|it| (it.at, it.for_ever)).collect();
            assert_eq!(refused, [(1, true), (2, false)]);
        }
    }

    #[tokio::test]
    async fn nothing_is_published_outside_of_the_period_in_which_it_connected() {
        for later in [0, 2] {
            let (mut line, mut server, period) = connected().await;
            period.store(later, Relaxed);
            line.publish([message("a", b"1")].into_iter()).await.unwrap_err();
            drop(line);
            let mut come = Vec::new();
            server.read_to_end(&mut come).await.unwrap();
            assert_eq!(come, b"");
        }
    }

    #[tokio::test]
    async fn a_probe_is_answered_also_if_the_wait_for_it_was_broken_off() {
        let (mut line, mut server, _) = connected().await;
        server.write_all(b"PI").await.unwrap();
        line.stream.get_mut().flush().await.unwrap();
        tokio::select! {
            biased;
            probed = line.probed() => panic!("half a word is no probe: {probed:?}"),
            () = tokio::task::yield_now() => {}
        }
        server.write_all(b"NG\r\n").await.unwrap();
        line.probed().await.unwrap();
        line.here().await.unwrap();
        assert_eq!(heard(&mut server, "\r\n").await, "PONG\r\n");
    }

    #[tokio::test]
    async fn what_is_no_server_ends_the_connection() {
        for said in ["-ERR 'Authorization Violation'\r\n", "HTTP/1.1 400\r\n", ""] {
            let (mut line, mut server, _) = connected().await;
            server.write_all(said.as_bytes()).await.unwrap();
            drop(server);
            line.probed().await.unwrap_err();
        }
        let (mut line, mut server, _) = connected().await;
        let flood =
            tokio::spawn(async move { while server.write_all(&[b'x'; 4_096]).await.is_ok() {} });
        let error = line.probed().await.unwrap_err();
        assert!(error.to_string().contains("more than"), "{error}");
        drop(line);
        flood.await.unwrap();
    }
}
