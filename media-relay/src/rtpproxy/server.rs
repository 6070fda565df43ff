//! Does commands, one after the other, so that each call has one order of events. What takes time
//! (files) is done beside it.

use super::calls::{Call, Calls, Notified};
use super::command::{self, Command, CopyTo, Party, Play, Verb};
use super::error_code::ErrorCode;
use super::notifier::{Listed, Notifier};
use super::place::OWNER;
use super::playing::Playing;
use super::recording::{Recorded, file_named, file_of, record};
use super::statistics::{self, Commands, Living, Packets, Totals};
use super::sub_command::SubCommand;
use crate::library::Library;
use crate::metrics;
use crate::packet_thread::{Busy, Handle, Happened, What};
use crate::recorder::Recorder;
use media::{EventKind, SessionStatus, Side, Silence};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tracing::{info, warn};

/// What `V` is answered with.
const VERSION: &str = "20040107";
/// Extensions that are here, by date.
const FEATURES: [&str; 24] = [
    "20040107", "20050322", "20060704", "20071116", "20071218", "20080403", "20081102", "20090810",
    "20140323", "20140617", "20141004", "20150330", "20150420", "20150617", "20191015", "20200226",
    "20230205", "20230314", "20230424", "20250523", "20251015", "20260306", "20260308", "20260309",
];
/// The one that is here if notifications are.
const NOTIFICATIONS: &str = "20081224";
/// Sessions that are looked at together, so that packets are not delayed.
const PAGE: usize = 100;

/// A command that has come, and who waits for its reply (without cookie and line feed).
pub(super) struct Request {
    pub line: Vec<u8>,
    /// None over a UNIX socket.
    pub client: Option<IpAddr>,
    pub reply: oneshot::Sender<String>,
}

pub(super) type Answer = Result<String, ErrorCode>;

/// From the flags.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Ours, as clients are told it, and as it is bound.
    pub address: IpAddr,
    pub bound: IpAddr,
    /// How long a session may be silent: one that plays to nobody, and one that plays.
    pub ttl: Duration,
    pub playing_ttl: Duration,
    pub notify: Vec<Listed>,
}

pub(crate) struct Server {
    pub(super) packets: Handle,
    files: Library,
    recorder: Recorder,
    pub(super) draining: watch::Receiver<bool>,
    pub(super) settings: Settings,
    pub(super) calls: Calls,
    /// What is being found, and then played, to a side.
    players: HashMap<(String, Side), Player>,
    notifier: Notifier,
    pub(super) totals: Totals,
    commands: Arc<Commands>,
    started: Instant,
}

/// Ends with its place in the table: what is played next, or the session's end, comes first.
struct Player(AbortHandle);

impl Drop for Player {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Server {
    pub(crate) fn new(
        packets: Handle,
        files: Library,
        recorder: Recorder,
        draining: watch::Receiver<bool>,
        settings: Settings,
    ) -> Self {
        let started = Instant::now();
        Self {
            packets,
            files,
            recorder,
            draining,
            settings,
            calls: Calls::default(),
            players: HashMap::new(),
            notifier: Notifier::default(),
            totals: Totals::new(started),
            commands: Arc::default(),
            started,
        }
    }

    pub(super) fn commands(&self) -> Arc<Commands> {
        self.commands.clone()
    }

    /// Serves until nobody can ask any more.
    ///
    /// # Errors
    /// If the packet thread does not say which sessions it has taken up.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>) -> anyhow::Result<()> {
        let mut events = self.packets.watch();
        self.take_up().await?;
        loop {
            let due = self.calls.next_due().map(tokio::time::Instant::from_std);
            let is_due = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                happened = events.recv() => match happened {
                    Ok(happened) => self.note(&happened),
                    Err(RecvError::Lagged(lost)) => warn!(lost, "missed media events"),
                    Err(RecvError::Closed) => return Ok(()),
                },
                () = is_due => self.look_at_silent().await,
                request = requests.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => return Ok(()),
                },
            }
        }
    }

    /// Knows the sessions of an earlier process again.
    async fn take_up(&mut self) -> anyhow::Result<()> {
        let due = Instant::now() + self.settings.ttl;
        let mut found = 0;
        for status in self.all_sessions().await? {
            let Some((call_id, tag)) = status.call_id.split_once(' ') else { continue };
            let (call_id, from_tag) = (call_id.to_owned(), tag.to_owned());
            let party = Party { call_id, from_tag, to_tag: None };
            let mut call = Call::new(status.session_id, &party, due);
            call.strong = true;
            self.calls.insert(call);
            found += 1;
        }
        if found > 0 {
            info!(sessions = found, "rtpproxy sessions taken up");
        }
        Ok(())
    }

    async fn all_sessions(&self) -> Result<Vec<SessionStatus>, Busy> {
        let mut sessions: Vec<SessionStatus> = Vec::new();
        loop {
            let cursor = sessions.last().map(|it| it.cursor);
            let page = self
                .packets
                .call(move |it| it.relay.sessions_after(Instant::now(), cursor, OWNER, PAGE));
            let page = page.await?;
            let is_last = page.len() < PAGE;
            sessions.extend(page);
            if is_last {
                return Ok(sessions);
            }
        }
    }

    /// Tells of digits.
    fn note(&mut self, happened: &Happened) {
        if let What::Media(event) = &happened.what
            && let EventKind::DigitReleased { digit, duration_ms, volume } = event.kind
            && let Some(call) = self.calls.get(&event.session_id)
            && let Some(Notified { socket, tag }) = &call.digits[event.side as usize]
        {
            let side = event.side as usize;
            let digit = digit.as_char();
            self.notifier.tell(socket, format!("{tag} {digit} {volume} {duration_ms} {side}"));
        }
    }

    /// Ends sessions that have been silent for too long.
    async fn look_at_silent(&mut self) {
        let now = Instant::now();
        let due = self.calls.due(now, PAGE);
        let ids: Vec<String> = due.iter().map(|(id, _)| id.clone()).collect();
        let silences = self.packets.call(move |it| -> Vec<Option<Silence>> {
            ids.iter().map(|id| it.relay.silence(now, id)).collect()
        });
        let Ok(silences) = silences.await else {
            for (id, _) in due {
                self.calls.look_again(&id, now + Duration::from_secs(1));
            }
            return;
        };
        for ((id, ttl_s), silence) in due.into_iter().zip(silences) {
            match silence {
                Some(silence) => {
                    let left = self.may_be_silent(ttl_s, silence);
                    match left.is_zero() {
                        false => self.calls.look_again(&id, now + left),
                        true => self.time_out(&id).await,
                    }
                }
                None => self.forget(&id), // Somebody else has deleted it.
            }
        }
    }

    /// For how long a session may still be silent.
    fn may_be_silent(&self, ttl_s: Option<u32>, silence: Silence) -> Duration {
        let own = ttl_s.map(|it| Duration::from_secs(it.into()));
        let ttl = own.unwrap_or(self.settings.ttl);
        let ttl = if silence.playing { ttl.max(self.settings.playing_ttl) } else { ttl };
        ttl.saturating_sub(silence.silent)
    }

    async fn time_out(&mut self, session_id: &str) {
        let notify = self.calls.get(session_id).and_then(|it| it.notify.clone());
        if self.end(session_id).await.is_err() {
            self.calls.look_again(session_id, Instant::now() + Duration::from_secs(1));
            return;
        }
        self.totals.timed_out += 1;
        info!(session_id, "deleted: silent for too long");
        if let Some(Notified { socket, tag }) = notify {
            self.notifier.tell(&socket, tag);
        }
    }

    /// Deletes a session, and counts it.
    async fn end(&mut self, session_id: &str) -> Result<(), Busy> {
        let id = session_id.to_owned();
        let ended = self.packets.call(move |it| {
            let status = it.relay.session(Instant::now(), &id);
            status.filter(|_| it.delete(&id, None))
        });
        if let Some(status) = ended.await? {
            let unix = Duration::from_millis(boot::unix_ms().try_into().unwrap_or(0));
            self.totals.end(&status, unix.saturating_sub(status.created));
        }
        self.forget(session_id);
        Ok(())
    }

    fn forget(&mut self, session_id: &str) {
        self.calls.remove(session_id);
        for side in Side::BOTH {
            self.players.remove(&(session_id.to_owned(), side));
        }
    }

    async fn serve(&mut self, Request { line, client, reply }: Request) {
        self.commands.received.fetch_add(1, Ordering::Relaxed);
        let answer = match command::parse(&line) {
            Ok(Command { verb: Verb::Play(play), .. }) => return self.play(play, reply),
            Ok(Command { verb: Verb::Record(party), .. }) => {
                return self.record(&party, None, None, reply);
            }
            Ok(Command { verb: Verb::Copy { party, to: CopyTo::File(name), .. }, .. }) => {
                return self.copy_to_file(&party, &name, reply);
            }
            Ok(command) => self.answer(command, client).await,
            Err(code) => Err(code),
        };
        answer_with(&self.commands, reply, answer);
    }

    async fn answer(&mut self, command: Command, client: Option<IpAddr>) -> Answer {
        let Command { verb, sub_commands } = command;
        match verb {
            Verb::Version => Ok(VERSION.to_owned()),
            Verb::Feature(date) => {
                let is_here = FEATURES.contains(&date.as_str())
                    || date == NOTIFICATIONS && !self.settings.notify.is_empty();
                Ok(u8::from(is_here).to_string())
            }
            Verb::Update(place) => self.place(*place, false, sub_commands, client).await,
            Verb::Lookup(place) => self.place(*place, true, sub_commands, client).await,
            Verb::Delete { weak, party } => self.delete(&party, weak).await,
            Verb::Stop(party) => self.stop(&party).await,
            Verb::StopRecording(party) => self.stop_recording(&party).await,
            Verb::Copy { party, to: CopyTo::Address(to), tell_port } => {
                self.copy_to(&party, to, tell_port).await
            }
            Verb::Query { verbose, party, names } => {
                let told = self.query(&party, verbose, &names).await?;
                self.query_more(&party, sub_commands, told).await
            }
            Verb::DeleteAll => {
                for session_id in self.calls.session_ids() {
                    self.end(&session_id).await.map_err(overloaded)?;
                }
                Ok("0".to_owned())
            }
            Verb::Info { load } => {
                let living = self.living().await.map_err(overloaded)?;
                let load = load.then(|| processors_used(self.started));
                Ok(statistics::info(&self.totals, &living, load))
            }
            Verb::Stats { verbose, names } => {
                let living = self.living().await.map_err(overloaded)?;
                let (totals, now) = (&mut self.totals, Instant::now());
                statistics::counters(totals, &living, &self.commands, now, (verbose, &names))
            }
            Verb::Play(_) | Verb::Record(_) | Verb::Copy { .. } => {
                unreachable!("these are done beside the others")
            }
        }
    }

    pub(super) async fn delete(&mut self, party: &Party, weak: bool) -> Answer {
        for session_id in self.calls.release(party, weak).ok_or(ErrorCode::NoSession)? {
            self.end(&session_id).await.map_err(overloaded)?;
            info!(session_id, "rtpproxy session deleted");
        }
        Ok("0".to_owned())
    }

    /// `P`; answers when it plays, or why it does not.
    fn play(&mut self, play: Play, reply: oneshot::Sender<String>) {
        let Play { party, name, times, codecs } = play;
        let Some((call, side)) = self.calls.find(&party) else {
            return answer_with(&self.commands, reply, Err(ErrorCode::NoSession));
        };
        let session_id = call.session_id.clone();
        let packet_time_ms = call.packet_time_ms[side as usize];
        let (packets, files) = (self.packets.clone(), self.files.clone());
        let key = (session_id.clone(), side);
        let commands = self.commands.clone();
        self.totals.players += u64::from(times != Some(0));
        let playing = async move {
            if times == Some(0) {
                let stopped = packets
                    .call(move |it| it.relay.stop(Instant::now(), &session_id, side).map(drop));
                let stopped = stopped.await.map_err(overloaded);
                let stopped = stopped.and_then(|it| it.map_err(|_| ErrorCode::NoSession));
                return answer_with(&commands, reply, stopped.map(|()| "0".to_owned()));
            }
            let playing =
                Playing { packets, files, session_id, side, name, codecs, times, packet_time_ms };
            match playing.begin().await {
                Ok(begun) => {
                    answer_with(&commands, reply, Ok("0".to_owned()));
                    playing.end(begun).await;
                }
                Err(code) => answer_with(&commands, reply, Err(code)),
            }
        };
        let task = tokio::spawn(playing);
        self.players.insert(key, Player(task.abort_handle()));
    }

    async fn stop(&mut self, party: &Party) -> Answer {
        let (call, side) = self.calls.find(party).ok_or(ErrorCode::NoSession)?;
        let session_id = call.session_id.clone();
        self.players.remove(&(session_id.clone(), side));
        let stopped = self.packets.call(move |it| it.relay.stop(Instant::now(), &session_id, side));
        stopped.await.map_err(overloaded)?.map_err(|_| ErrorCode::NoSession)?;
        Ok("0".to_owned())
    }

    /// `R`, of all media that the tags mean; and `C` to a file, of one party.
    fn record(
        &mut self,
        party: &Party,
        side: Option<Side>,
        file: Option<String>,
        reply: oneshot::Sender<String>,
    ) {
        let recorded = |call: &Call| Recorded {
            session_id: call.session_id.clone(),
            name: call.name(),
            side,
            file: file.clone().unwrap_or_else(|| file_of(call)),
        };
        let all: Vec<Recorded> = match side {
            None => self.calls.all(party).map(|(call, ..)| recorded(call)).collect(),
            Some(_) => self.calls.find(party).map(|(call, _)| recorded(call)).into_iter().collect(),
        };
        let (packets, recorder) = (self.packets.clone(), self.recorder.clone());
        let commands = self.commands.clone();
        tokio::spawn(async move {
            let mut result = Err(ErrorCode::NoSession);
            for recorded in all {
                result = record(packets.clone(), recorder.clone(), recorded).await;
                if result.is_err() {
                    break;
                }
            }
            answer_with(&commands, reply, result.map(|()| "0".to_owned()));
        });
    }

    fn copy_to_file(&mut self, party: &Party, name: &str, reply: oneshot::Sender<String>) {
        let side = self.calls.find(party).map(|(_, side)| side);
        match (side, file_named(name)) {
            (None, _) => answer_with(&self.commands, reply, Err(ErrorCode::NoSession)),
            (_, None) => answer_with(&self.commands, reply, Err(ErrorCode::NotCopied)),
            (Some(side), Some(file)) => self.record(party, Some(side), Some(file), reply),
        }
    }

    /// `C` to an address: of what the party sends.
    async fn copy_to(&mut self, party: &Party, to: SocketAddr, tell_port: bool) -> Answer {
        let (call, side) = self.calls.find(party).ok_or(ErrorCode::NoSession)?;
        let session_id = call.session_id.clone();
        let copied = self.packets.call(move |it| it.relay.copy_to(&session_id, side, Some(to)));
        let copied = copied.await.map_err(overloaded)?.map_err(|_| ErrorCode::NotCopied)?;
        let port = copied.ok_or(ErrorCode::NotCopied)?;
        Ok(if tell_port { self.port(port) } else { "0".to_owned() })
    }

    /// Ends recordings and copies of all media that the tags mean.
    async fn stop_recording(&mut self, party: &Party) -> Answer {
        let ids: Vec<_> = self.calls.all(party).map(|(it, ..)| it.session_id.clone()).collect();
        if ids.is_empty() {
            return Err(ErrorCode::NoSession);
        }
        let stopped = self.packets.call(move |it| {
            for id in ids {
                // There may be none of either.
                let _ = it.relay.stop_recording(Instant::now(), &id);
                for side in Side::BOTH {
                    let _ = it.relay.copy_to(&id, side, None);
                }
            }
        });
        stopped.await.map_err(overloaded)?;
        Ok("0".to_owned())
    }

    async fn query(&self, party: &Party, verbose: bool, names: &[String]) -> Answer {
        let (call, side) = self.calls.find(party).ok_or(ErrorCode::NoSession)?;
        let id = call.session_id.clone();
        let asked = self.packets.call(move |it| {
            let now = Instant::now();
            Some((it.relay.session(now, &id)?, it.relay.silence(now, &id)?))
        });
        let asked = asked.await.map_err(overloaded)?;
        let (status, silence) = asked.ok_or(ErrorCode::NoSession)?;
        let left = self.may_be_silent(call.ttl_s, silence);
        statistics::query(&status, side, left.as_secs(), verbose, names)
    }

    /// Sub-commands of `Q`.
    async fn query_more(
        &mut self,
        party: &Party,
        sub_commands: Vec<SubCommand>,
        mut told: String,
    ) -> Answer {
        for sub_command in sub_commands {
            match sub_command {
                SubCommand::Delete { weak } => drop(self.delete(party, weak).await?),
                SubCommand::TimeToLive { seconds } => {
                    let (call, _) = self.calls.find(party).ok_or(ErrorCode::NoSession)?;
                    let session_id = call.session_id.clone();
                    self.set_ttl(&session_id, seconds);
                }
                SubCommand::CatchDigits { .. } | SubCommand::Other { .. } => {
                    return Err(ErrorCode::SubCommand);
                }
            }
            told.push_str(" && 0");
        }
        Ok(told)
    }

    async fn living(&self) -> Result<Living, Busy> {
        let sessions = self.all_sessions().await?;
        let mut living = Living { sessions: sessions.len(), ..Living::default() };
        for session in sessions {
            living.sides += session.sides.len();
            let players = session.sides.iter().filter(|it| it.file.is_some()).count();
            living.players += players as u64;
            living.packets = living.packets.with(&Packets::of(&session));
        }
        Ok(living)
    }
}

fn answer_with(commands: &Commands, reply: oneshot::Sender<String>, answer: Answer) {
    let (counter, result) = match &answer {
        Ok(_) => (&commands.succeeded, "ok"),
        Err(_) => (&commands.failed, "error"),
    };
    counter.fetch_add(1, Ordering::Relaxed);
    metrics::count_rtpproxy_command(result);
    let _ = reply.send(answer.unwrap_or_else(|code| code.to_string())); // It may have gone away.
}

/// The reply to a command; one to play that was overtaken by the next one has none of its own.
pub(super) fn reply_or_replaced(reply: Result<String, oneshot::error::RecvError>) -> String {
    reply.unwrap_or_else(|_| ErrorCode::NothingPlayed.to_string())
}

pub(super) fn overloaded(_: Busy) -> ErrorCode {
    ErrorCode::Overload
}

/// How many processors the process has kept busy since `started`, on average.
fn processors_used(started: Instant) -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let used_s = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
    used_s / started.elapsed().as_secs_f64().max(0.001)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use crate::packet_thread::{COMMANDS_MAX, PacketThread};
    use crate::path::Path;
    use clap::Parser as _;
    use futures::FutureExt as _;

    async fn ask(server: &mut Server, line: &str) -> String {
        let (reply, answer) = oneshot::channel();
        server.serve(Request { line: line.into(), client: None, reply }).await;
        answer.await.unwrap()
    }

    #[tokio::test]
    async fn an_overloaded_relay_says_so_and_serves_when_it_has_room_again() {
        let args = Args::parse_from(["media-relay", "--packet-path", "plain"]);
        let path = Path::open(args.packet_path, args.rtp_address).unwrap();
        let (recorder, feed, _recordings) = crate::recorder::recorder(None).unwrap();
        let config = args.config().unwrap();
        let (thread, packets) = PacketThread::new(config, path, args.gather, feed).unwrap();
        let (_drain, draining) = watch::channel(false);
        let (library, settings) = (args.open_media_dir(&[]), args.rtpproxy_settings());
        let mut server = Server::new(packets.clone(), library, recorder, draining, settings);
        for _ in 0..COMMANDS_MAX {
            assert!(packets.call(|_| ()).now_or_never().is_none(), "nobody does it yet");
        }
        for line in ["U call 127.0.0.1 4000 a", "I", "G nsess_created"] {
            assert_eq!(ask(&mut server, line).await, "E98", "{line}");
        }
        assert_eq!(ask(&mut server, "D call a").await, "E50", "no session was made");
        tokio::spawn(thread.run());
        while packets.call(|_| ()).await.is_err() {
            tokio::task::yield_now().await;
        }
        assert!(ask(&mut server, "U call 127.0.0.1 4000 a").await.ends_with(" 127.0.0.1"));
        assert_eq!(ask(&mut server, "G nsess_created").await, "1");
    }
}
