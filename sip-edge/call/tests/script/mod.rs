//! Plays a script of inputs against one call in virtual time and writes down what it asks for.
//!
//! A line of a script is `SECONDS WHO WHAT…`. Services answer at once with what one hopes for,
//! unless the script says `SECONDS SERVICE silent`; then their commands wait, oldest first, for a
//! line that answers.

#![allow(dead_code)] // Each test file uses its own part.

use bytes::Bytes;
use call::{
    Action, Answer, Ask, Call, CancelOutcome, Cause, Collect, CommandNumber, Conference,
    Destination, Event, Facts, Failure, FailureKind, Input, Later, LegEnd, LegNumber, LegSignal,
    Legs, MediaCommand, Now, Occurrence, Originated, Output, Plan, QueueCommand, Reply,
    RequestNumber, SchedulerCommand, Side, SipOrder, Snapshot,
};
use expect_test::Expect;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const RING: Duration = Duration::from_secs(30);

pub(crate) fn facts(to_uri: &str) -> Facts {
    Facts {
        call_id: "c".into(),
        from_uri: "sip:caller@h".into(),
        to_uri: to_uri.into(),
        route: "r".into(),
    }
}

pub(crate) fn queue_plan() -> Plan {
    Plan::new([Action::Enqueue(Arc::default())])
}

/// Job B: a limit, a prompt, digit 1 takes it back and joins a conference.
pub(crate) fn limit_plan() -> Plan {
    let on_1 = Plan::new([Action::Cancel { name: "limit".into() }, conference("test1")]);
    Plan::new([
        schedule(20_000, "limit"),
        Action::Collect(Arc::new(collect(Some("prompt.wav"), 1, [("1", on_1)]))),
        Action::Park,
    ])
}

pub(crate) fn conference(name: &str) -> Action {
    Action::Conference(Arc::new(Conference { name: name.to_owned(), ..Conference::default() }))
}

/// The end of the call with ALLOTTED_TIMEOUT.
pub(crate) fn schedule(after_ms: u64, name: &str) -> Action {
    let what = Later::Hangup { cause: Cause::AllottedTimeout, legs: Legs::Both };
    Action::Schedule { after_ms, what, name: name.to_owned() }
}

pub(crate) fn collect<const N: usize>(
    prompt: Option<&str>,
    max_digits: usize,
    on: [(&str, Plan); N],
) -> Collect {
    Collect {
        prompt: prompt.map(str::to_owned),
        max_digits,
        timeout: Duration::from_secs(4),
        digit_timeout: Duration::from_secs(2),
        terminators: "#".into(),
        on: on.into_iter().map(|(digits, plan)| (digits.to_owned(), plan)).collect(),
        otherwise: None,
    }
}

/// An inbound call with an offer, a late offer, or an originated call.
pub(crate) enum Begin {
    Offer,
    LateOffer,
    Originate,
}

#[track_caller]
pub(crate) fn check(begin: Begin, plan: Plan, script: &str, expected: Expect) {
    expected.assert_eq(&play(begin, plan, script));
}

/// What lies behind a caller who waits; `joining_ladders.rs` shows how it can go otherwise.
const WAITING: &str = "\
00.000 event Created
00.000 event Action enqueue
00.000 queue enqueue by URI
00.000 media offer A offer with moh/abc
00.000 sip a 200 relay
00.100 > a ack
00.100 event Answered
00.100 queue enqueue abc answered
";

/// What happens to a caller who has been waiting since 0.1 s.
#[track_caller]
pub(crate) fn check_waiting(script: &str, expected: Expect) {
    let log = play(Begin::Offer, queue_plan(), &format!("0.1 a ack\n{script}"));
    expected.assert_eq(log.strip_prefix(WAITING).expect("the caller waits"));
}

pub(crate) fn play(begin: Begin, plan: Plan, script: &str) -> String {
    let start = Instant::now();
    let now = Now { instant: start, unix_ms: 1_000_000 };
    let call = match begin {
        Begin::Offer => Call::inbound(now, facts("sip:1008@h"), plan, Some("offer".into())),
        Begin::LateOffer => Call::inbound(now, facts("sip:1008@h"), plan, None),
        Begin::Originate => {
            let originated =
                Originated { request: RequestNumber(0), ring: RING, return_at_once: false };
            Call::originate(now, facts("user/1000"), plan, originated)
        }
    };
    let mut stage = Stage { call, start, now, log: String::new(), services: Default::default() };
    let mut lines: VecDeque<_> = script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (at, rest) = line.split_once(' ').expect("SECONDS WHO WHAT");
            (Duration::from_secs_f64(at.parse().expect("seconds")), rest)
        })
        .collect();
    while let Some((_, rest)) = lines.pop_front_if(|(at, _)| at.is_zero()) {
        stage.line(rest); // Before anything of the beginning is answered.
    }
    stage.drain();
    loop {
        let timeout = stage.call.poll_timeout();
        match lines.front() {
            Some((at, rest)) if timeout.is_none_or(|timeout| start + *at <= timeout) => {
                stage.advance(start + *at);
                let rest = *rest;
                lines.pop_front();
                stage.line(rest);
            }
            _ => match timeout {
                Some(at) => {
                    stage.advance(at);
                    let now = stage.now;
                    stage.call.handle_timeout(now);
                }
                None => return stage.log,
            },
        }
        stage.drain();
    }
}

#[derive(Default)]
struct Service {
    silent: bool,
    waiting: VecDeque<(CommandNumber, Reply)>,
}

struct Stage {
    call: Call,
    start: Instant,
    now: Now,
    log: String,
    /// media-relay, queue-svc, scheduler.
    services: [Service; 3],
}

impl Stage {
    fn advance(&mut self, to: Instant) {
        let elapsed = to - self.start;
        let unix_ms = 1_000_000 + i64::try_from(elapsed.as_millis()).unwrap();
        self.now = Now { instant: to, unix_ms };
    }

    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let sdp = || Some(Bytes::from_static(b"sdp"));
        let signal = |signal| Some(signal);
        let (who, what) = (words[0], &words[1..]);
        if let Some(service) = ["media", "queue", "scheduler"].iter().position(|it| *it == who) {
            return self.service(service, what);
        }
        if (who, what.is_empty()) == ("restart", true) {
            writeln!(self.log, "{} > restart", self.clock()).unwrap();
            self.call = restarted(self.now, &self.call).expect("a call that can be kept");
            self.services.iter_mut().for_each(|service| service.waiting.clear());
            return;
        }
        let side = |name: &str| if name == "a" { Side::A } else { Side::B };
        let input = match (who, what) {
            ("digit", [of, digit]) => {
                Input::Digit { side: side(of), digit: digit.chars().next().unwrap() }
            }
            ("finished", [play_id]) => Input::PlayFinished { play_id: (*play_id).to_owned() },
            ("kicked", [conference]) => Input::Kicked { conference: (*conference).to_owned() },
            ("inactive", []) => Input::MediaInactive,
            ("lost", []) => Input::MediaLost,
            ("shutdown", []) => Input::ShutDown,
            ("taken", [leg]) => {
                let (leg, cause) = (number_of(leg), Cause::AttendedTransfer);
                Input::LegTaken { leg, cause }
            }
            ("replace", [place, rest @ ..]) => {
                let sdp = rest.first().map(|_| Bytes::from_static(b"sdp"));
                writeln!(self.log, "{} > {line}", self.clock()).unwrap();
                let place = number_of(place);
                let number = self.call.replace(self.now, place, "sip:new@h".to_owned(), sdp);
                writeln!(self.log, "{} as {number:?}", self.clock()).unwrap();
                return;
            }
            ("borrow", [request, rest @ ..]) => {
                let place = rest.first().map(|place| number_of(place));
                let request = Some(RequestNumber(request.parse().unwrap()));
                writeln!(self.log, "{} > {line}", self.clock()).unwrap();
                let (uri, cause) = ("sip:other@h".to_owned(), Cause::Bowout);
                let number = self.call.borrow_leg(self.now, place, uri, cause, request);
                writeln!(self.log, "{} as {number:?}", self.clock()).unwrap();
                return;
            }
            ("ask", [request, ask @ ..]) => {
                let request = RequestNumber(request.parse().unwrap());
                Input::Asked { request, ask: self.ask(ask) }
            }
            ("a" | "b1" | "b2" | "b3", what) => {
                let leg = number_of(who);
                let said = match what {
                    ["ack"] => signal(LegSignal::Acknowledged { sdp: None }),
                    ["ack", "sdp"] => signal(LegSignal::Acknowledged { sdp: sdp() }),
                    ["180"] => signal(LegSignal::Ringing { sdp: None }),
                    ["183", "sdp"] => signal(LegSignal::Ringing { sdp: sdp() }),
                    ["200"] => signal(LegSignal::Answered { sdp: None }),
                    ["200", "sdp"] => signal(LegSignal::Answered { sdp: sdp() }),
                    ["reinvite"] => signal(LegSignal::Reinvited { sdp: None }),
                    ["reinvite", "sdp"] => signal(LegSignal::Reinvited { sdp: sdp() }),
                    ["info", digit] => {
                        let digit = digit.chars().next().unwrap();
                        signal(LegSignal::Digit { digit, duration_ms: 100 })
                    }
                    ["bye"] => signal(LegSignal::Ended(LegEnd::Bye { reason: None })),
                    ["bye", reason] => {
                        let reason = Some((*reason).to_owned());
                        signal(LegSignal::Ended(LegEnd::Bye { reason }))
                    }
                    ["cancel"] => signal(LegSignal::Ended(LegEnd::Cancelled { reason: None })),
                    ["timeout"] => signal(LegSignal::Ended(LegEnd::TimedOut)),
                    ["hungup"] => signal(LegSignal::Ended(LegEnd::HungUp { status: Some(200) })),
                    ["hungup", "unanswered"] => {
                        signal(LegSignal::Ended(LegEnd::HungUp { status: None }))
                    }
                    ["refer", target] => {
                        let headers = vec![("Referred-By".to_owned(), "x".to_owned())];
                        signal(LegSignal::Referred { target: (*target).to_owned(), headers })
                    }
                    ["unresolved"] => {
                        let cause = Cause::UserNotRegistered;
                        signal(LegSignal::Ended(LegEnd::Unresolved { cause }))
                    }
                    [status] => {
                        let status = status.parse().expect("a signal of a leg");
                        signal(LegSignal::Ended(LegEnd::Rejected { status, reason: None }))
                    }
                    _ => None,
                };
                Input::Leg { leg, signal: said.unwrap_or_else(|| panic!("{line}")) }
            }
            _ => panic!("not a line: {line}"),
        };
        writeln!(self.log, "{} > {line}", self.clock()).unwrap();
        self.call.handle(self.now, input);
    }

    fn ask(&self, words: &[&str]) -> Ask {
        match words {
            ["hangup"] => {
                Ask::Hangup { cause: Cause::NormalClearing, legs: Legs::Both, task: None }
            }
            ["hangup", "B", rest @ ..] => {
                Ask::Hangup { cause: Cause::AllottedTimeout, legs: Legs::B, task: task(rest) }
            }
            ["hangup", cause, rest @ ..] => Ask::Hangup {
                cause: Cause::from_name(cause).unwrap(),
                legs: Legs::Both,
                task: task(rest),
            },
            ["transfer", "park", rest @ ..] => {
                let to = Destination::Plan(Plan::new([Action::Park]));
                Ask::Transfer { to, task: task(rest) }
            }
            ["transfer", "on"] => Ask::Transfer { to: Destination::GoOn, task: None },
            ["transfer", "queue", name] => {
                let (name, music) = ((*name).to_owned(), format!("moh/{name}"));
                Ask::Transfer { to: Destination::Queue { name, music }, task: None }
            }
            ["transfer", target, rest @ ..] => {
                let to = Destination::Target((*target).to_owned());
                Ask::Transfer { to, task: task(rest) }
            }
            ["ring", assignment, also @ ..] => Ask::Ring {
                assignment_id: (*assignment).to_owned(),
                target: "user/agent".into(),
                also: also.iter().map(|it| (*it).to_owned()).collect(),
                ring: RING,
            },
            ["stop", assignment] => Ask::StopRinging { assignment_id: (*assignment).to_owned() },
            ["play"] => ask_play(Legs::A, false, None),
            ["play", "wait"] => ask_play(Legs::A, true, None),
            ["play", legs, rest @ ..] => {
                let legs = match *legs {
                    "A" => Legs::A,
                    "B" => Legs::B,
                    _ => Legs::Both,
                };
                let wait = rest.last() == Some(&"wait");
                ask_play(legs, wait, task(&rest[..rest.len() - usize::from(wait)]))
            }
            ["collect"] => Ask::Collect(collect(None, 2, [])),
            ["park"] => Ask::RunPlan(Plan::new([Action::Park])),
            ["limit"] => Ask::RunPlan(limit_plan()),
            ["originate"] => Ask::Originate,
            _ => panic!("not a request: {words:?}"),
        }
    }

    fn service(&mut self, service: usize, what: &[&str]) {
        let kind = match what {
            ["silent"] => {
                self.services[service].silent = true;
                return;
            }
            ["ok"] => None,
            ["held" | "unheard"] => None,
            ["firing"] => None,
            ["nocodec"] => Some(FailureKind::NoCodec),
            ["nofamily"] => Some(FailureKind::NoAddressFamily),
            ["invalid"] => Some(FailureKind::Invalid),
            ["notfound"] => Some(FailureKind::NotFound),
            ["denied"] => Some(FailureKind::Denied),
            ["full"] => Some(FailureKind::Full),
            ["away"] => Some(FailureKind::Unavailable),
            _ => panic!("not an answer: {what:?}"),
        };
        let name = ["media", "queue", "scheduler"][service];
        let waiting = self.services[service].waiting.pop_front();
        let (command, reply) = waiting.unwrap_or_else(|| panic!("{name} has nothing to answer"));
        let reply = match (kind, what, reply) {
            (Some(kind), ..) => Err(Failure { kind, message: what[0].to_owned() }),
            (None, ["held"], Reply::Offered { sdp, .. }) => Ok(Reply::Offered { sdp, held: true }),
            (None, ["unheard"], _) => Ok(Reply::Silent),
            (None, ["firing"], _) => Ok(Reply::Cancelled(CancelOutcome::Firing)),
            (None, _, reply) => Ok(reply),
        };
        writeln!(self.log, "{} > {name} {}", self.clock(), what.join(" ")).unwrap();
        self.call.handle(self.now, Input::Replied { command, reply });
    }

    /// Writes down every output, and answers commands to services that are not silent.
    fn drain(&mut self) {
        while let Some(output) = self.call.poll_output() {
            let line = describe(&output);
            writeln!(self.log, "{} {line}", self.clock()).unwrap();
            let Some((service, number, reply)) = hoped_for(&output) else { continue };
            if self.services[service].silent {
                self.services[service].waiting.push_back((number, reply));
            } else {
                self.call.handle(self.now, Input::Replied { command: number, reply: Ok(reply) });
            }
        }
    }

    fn clock(&self) -> String {
        format!("{:06.3}", (self.now.instant - self.start).as_secs_f64())
    }
}

/// The call in another process, if it is one that can be kept.
pub(crate) fn restarted(now: Now, call: &Call) -> Option<Call> {
    let snapshot = call.snapshot(now)?;
    let text = serde_json::to_string(&snapshot).unwrap();
    let read: Snapshot = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    Some(Call::restore(now, read))
}

/// The reply that one hopes for; `None` for commands whose reply nobody reads.
pub(crate) fn hoped_for(output: &Output) -> Option<(usize, CommandNumber, Reply)> {
    match output {
        Output::Media { number, command } => {
            let play_id = || format!("p{}", number.0);
            let reply = match command {
                MediaCommand::Offer { .. } => Reply::Offered { sdp: "relay".into(), held: false },
                MediaCommand::Answer { .. } => Reply::Negotiated { held: false },
                MediaCommand::Play { .. } => {
                    Reply::Playing { play_id: play_id(), duration: Duration::from_secs(3) }
                }
                MediaCommand::Connect { .. } | MediaCommand::Join { .. } => Reply::Done,
                _ => return None,
            };
            Some((0, *number, reply))
        }
        Output::Queue { number, command: QueueCommand::Enqueue { .. } } => {
            let reply = Reply::Enqueued { queue: "abc".into(), music: "moh/abc".into() };
            Some((1, *number, reply))
        }
        Output::Queue { number, command: QueueCommand::Agent { .. } } => {
            Some((1, *number, Reply::Done))
        }
        Output::Scheduler { number, command } => match command {
            SchedulerCommand::Schedule { .. } => {
                Some((2, *number, Reply::Scheduled { task_id: format!("t{}", number.0) }))
            }
            SchedulerCommand::Cancel { .. } => {
                Some((2, *number, Reply::Cancelled(CancelOutcome::Cancelled)))
            }
            SchedulerCommand::CancelAll => None,
        },
        _ => None,
    }
}

fn number_of(leg: &str) -> LegNumber {
    LegNumber(["a", "b1", "b2", "b3"].iter().position(|it| *it == leg).unwrap() as u32)
}

fn ask_play(legs: Legs, wait: bool, task: Option<Occurrence>) -> Ask {
    Ask::Play { file: "f.wav".into(), legs, task, wait }
}

/// `TASK [OCCURRENCE]`, or nothing.
fn task(words: &[&str]) -> Option<Occurrence> {
    let task_id = (*words.first()?).to_owned();
    let number = words.get(1).map_or(1, |number| number.parse().unwrap());
    Some(Occurrence { task_id, number })
}

pub(crate) fn describe(output: &Output) -> String {
    match output {
        Output::Sip { leg, order } => {
            let leg = if leg.0 == 0 { "a".to_owned() } else { format!("b{}", leg.0) };
            match order {
                SipOrder::Invite { target, headers, .. } => {
                    let with = if headers.is_empty() { "" } else { " with headers" };
                    format!("sip {leg} INVITE {target}{with}")
                }
                SipOrder::Reinvite { .. } => format!("sip {leg} re-INVITE"),
                SipOrder::Take => format!("sip {leg} take"),
                SipOrder::AcceptRefer => format!("sip {leg} 202 REFER"),
                SipOrder::RejectRefer { status } => format!("sip {leg} {status} REFER"),
                SipOrder::NotifyRefer { status } => format!("sip {leg} NOTIFY {status}"),
                SipOrder::Ring { status } => format!("sip {leg} {status}"),
                SipOrder::Answer { sdp } => {
                    format!("sip {leg} 200 {}", String::from_utf8_lossy(sdp))
                }
                SipOrder::Reject { status, warning, retry_after_s } => {
                    let warning =
                        warning.map_or(String::new(), |it| format!(" Warning {}", it.code));
                    let retry =
                        retry_after_s.map_or(String::new(), |it| format!(" Retry-After {it}"));
                    format!("sip {leg} {status}{warning}{retry}")
                }
                SipOrder::Hangup { reason, unanswered_status } => {
                    format!("sip {leg} hangup {reason} or {unanswered_status}")
                }
            }
        }
        Output::Media { command, .. } => format!("media {}", media(command)),
        Output::Queue { command, .. } => match command {
            QueueCommand::Enqueue { queue, answered, .. } => {
                let queue = queue.as_deref().unwrap_or("by URI");
                format!("queue enqueue {queue}{}", if *answered { " answered" } else { "" })
            }
            QueueCommand::Agent { does, agent } => {
                format!("queue agent {} {does:?}", agent.as_deref().unwrap_or("of leg A"))
            }
            QueueCommand::Leave { cause } => format!("queue leave {}", cause.name()),
        },
        Output::Scheduler { command, .. } => match command {
            SchedulerCommand::Schedule { after_ms, what, name } => {
                let what = match what {
                    Later::Hangup { cause, .. } => cause.name().to_owned(),
                    what => format!("{what:?}"),
                };
                format!("scheduler schedule {name} {after_ms} {what}")
            }
            SchedulerCommand::Cancel { task_id } => format!("scheduler cancel {task_id}"),
            SchedulerCommand::CancelAll => "scheduler cancel all".to_owned(),
        },
        Output::Event { event, call } => {
            let event = match event {
                Event::Ended => {
                    let (cause, by) = call.end.unwrap();
                    format!("Ended {} by {by:?}", cause.name())
                }
                Event::Action => format!("Action {}", call.action),
                Event::RingFailed { cause, .. } => format!("RingFailed {}", cause.name()),
                Event::Digit { digit } => format!("Digit {digit}"),
                Event::Ringing { .. } => "Ringing".to_owned(),
                Event::Connected { .. } => "Connected".to_owned(),
                Event::Released { side, status } => {
                    let status = status.map_or("no response".to_owned(), |it| it.to_string());
                    format!("Released {side:?} {status}")
                }
                event => format!("{event:?}"),
            };
            format!("event {event}")
        }
        Output::Answer { request, answer } => {
            let answer = match answer {
                Ok(Answer::Originated(call)) => format!("originated, tasks {:?}", call.tasks),
                Ok(Answer::HungUp { already_ended, call }) => {
                    let by = call.ended_by_task.as_deref();
                    let by = by.map_or(String::new(), |task| format!(" by {task}"));
                    format!("hung up{}{by}", if *already_ended { " before" } else { "" })
                }
                Ok(Answer::Transferred(call)) => format!("transferred, runs {:?}", call.action),
                Ok(Answer::TooLate(call)) => format!("too late, {:?}", call.state),
                Ok(Answer::Bridged(call)) => {
                    let legs = call.legs.iter().map(|leg| leg.remote_uri.as_str());
                    format!("bridged {}", legs.collect::<Vec<_>>().join(" and "))
                }
                Ok(Answer::PlanRuns(call)) => format!("runs {}", call.action),
                Ok(Answer::Ring(result)) => {
                    let status = result.status.map_or(String::new(), |it| format!(" {it}"));
                    format!("{:?}{status}", result.outcome)
                }
                Ok(answer) => format!("{answer:?}"),
                Err(refusal) => format!("refused: {refusal}"),
            };
            format!("answer {} {answer}", request.0)
        }
    }
}

fn media(command: &MediaCommand) -> String {
    let sdp = |sdp: &Option<Bytes>| match sdp {
        Some(sdp) => String::from_utf8_lossy(sdp).into_owned(),
        None => "ours".to_owned(),
    };
    match command {
        MediaCommand::Offer { side, sdp: body, music } => {
            let music = music.as_ref().map_or(String::new(), |it| format!(" with {it}"));
            format!("offer {side:?} {}{music}", sdp(body))
        }
        MediaCommand::Answer { side, .. } => format!("answer {side:?}"),
        MediaCommand::Play { side, file, looping } => {
            format!("play {side:?} {file}{}", if *looping { " looping" } else { "" })
        }
        MediaCommand::Stop { side, leave_conference: false } => format!("stop {side:?}"),
        MediaCommand::Stop { side, .. } => format!("stop {side:?} and leave"),
        MediaCommand::Connect { when_heard: false } => "connect".to_owned(),
        MediaCommand::Connect { when_heard: true } => "connect when heard".to_owned(),
        MediaCommand::Join { side, conference } => {
            let Conference { name, pin, participants_max, music, .. } = &**conference;
            let most = if *participants_max == 0 { "" } else { &format!("of {participants_max}") };
            let details = [&**name, pin, most, music].into_iter().filter(|it| !it.is_empty());
            format!("join {side:?} {}", details.collect::<Vec<_>>().join(" "))
        }
        MediaCommand::InjectDtmf { side, digit, .. } => format!("inject {side:?} {digit}"),
        MediaCommand::Delete { side: Some(side) } => format!("delete {side:?}"),
        MediaCommand::Delete { side: None } => "delete all".to_owned(),
    }
}
