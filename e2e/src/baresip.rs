//! baresip, a phone that is not ours: speaks a WAV file, answers by itself, presses keys, and records
//! what it hears before anything of the sound hardware could touch it.

use crate::audio::{PHONE_RATE_HZ, Reference, Wav};
use crate::{Process, free_port, free_ports};
use anyhow::{Context as _, bail, ensure};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long it may take to start, register, or answer a command.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// RTP ports of one instance, of which it takes one at random for each call. What is still on its way
/// to the port of a call that it has just left makes version 1.0 deaf in the next call on that port.
const RTP_PORTS: u16 = 200;
/// What a recording without sound has at most.
const WAV_HEADER_BYTES: u64 = 128;
/// baresip plays its file once; longer calls of it fall silent.
const VOICE_S: usize = 180;

/// How to make an instance.
pub struct Account<'a> {
    pub user: &'a str,
    /// The registrar's address; also where calls to bare numbers go.
    pub registrar: SocketAddr,
    /// Registers with digest if given.
    pub password: Option<&'a str>,
    /// The only codec it offers and accepts: "pcmu", "pcma", "g722", "opus", "gsm" or "l16".
    pub codec: &'a str,
    /// What it says into every call, converted to 8 kHz and looped for three minutes.
    pub voice: &'a Wav,
}

pub struct Baresip {
    user: String,
    port: u16,
    folder: TempDir,
    control: TcpStream,
    unread: Vec<u8>,
    /// Events that came before the answer to a command.
    events: VecDeque<serde_json::Value>,
    process: Process,
}

impl Baresip {
    /// Starts it; with a password, waits until it has registered.
    pub fn start(account: &Account) -> anyhow::Result<Self> {
        Self::start_by(account, "udp", account.registrar)
    }

    /// As [`Baresip::start`], where all that it sends goes by `transport` ("udp", "tcp" or "tls") to
    /// `proxy`.
    pub fn start_by(account: &Account, transport: &str, proxy: SocketAddr) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for baresip")?;
        let ports = choose_ports()?;
        configure(folder.path(), account, (transport, proxy), &ports)?;
        let mut command = Command::new("baresip");
        command.arg("-f").arg(folder.path());
        let process = Process::spawn(&format!("baresip {}", account.user), &mut command)?;
        process.wait_for("that it is ready", READY_LIMIT, |line| {
            line.contains("baresip is ready").then_some(())
        })?;
        // It would offer all that it has.
        ensure!(
            !process.output().contains("codec not found"),
            "baresip has no codec {:?}:\n{}",
            account.codec,
            process.output()
        );
        if account.password.is_some() {
            process.wait_for("that it has registered", READY_LIMIT, |line| {
                line.contains("200 OK").then_some(())
            })?;
        }
        let control = TcpStream::connect(("127.0.0.1", ports.control))?;
        let user = account.user.to_owned();
        Ok(Self {
            user,
            port: ports.sip,
            folder,
            control,
            unread: Vec::new(),
            events: VecDeque::new(),
            process,
        })
    }

    /// Where it can be called directly, without a registrar.
    pub fn uri(&self) -> String {
        format!("sip:{}@127.0.0.1:{}", self.user, self.port)
    }

    /// Calls and waits until it is answered.
    pub fn dial(&mut self, uri: &str) -> anyhow::Result<()> {
        self.command("dial", uri)?;
        self.wait_event("CALL_ESTABLISHED", READY_LIMIT)
    }

    /// Waits until it has answered a call.
    pub fn wait_answered(&mut self) -> anyhow::Result<()> {
        self.wait_event("CALL_ESTABLISHED", READY_LIMIT)
    }

    pub fn wait_closed(&mut self, limit: Duration) -> anyhow::Result<()> {
        self.wait_event("CALL_CLOSED", limit)
    }

    /// Presses a key in the current call (RFC 4733).
    pub fn press(&mut self, digit: char) -> anyhow::Result<()> {
        self.command("sndcode", &digit.to_string())
    }

    pub fn hang_up(&mut self) -> anyhow::Result<()> {
        self.command("hangup", "")?;
        self.wait_closed(READY_LIMIT)
    }

    /// What it has heard in its `nth` call (from 0), at 8 kHz; also while the call goes on. It records
    /// at the rate of its codec.
    pub fn heard(&self, nth: usize) -> anyhow::Result<Vec<f32>> {
        let recording = self.recording(nth)?;
        Ok(Reference::new(&Wav::read(&recording)?).into_samples())
    }

    /// As [`Baresip::heard`], of its last call: a call of less than a second may leave no recording.
    pub fn heard_last(&self) -> anyhow::Result<Vec<f32>> {
        let last = self.recordings()?.pop();
        let last = last.with_context(|| format!("{} has recorded no call", self.user))?;
        Ok(Reference::new(&Wav::read(&last)?).into_samples())
    }

    /// Stops it, so that its recordings are complete.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.process.stop(READY_LIMIT).map(drop)
    }

    pub fn output(&self) -> String {
        self.process.output()
    }

    fn recording(&self, nth: usize) -> anyhow::Result<PathBuf> {
        let recording = self.recordings()?.into_iter().nth(nth);
        recording.with_context(|| format!("{} has not recorded call {nth}", self.user))
    }

    /// What it heard; the names have the time in seconds, so the order is by name.
    fn recordings(&self) -> anyhow::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(self.folder.path())?;
        let mut paths: Vec<PathBuf> = entries.filter_map(|it| Some(it.ok()?.path())).collect();
        // Some calls leave an empty one too.
        let has_sound = |it: &PathBuf| it.metadata().is_ok_and(|it| it.len() > WAV_HEADER_BYTES);
        paths.retain(|it| it.to_string_lossy().ends_with("-dec.wav") && has_sound(it));
        paths.sort();
        Ok(paths)
    }

    /// One command and its answer, in netstrings of JSON (module ctrl_tcp).
    fn command(&mut self, command: &str, params: &str) -> anyhow::Result<()> {
        let json = serde_json::json!({ "command": command, "params": params }).to_string();
        self.control.write_all(format!("{}:{json},", json.len()).as_bytes())?;
        let deadline = Instant::now() + READY_LIMIT;
        let answer = loop {
            let message = self.next_message(&format!("an answer to {command}"), deadline)?;
            match message["response"].as_bool() {
                Some(true) => break message,
                _ => self.events.push_back(message),
            }
        };
        ensure!(
            answer["ok"].as_bool() == Some(true),
            "baresip refused {command} {params}: {answer}"
        );
        Ok(())
    }

    /// Skips events up to the first of this type.
    fn wait_event(&mut self, event: &str, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let message = match self.events.pop_front() {
                Some(message) => message,
                None => self.next_message(event, deadline)?,
            };
            if message["type"].as_str() == Some(event) {
                return Ok(());
            }
        }
    }

    /// The next message on the wire.
    fn next_message(&mut self, what: &str, deadline: Instant) -> anyhow::Result<serde_json::Value> {
        loop {
            if let Some(message) = self.take_message()? {
                return Ok(message);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("wait for {}: it did not say {what} in time:\n{}", self.user, self.output());
            }
            self.control.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut chunk = [0; 4096];
            match self.control.read(&mut chunk) {
                Ok(0) => bail!("wait for {}: it has ended:\n{}", self.user, self.output()),
                Ok(len) => self.unread.extend(&chunk[..len]),
                Err(_) => (), // Nothing came in time: the deadline will tell.
            }
        }
    }

    /// A whole message of those bytes that have been read.
    fn take_message(&mut self) -> anyhow::Result<Option<serde_json::Value>> {
        let Some(colon) = self.unread.iter().position(|byte| *byte == b':') else {
            return Ok(None);
        };
        let len: usize = std::str::from_utf8(&self.unread[..colon])?.parse()?;
        if self.unread.len() < colon + 1 + len + 1 {
            return Ok(None);
        }
        let message = serde_json::from_slice(&self.unread[colon + 1..colon + 1 + len])?;
        self.unread.drain(..colon + 1 + len + 1);
        Ok(Some(message))
    }
}

struct Ports {
    sip: u16,
    control: u16,
    rtp: u16,
}

/// Ports that nobody has now. baresip also takes the one above its SIP port (for TLS).
fn choose_ports() -> anyhow::Result<Ports> {
    let sip = free_ports(2 + RTP_PORTS)?;
    Ok(Ports { sip, control: free_port()?, rtp: sip + 2 })
}

fn configure(
    folder: &Path,
    account: &Account,
    (transport, proxy): (&str, SocketAddr),
    ports: &Ports,
) -> anyhow::Result<()> {
    let voice = folder.join("voice.wav");
    let looped = Reference::new(account.voice).into_samples().into_iter().cycle();
    Wav::mono(PHONE_RATE_HZ, looped.take(VOICE_S * PHONE_RATE_HZ as usize).collect())
        .write(&voice)?;
    let mut config = String::new();
    let mut set = |key: &str, value: &str| writeln!(config, "{key} {value}");
    set("poll_method", "epoll")?;
    set("sip_listen", &format!("127.0.0.1:{}", ports.sip))?;
    set("net_interface", "127.0.0.1")?;
    set("rtp_ports", &format!("{}-{}", ports.rtp, ports.rtp + RTP_PORTS - 1))?;
    set("jitter_buffer_delay", "1-10")?;
    set("audio_source", &format!("aufile,{}", voice.display()))?;
    set("audio_player", "aubridge,sink")?;
    set("audio_alert", "aubridge,alert")?;
    for direction in ["ausrc", "auplay"] {
        set(&format!("{direction}_srate"), &PHONE_RATE_HZ.to_string())?;
        set(&format!("{direction}_channels"), "1")?;
    }
    set("snd_path", &folder.display().to_string())?;
    set("statmode_default", "off")?;
    set("module_path", module_path()?)?;
    for module in ["g711", "g722", "opus", "gsm", "l16", "aufile", "aubridge", "sndfile"] {
        set("module", &format!("{module}.so"))?;
    }
    set("module_tmp", "uuid.so")?;
    set("module_tmp", "account.so")?;
    for module in ["contact", "menu", "ctrl_tcp"] {
        set("module_app", &format!("{module}.so"))?;
    }
    set("ctrl_tcp_listen", &format!("127.0.0.1:{}", ports.control))?;
    std::fs::write(folder.join("config"), config)?;
    let Account { user, registrar, password, codec, .. } = account;
    let registration = match password {
        Some(password) => format!("auth_user={user};auth_pass={password};regint=300"),
        None => "regint=0".to_owned(),
    };
    let outbound = match (transport, proxy == *registrar) {
        ("udp", true) => String::new(),
        _ => format!("outbound=\"sip:{proxy};transport={transport}\";"),
    };
    // Without the rate and channels it looks for one of 8 kHz and one channel.
    let codec = match *codec {
        "g722" => "g722/16000/1",
        "opus" => "opus/48000/2",
        "l16" => "l16/44100/1",
        codec => codec,
    };
    let account = format!(
        "<sip:{user}@{registrar};transport={transport}>;{registration};{outbound}answermode=auto;audio_codecs={codec};dtmfmode=rtpevent\n"
    );
    std::fs::write(folder.join("accounts"), account)?;
    std::fs::write(folder.join("contacts"), "")?;
    Ok(())
}

/// Debian puts the modules here; multiarch ones elsewhere.
fn module_path() -> anyhow::Result<&'static str> {
    const PATHS: [&str; 2] = ["/usr/lib/baresip/modules", "/usr/local/lib/baresip/modules"];
    let found = PATHS.into_iter().find(|path| Path::new(path).join("sndfile.so").exists());
    found.with_context(|| format!("baresip's modules are in none of {PATHS:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{Codec, tune};
    use crate::phone::Phone;

    #[test]
    fn it_records_what_a_phone_says_and_says_its_voice() {
        let (voice, other) = (tune(8, 2_000), tune(9, 2_000));
        let phone = Phone::start("alice", Codec::Pcma).unwrap();
        let registrar = "127.0.0.1:9".parse().unwrap();
        let account =
            Account { user: "bob", registrar, password: None, codec: "pcma", voice: &voice };
        let mut bob = Baresip::start(&account).unwrap();
        let edge = bob.uri().rsplit('@').next().unwrap().parse().unwrap();
        let call = phone.dial(edge, &bob.uri()).unwrap();
        call.speak(&Reference::new(&other).into_samples());
        bob.wait_answered().unwrap();
        phone.ear().listen(Duration::from_secs(3)).unwrap();
        bob.press('7').unwrap();
        phone.ear().listen(Duration::from_millis(500)).unwrap();
        call.bye().unwrap();
        bob.wait_closed(READY_LIMIT).unwrap();
        bob.stop().unwrap();
        let heard = Reference::new(&other).longest_span(&bob.heard(0).unwrap());
        assert!(heard.duration_ms() > 2_000 && heard.correlation > 0.98, "{heard:?}");
        let said = Reference::new(&voice).longest_span(&phone.ear().audio(Codec::Pcma));
        assert!(said.duration_ms() > 2_000 && said.correlation > 0.98, "{said:?}");
        assert!(
            phone.ear().packets().iter().any(|it| it.payload_type == 101 && it.payload[0] == 7)
        );
    }
}
