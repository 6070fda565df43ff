//! SIPp, a caller or an agent that is not ours, by the scenarios in `e2e/sipp/` and its own.

use crate::audio::{Codec, Reference, Wav};
use crate::{Process, free_port};
use anyhow::{Context as _, ensure};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long SIPp waits for an unfinished run beyond the time that it should take.
const SLACK: Duration = Duration::from_secs(60);

/// How long SIPp may take to start.
const READY_LIMIT: Duration = Duration::from_secs(20);
const READY_POLL: Duration = Duration::from_millis(10);
/// Connections of [`Transport::TcpPerCall`]. SIPp does not start if a process may open fewer files,
/// and wants 50,000 if it is not told.
const CONNECTIONS_MAX: u32 = 500;

/// What SIPp does.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// A file of `e2e/sipp/`, or the name of one that SIPp has built in.
    script: Script,
    /// Whom callers call; none for those who wait to be called.
    remote: Option<SocketAddr>,
    /// User part of the request URI.
    service: String,
    calls: u32,
    calls_per_second: u32,
    /// How long a caller stays, in ms.
    stay_ms: u32,
    transport: Transport,
    /// Where it is, on this machine.
    from: Ipv4Addr,
    /// Of `service`, for scripts that answer a challenge.
    password: Option<String>,
    /// What stands for `[name]` in the script.
    keys: Vec<(&'static str, String)>,
    /// Whether the response times of the script (`rtd`) are kept.
    is_timed: bool,
    /// Whether all calls may stand at a time.
    stand_together: bool,
}

/// How SIPp carries SIP.
#[derive(Clone, Copy, Debug)]
pub enum Transport {
    Udp,
    /// One connection for all calls.
    Tcp,
    /// A connection for each call.
    TcpPerCall,
}

impl Transport {
    /// The value of SIPp's `-t`.
    fn flag(self) -> &'static str {
        match self {
            Self::Udp => "u1",
            Self::Tcp => "t1",
            Self::TcpPerCall => "tn",
        }
    }
}

#[derive(Clone, Debug)]
enum Script {
    File(&'static str),
    BuiltIn(&'static str),
}

impl Scenario {
    /// One caller, who calls `service` at `remote` and stays for `stay_ms`.
    pub fn caller(remote: SocketAddr, service: &str, stay_ms: u32) -> Self {
        Self::new(Script::File("caller.xml"), Some(remote), service, stay_ms)
    }

    /// One caller who stays until it is hung up, and takes the BYE where its INVITE came from.
    pub fn caller_is_hung_up(remote: SocketAddr, service: &str) -> Self {
        Self::new(Script::File("caller_is_hung_up.xml"), Some(remote), service, 0)
    }

    /// SIPp's own `uac` scenario.
    pub fn built_in_uac(remote: SocketAddr, service: &str, stay_ms: u32) -> Self {
        Self::new(Script::BuiltIn("uac"), Some(remote), service, stay_ms)
    }

    /// Rings for a second, answers, speaks, and waits for the BYE.
    pub fn agent_answers() -> Self {
        Self::new(Script::File("agent_answers.xml"), None, "agent", 0)
    }

    /// As [`Scenario::agent_answers`]; fails unless the BYE's Reason says ALLOTTED_TIMEOUT.
    pub fn agent_is_timed_out() -> Self {
        Self::new(Script::File("agent_is_timed_out.xml"), None, "agent", 0)
    }

    /// Rings until it is cancelled.
    pub fn agent_never_answers() -> Self {
        Self::new(Script::File("agent_never_answers.xml"), None, "agent", 0)
    }

    /// Answers 486.
    pub fn agent_busy() -> Self {
        Self::new(Script::File("agent_busy.xml"), None, "agent", 0)
    }

    /// `script` of `e2e/sipp/` against the user `service` of `remote`: one of those that need no more.
    pub fn caller_by(script: &'static str, remote: SocketAddr, service: &str) -> Self {
        Self::new(Script::File(script), Some(remote), service, 0)
    }

    /// `script` of `e2e/sipp/`, which waits to be called.
    pub fn agent_by(script: &'static str) -> Self {
        Self::new(Script::File(script), None, "agent", 0)
    }

    fn new(script: Script, remote: Option<SocketAddr>, service: &str, stay_ms: u32) -> Self {
        Self {
            script,
            remote,
            service: service.to_owned(),
            calls: 1,
            calls_per_second: 1,
            stay_ms,
            transport: Transport::Udp,
            from: Ipv4Addr::LOCALHOST,
            password: None,
            keys: Vec::new(),
            is_timed: false,
            stand_together: false,
        }
    }

    /// By another transport than UDP.
    pub fn by(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    /// From another address of this machine, 127.0.0.0/8.
    pub fn from(self, from: Ipv4Addr) -> Self {
        Self { from, ..self }
    }

    /// With the password of its user.
    pub fn with_password(self, password: &str) -> Self {
        Self { password: Some(password.to_owned()), ..self }
    }

    /// With `value` for `[name]` in its script.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.keys.push((name, value.to_owned()));
        self
    }

    /// So many calls at such a rate, instead of one.
    pub fn repeat(self, calls: u32, calls_per_second: u32) -> Self {
        Self { calls, calls_per_second, ..self }
    }

    /// With the time from INVITE to 200 of each call, for [`Sipp::finish_timed`].
    pub fn timed(self) -> Self {
        Self { is_timed: true, ..self }
    }

    /// All calls may stand at a time; SIPp's own limit goes by how long they last.
    pub fn stand_together(self) -> Self {
        Self { stand_together: true, ..self }
    }

    /// How long it takes if nothing goes wrong.
    fn duration(&self) -> Duration {
        let dialling = Duration::from_secs(u64::from(self.calls / self.calls_per_second));
        dialling + Duration::from_millis(u64::from(self.stay_ms))
    }
}

/// What came of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    pub successful: u32,
    pub failed: u32,
}

pub struct Sipp {
    local: SocketAddr,
    limit: Duration,
    folder: TempDir,
    process: Process,
}

impl Sipp {
    /// Starts SIPp on a free port; agents speak `voice`, if given.
    pub fn start(scenario: &Scenario, voice: Option<&Wav>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for SIPp")?;
        if let Some(voice) = voice {
            let payload = Codec::Pcmu.encode(&Reference::new(voice).into_samples());
            std::fs::write(folder.path().join("voice.ulaw"), payload)?;
        }
        let local = SocketAddr::from((scenario.from, free_port()?));
        let limit = scenario.duration() + SLACK;
        let mut command = Command::new("sipp");
        command.current_dir(folder.path()).env("TERM", "dumb");
        if let Some(remote) = scenario.remote {
            command.arg(remote.to_string());
        }
        match scenario.script {
            Script::File(name) => {
                // SIPp writes beside its scenario, whatever its folder is.
                let mut text = std::fs::read_to_string(script(name)?).context("read a script")?;
                for (name, value) in &scenario.keys {
                    text = text.replace(&format!("[{name}]"), value);
                }
                std::fs::write(folder.path().join(name), text).context("write a script")?;
                command.args(["-sf", name])
            }
            Script::BuiltIn(name) => command.args(["-sn", name]),
        };
        command
            .args(["-i", &local.ip().to_string(), "-p", &local.port().to_string()])
            .args(["-mi", &local.ip().to_string()])
            .args(["-t", scenario.transport.flag()])
            .args(["-max_socket", &CONNECTIONS_MAX.to_string()])
            .args(["-s", &scenario.service, "-d", &scenario.stay_ms.to_string()])
            .args(["-m", &scenario.calls.to_string(), "-r", &scenario.calls_per_second.to_string()])
            .args(["-timeout", &limit.as_secs().to_string(), "-timeout_error", "-nostdin"])
            .args(["-trace_err", "-error_file", "errors.log", "-trace_stat", "-stf", "tally.csv"]);
        if let Some(password) = &scenario.password {
            command.args(["-au", &scenario.service, "-ap", password]);
        }
        if scenario.stand_together {
            command.args(["-l", &scenario.calls.to_string()]);
        }
        if scenario.is_timed {
            command.args(["-trace_rtt", "-rtt_freq", "1"]);
        }
        let process = Process::spawn("sipp", &mut command)?;
        let mut sipp = Self { local, limit, folder, process };
        if let Transport::Udp = scenario.transport {
            sipp.wait_bound()?; // Who calls by TCP binds no UDP port, and nobody has to find it.
        }
        Ok(sipp)
    }

    /// SIPp says nothing before it ends, so this waits until its port is taken.
    fn wait_bound(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        while UdpSocket::bind(self.local).is_ok() {
            ensure!(self.process.ended().is_none(), "SIPp has ended:\n{}", self.process.output());
            ensure!(Instant::now() < deadline, "SIPp did not bind {} in time", self.local);
            std::thread::sleep(READY_POLL);
        }
        Ok(())
    }

    /// Where an agent can be called.
    pub fn uri(&self) -> String {
        format!("sip:agent@{}", self.local)
    }

    /// Waits until all calls are over.
    ///
    /// # Errors
    /// If SIPp did not get to count them; has what it says about the first failures.
    pub fn finish(mut self) -> anyhow::Result<Tally> {
        self.tally()
    }

    /// As [`Sipp::finish`], of a scenario that was [`Scenario::timed`]: with how long each call that was
    /// answered waited for its 200, in ms.
    pub fn finish_timed(mut self) -> anyhow::Result<(Tally, Vec<f64>)> {
        let tally = self.tally()?;
        let entries = std::fs::read_dir(self.folder.path())?.filter_map(Result::ok);
        let mut paths = entries.map(|entry| entry.path());
        let path = paths.find(|path| path.to_string_lossy().ends_with("_rtt.csv"));
        let csv = std::fs::read_to_string(path.context("find the response times")?)?;
        let times = csv.lines().skip(1).map(|line| {
            let ms = line.split(';').nth(1).with_context(|| format!("find a time in {line:?}"))?;
            ms.parse().with_context(|| format!("read a time in {line:?}"))
        });
        Ok((tally, times.collect::<anyhow::Result<_>>()?))
    }

    /// No new calls from now on: it ends when those that there are have ended.
    pub fn hush(&self) -> anyhow::Result<()> {
        self.process.signal("USR1")
    }

    fn tally(&mut self) -> anyhow::Result<Tally> {
        self.process.wait(self.limit + Duration::from_secs(10))?;
        let csv = std::fs::read_to_string(self.folder.path().join("tally.csv"))
            .with_context(|| format!("read SIPp's tally; it said:\n{}", self.process.output()))?;
        let column = |name: &str| -> anyhow::Result<u32> {
            let index = csv.lines().next().and_then(|it| it.split(';').position(|it| it == name));
            let last = csv.lines().last().context("an empty tally")?;
            let value = last.split(';').nth(index.with_context(|| format!("no column {name}"))?);
            Ok(value.with_context(|| format!("no value of {name}"))?.parse()?)
        };
        let tally =
            Tally { successful: column("SuccessfulCall(C)")?, failed: column("FailedCall(C)")? };
        if tally.failed > 0 || tally.successful == 0 {
            eprintln!("SIPp: {tally:?}\n{}\n{}", self.errors(), self.process.output());
        }
        Ok(tally)
    }

    /// As [`Sipp::finish`], where every call must have gone well.
    pub fn finish_without_failure(self) -> anyhow::Result<()> {
        let tally = self.finish()?;
        ensure!(tally.failed == 0 && tally.successful > 0, "{tally:?}");
        Ok(())
    }

    /// The beginning of its error log.
    fn errors(&self) -> String {
        let errors = std::fs::read(self.folder.path().join("errors.log")).unwrap_or_default();
        String::from_utf8_lossy(&errors[..errors.len().min(4_000)]).into_owned()
    }
}

fn script(name: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("sipp").join(name);
    ensure!(path.exists(), "{} is not there", path.display());
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::tune;
    use crate::phone::{PATIENCE, Phone};

    #[test]
    fn an_agent_of_sipp_speaks_what_it_was_given() {
        let voice = tune(4, 2_000);
        let agent = Sipp::start(&Scenario::agent_answers(), Some(&voice)).unwrap();
        let phone = Phone::start("alice", Codec::Pcmu).unwrap();
        let call = phone.dial(agent.local, &agent.uri()).unwrap();
        phone.ear().wait_for_packets(120, PATIENCE).unwrap();
        call.bye().unwrap();
        agent.finish_without_failure().unwrap();
        let span = Reference::new(&voice).longest_span(&phone.ear().audio(Codec::Pcmu));
        assert!(span.duration_ms() > 1_500 && span.correlation > 0.98, "{span:?}");
    }

    #[test]
    fn callers_who_are_refused_are_counted_as_failed() {
        let agent = Sipp::start(&Scenario::agent_busy(), None).unwrap();
        let caller = Sipp::start(&Scenario::caller(agent.local, "1", 100), None).unwrap();
        assert_eq!(caller.finish().unwrap(), Tally { successful: 0, failed: 1 });
        agent.finish_without_failure().unwrap();
    }
}
