//! Call plans as they come in, checked once: every error names field, value and what is allowed.

use crate::target::Target;
use call::{Action, AgentOrder, Cause, Collect, Conference, Enqueue, Later, Legs, Plan};
use prost::Message as _;
use proto::sip_edge::v1::{self as wire, action, schedule_action, transfer_later};
use std::sync::Arc;
use std::time::Duration;

/// Actions of a plan, counting nested plans.
const ACTIONS_MAX: usize = 64;
/// Plans within plans.
const DEPTH_MAX: usize = 8;
/// A year, in ms.
const AFTER_MS_MAX: u64 = 31_536_000_000;
const RING_MS: std::ops::RangeInclusive<u32> = 1_000..=300_000;
const RING_MS_DEFAULT: u32 = 30_000;
const COLLECT_MS_MAX: u32 = 3_600_000;
const COLLECT_MS_DEFAULT: u32 = 5_000;
const FILE_BYTES_MAX: usize = 1_024;
/// Of a caller in a queue.
const PRIORITY_MAX: u8 = 100;
/// Of a conference: what media-relay takes.
const PIN_DIGITS_MAX: usize = 32;
const PARTICIPANTS_MAX: u32 = 64;
/// Of what a task publishes, and of a plan that it transfers to: what a scheduler takes.
const PAYLOAD_BYTES_MAX: usize = 65_536;
const PLAN_BYTES_MAX: usize = 32_768;

/// A field with a value that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: got {got}, wanted {wanted}")]
pub(crate) struct Invalid {
    pub(crate) field: String,
    got: String,
    wanted: String,
}

impl Invalid {
    pub(crate) fn new(
        field: impl Into<String>,
        got: impl std::fmt::Debug,
        wanted: impl Into<String>,
    ) -> Self {
        let got: String = format!("{got:?}").chars().take(200).collect();
        Self { field: field.into(), got, wanted: wanted.into() }
    }
}

/// The plan in `wire`; `field` is where it stands, for errors.
pub(crate) fn plan(field: &str, wire: &wire::CallPlan) -> Result<Plan, Invalid> {
    let mut checked = Checked { actions: 0 };
    checked.plan(field, wire, 0)
}

/// How a collection is to be done, without branches.
pub(crate) fn collect(field: &str, wire: &wire::CollectAction) -> Result<Collect, Invalid> {
    if !wire.on.is_empty() {
        return Err(Invalid::new(format!("{field}.on"), wire.on.len(), "no branches here"));
    }
    if wire.otherwise.is_some() {
        return Err(Invalid::new(format!("{field}.otherwise"), "a plan", "no branches here"));
    }
    Checked { actions: 0 }.collect(field, wire, 0)
}

/// The hangup cause of that name; `default` if it is empty.
pub(crate) fn cause(field: &str, name: &str, default: Cause) -> Result<Cause, Invalid> {
    match name {
        "" => Ok(default),
        name => Cause::from_name(name).ok_or_else(|| {
            let wanted = "the name of a hangup cause such as NORMAL_CLEARING, USER_BUSY or \
                          ALLOTTED_TIMEOUT (all: enum HangupCause of sip_edge.v1)";
            Invalid::new(field, name, wanted)
        }),
    }
}

/// The target, as text that has been checked.
pub(crate) fn target(field: &str, text: &str) -> Result<String, Invalid> {
    match Target::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => {
            Err(Invalid::new(field, text, "`sip:[USER@]HOST[:PORT]` (UDP or TCP) or `user/NAME`"))
        }
    }
}

/// How long a target may ring; the default if 0.
pub(crate) fn ring(field: &str, ring_ms: u32) -> Result<Duration, Invalid> {
    let ring_ms = if ring_ms == 0 { RING_MS_DEFAULT } else { ring_ms };
    if !RING_MS.contains(&ring_ms) {
        return Err(Invalid::new(field, ring_ms, "1,000 to 300,000 ms"));
    }
    Ok(Duration::from_millis(ring_ms.into()))
}

/// A file name for media-relay.
pub(crate) fn file(field: &str, name: &str) -> Result<String, Invalid> {
    let bad = name.is_empty() || name.len() > FILE_BYTES_MAX || name.chars().any(char::is_control);
    if bad {
        let wanted = "a file below media-relay's --media-dir, 1 to 1,024 bytes";
        return Err(Invalid::new(field, name, wanted));
    }
    Ok(name.to_owned())
}

/// A name of ours: of a conference, a task, a queue.
pub(crate) fn name(field: &str, name: &str) -> Result<String, Invalid> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(Invalid::new(field, name, "1 to 64 of [A-Za-z0-9_.-]"));
    }
    Ok(name.to_owned())
}

/// A queue as queue-svc names it: mohqueue takes any text.
pub(crate) fn queue(field: &str, name: &str) -> Result<String, Invalid> {
    if name.is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
        return Err(Invalid::new(field, name, "the name of a queue, 1 to 100 bytes"));
    }
    Ok(name.to_owned())
}

fn conference(at: &str, wire: &wire::ConferenceAction) -> Result<Conference, Invalid> {
    let pin = wire.pin.clone();
    if pin.len() > PIN_DIGITS_MAX || !pin.bytes().all(|it| it.is_ascii_digit()) {
        let got = format!("{} characters", pin.chars().count()); // A secret is not repeated.
        return Err(Invalid::new(format!("{at}.pin"), got, "at most 32 digits 0-9, in quotes"));
    }
    if pin.is_empty() && wire.pin_prompt.is_some() {
        let wanted = "a pin with it, or no prompt";
        return Err(Invalid::new(format!("{at}.pin_prompt"), "a prompt", wanted));
    }
    if wire.max_participants > PARTICIPANTS_MAX {
        let field = format!("{at}.max_participants");
        return Err(Invalid::new(field, wire.max_participants, "1 to 64"));
    }
    let file = |field: &str, it: &Option<wire::PlayAction>| {
        it.as_ref().map(|it| file(&format!("{at}.{field}.file"), &it.file)).transpose()
    };
    Ok(Conference {
        name: name(&format!("{at}.name"), &wire.name)?,
        pin,
        pin_prompt: file("pin_prompt", &wire.pin_prompt)?,
        participants_max: wire.max_participants,
        music: file("music", &wire.music)?.unwrap_or_default(),
    })
}

/// Counts the actions of a whole plan.
struct Checked {
    actions: usize,
}

impl Checked {
    fn plan(&mut self, field: &str, wire: &wire::CallPlan, depth: usize) -> Result<Plan, Invalid> {
        if depth > DEPTH_MAX {
            return Err(Invalid::new(field, depth, format!("at most {DEPTH_MAX} plans in plans")));
        }
        self.actions += wire.actions.len();
        if self.actions > ACTIONS_MAX {
            let wanted = format!("at most {ACTIONS_MAX} actions, counting nested plans");
            return Err(Invalid::new(format!("{field}.actions"), self.actions, wanted));
        }
        let actions = wire.actions.iter().enumerate();
        let actions: Result<Vec<_>, _> = actions
            .map(|(index, action)| self.action(&format!("{field}.actions[{index}]"), action, depth))
            .collect();
        Ok(Plan::new(actions?))
    }

    fn action(&mut self, at: &str, wire: &wire::Action, depth: usize) -> Result<Action, Invalid> {
        use action::Action as Wire;
        Ok(match &wire.action {
            None => {
                let wanted = "one of answer, play, collect, schedule, cancel, enqueue, conference, \
                              dial, hangup, park, agent";
                return Err(Invalid::new(at, "nothing", wanted));
            }
            Some(Wire::Answer(_)) => Action::Answer,
            Some(Wire::Park(_)) => Action::Park,
            Some(Wire::Play(it)) => {
                Action::Play { file: file(&format!("{at}.play.file"), &it.file)? }
            }
            Some(Wire::Collect(it)) => {
                Action::Collect(Arc::new(self.collect(&format!("{at}.collect"), it, depth)?))
            }
            Some(Wire::Schedule(it)) => self.schedule(&format!("{at}.schedule"), it, depth)?,
            Some(Wire::Cancel(it)) => {
                Action::Cancel { name: name(&format!("{at}.cancel.name"), &it.name)? }
            }
            Some(Wire::Enqueue(it)) => {
                Action::Enqueue(Arc::new(self.enqueue(&format!("{at}.enqueue"), it, depth)?))
            }
            Some(Wire::Agent(it)) => self.agent(&format!("{at}.agent"), it, depth)?,
            Some(Wire::Conference(it)) => {
                Action::Conference(Arc::new(conference(&format!("{at}.conference"), it)?))
            }
            Some(Wire::Dial(it)) => self.dial(&format!("{at}.dial"), it, depth)?,
            Some(Wire::Hangup(it)) => {
                let field = format!("{at}.hangup.cause");
                Action::Hangup { cause: cause(&field, &it.cause, Cause::NormalClearing)? }
            }
        })
    }

    fn enqueue(
        &mut self,
        at: &str,
        wire: &wire::EnqueueAction,
        depth: usize,
    ) -> Result<Enqueue, Invalid> {
        let given = Some(wire.queue.as_str()).filter(|it| !it.is_empty());
        let priority = u8::try_from(wire.priority).ok().filter(|it| *it <= PRIORITY_MAX);
        let wrong = || Invalid::new(format!("{at}.priority"), wire.priority, "0 to 100");
        let mut keys: Vec<_> = wire.on.iter().collect();
        keys.sort_unstable_by_key(|(key, _)| *key); // So that the first error is always the same.
        let mut on = std::collections::BTreeMap::new();
        for (key, branch) in keys {
            let key = digits(&format!("{at}.on"), key, 1)?;
            let (Some(digit), 1) = (key.chars().next(), key.len()) else {
                return Err(Invalid::new(format!("{at}.on"), key, "one digit"));
            };
            on.insert(digit, self.plan(&format!("{at}.on[{key:?}]"), branch, depth + 1)?);
        }
        Ok(Enqueue {
            queue: given.map(|it| name(&format!("{at}.queue"), it)).transpose()?,
            priority: priority.ok_or_else(wrong)?,
            on,
            otherwise: self.branch(&format!("{at}.otherwise"), wire.otherwise.as_ref(), depth)?,
        })
    }

    fn agent(
        &mut self,
        at: &str,
        wire: &wire::AgentAction,
        depth: usize,
    ) -> Result<Action, Invalid> {
        use wire::agent_action::Does;
        let does = match wire.does() {
            Does::Login => AgentOrder::Login,
            Does::Logout => AgentOrder::Logout,
            Does::Pause => AgentOrder::Pause,
            Does::Unpause => AgentOrder::Unpause,
            Does::Toggle => AgentOrder::Toggle,
            Does::Ready => AgentOrder::Ready,
            Does::Unspecified => {
                let wanted = "LOGIN, LOGOUT, PAUSE, UNPAUSE, TOGGLE or READY";
                return Err(Invalid::new(format!("{at}.does"), wire.does, wanted));
            }
        };
        let agent = Some(wire.agent.as_str()).filter(|it| !it.is_empty());
        Ok(Action::Agent {
            does,
            agent: agent.map(|it| name(&format!("{at}.agent"), it)).transpose()?,
            otherwise: self.branch(&format!("{at}.otherwise"), wire.otherwise.as_ref(), depth)?,
        })
    }

    fn dial(&mut self, at: &str, wire: &wire::DialAction, depth: usize) -> Result<Action, Invalid> {
        let otherwise = format!("{at}.otherwise");
        Ok(Action::Dial {
            target: target(&format!("{at}.target"), &wire.target)?,
            ring: ring(&format!("{at}.ring_timeout_ms"), wire.ring_timeout_ms)?,
            otherwise: self.branch(&otherwise, wire.otherwise.as_ref(), depth)?,
        })
    }

    fn schedule(
        &mut self,
        at: &str,
        wire: &wire::ScheduleAction,
        depth: usize,
    ) -> Result<Action, Invalid> {
        if !(1..=AFTER_MS_MAX).contains(&wire.after_ms) {
            let wanted = "1 to 31,536,000,000 ms (a year)";
            return Err(Invalid::new(format!("{at}.after_ms"), wire.after_ms, wanted));
        }
        let what = self.later(at, wire.what.as_ref(), depth)?;
        let name = match (wire.r#as.as_str(), &what) {
            ("", Later::Hangup { .. }) => "hangup".to_owned(),
            ("", Later::TransferToTarget(_) | Later::TransferToPlan(_)) => "transfer".to_owned(),
            ("", Later::Play { .. }) => "play".to_owned(),
            ("", Later::Publish { .. }) => "publish".to_owned(),
            (given, _) => name(&format!("{at}.as"), given)?,
        };
        Ok(Action::Schedule { after_ms: wire.after_ms, what, name })
    }

    fn later(
        &mut self,
        at: &str,
        wire: Option<&schedule_action::What>,
        depth: usize,
    ) -> Result<Later, Invalid> {
        use schedule_action::What as Wire;
        let field = |name: &str| format!("{at}.{name}");
        Ok(match wire {
            None => {
                let wanted = "one of hangup, transfer, play, publish, e.g. `hangup: {}`";
                return Err(Invalid::new(at, "nothing to do", wanted));
            }
            Some(Wire::Hangup(it)) => Later::Hangup {
                cause: cause(&field("hangup.cause"), &it.cause, Cause::AllottedTimeout)?,
                legs: legs(&field("hangup.legs"), it.legs, Legs::Both)?,
            },
            Some(Wire::Transfer(it)) => match &it.to {
                None => {
                    return Err(Invalid::new(field("transfer"), "nothing", "a uri or a plan"));
                }
                Some(transfer_later::To::Uri(uri)) => {
                    Later::TransferToTarget(target(&field("transfer.uri"), uri)?)
                }
                Some(transfer_later::To::Plan(plan)) => {
                    let field = field("transfer.plan");
                    self.plan(&field, plan, depth + 1)?;
                    if plan.encoded_len() > PLAN_BYTES_MAX {
                        let wanted = format!("at most {PLAN_BYTES_MAX} bytes");
                        return Err(Invalid::new(field, plan.encoded_len(), wanted));
                    }
                    Later::TransferToPlan(plan.encode_to_vec().into())
                }
            },
            Some(Wire::Play(it)) => Later::Play {
                file: file(&field("play.file"), &it.file)?,
                legs: legs(&field("play.legs"), it.legs, Legs::A)?,
            },
            Some(Wire::Publish(it)) if it.payload.len() > PAYLOAD_BYTES_MAX => {
                let wanted = format!("at most {PAYLOAD_BYTES_MAX} bytes");
                return Err(Invalid::new(field("publish.payload"), it.payload.len(), wanted));
            }
            Some(Wire::Publish(it)) => Later::Publish {
                subject: subject(&field("publish.subject"), &it.subject)?,
                payload: it.payload.clone().into(),
            },
        })
    }

    fn branch(
        &mut self,
        field: &str,
        wire: Option<&wire::CallPlan>,
        depth: usize,
    ) -> Result<Option<Plan>, Invalid> {
        wire.map(|wire| self.plan(field, wire, depth + 1)).transpose()
    }

    fn collect(
        &mut self,
        at: &str,
        wire: &wire::CollectAction,
        depth: usize,
    ) -> Result<Collect, Invalid> {
        let prompt = wire.prompt.as_ref();
        let timeout_ms = or_default(wire.timeout_ms, COLLECT_MS_DEFAULT);
        let digit_timeout_ms = or_default(wire.digit_timeout_ms, timeout_ms);
        for (field, ms) in [("timeout_ms", timeout_ms), ("digit_timeout_ms", digit_timeout_ms)] {
            if ms > COLLECT_MS_MAX {
                return Err(Invalid::new(format!("{at}.{field}"), ms, "1 to 3,600,000 ms"));
            }
        }
        if wire.max_digits > 128 {
            return Err(Invalid::new(format!("{at}.max_digits"), wire.max_digits, "1 to 128"));
        }
        let max_digits = or_default(wire.max_digits, 1) as usize;
        let field = format!("{at}.terminators");
        let terminators = digits(&field, &wire.terminators, 0)?;
        let mut keys: Vec<_> = wire.on.iter().collect();
        keys.sort_unstable_by_key(|(key, _)| *key); // So that the first error is always the same.
        let mut on = std::collections::BTreeMap::new();
        for (key, branch) in keys {
            let key = digits(&format!("{at}.on"), key, 1)?;
            if key.len() > max_digits || key.contains(|digit| terminators.contains(digit)) {
                let wanted =
                    format!("at most max_digits ({max_digits}) digits, none of them a terminator");
                return Err(Invalid::new(format!("{at}.on"), key, wanted)); // It could never come.
            }
            let branch = self.plan(&format!("{at}.on[{key:?}]"), branch, depth + 1)?;
            on.insert(key, branch);
        }
        Ok(Collect {
            prompt: prompt.map(|it| file(&format!("{at}.prompt.file"), &it.file)).transpose()?,
            max_digits,
            timeout: Duration::from_millis(timeout_ms.into()),
            digit_timeout: Duration::from_millis(digit_timeout_ms.into()),
            terminators,
            on,
            otherwise: self.branch(&format!("{at}.otherwise"), wire.otherwise.as_ref(), depth)?,
        })
    }
}

/// The legs of that number; `default` if they are not given.
pub(crate) fn legs(field: &str, number: i32, default: Legs) -> Result<Legs, Invalid> {
    match wire::Legs::try_from(number) {
        Ok(wire::Legs::Unspecified) => Ok(default),
        Ok(wire::Legs::Both) => Ok(Legs::Both),
        Ok(wire::Legs::A) => Ok(Legs::A),
        Ok(wire::Legs::B) => Ok(Legs::B),
        Err(_) => Err(Invalid::new(field, number, "LEGS_BOTH, LEGS_A or LEGS_B")),
    }
}

/// A subject that a task may publish on.
fn subject(field: &str, subject: &str) -> Result<String, Invalid> {
    proto::subjects::check_foreign(subject)
        .map(|()| subject.to_owned())
        .map_err(|wanted| Invalid::new(field, subject, wanted))
}

fn digits(field: &str, text: &str, min: usize) -> Result<String, Invalid> {
    let valid = text.chars().all(call::dtmf_info::is_digit);
    if !valid || text.len() < min || text.len() > 128 {
        return Err(Invalid::new(field, text, "digits of 0-9 * # A-D"));
    }
    Ok(text.to_owned())
}

fn or_default(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_b_is_a_plan() {
        let plan = read(
            r#"{"actions": [
                {"schedule": {"after_ms": 20000, "hangup": {}, "as": "limit"}},
                {"collect": {"prompt": {"file": "p.wav"}, "timeout_ms": 4000, "on": {"1": {"actions": [
                    {"cancel": {"name": "limit"}}, {"conference": {"name": "test1"}}]}}}},
                {"park": {}}]}"#,
        )
        .unwrap();
        let Some(Action::Schedule { what, name, .. }) = plan.action(0) else { panic!("{plan:?}") };
        let hangup = Later::Hangup { cause: Cause::AllottedTimeout, legs: Legs::Both };
        assert_eq!((what, name.as_str()), (&hangup, "limit"));
        let Some(Action::Collect(collect)) = plan.action(1) else { panic!("{plan:?}") };
        assert_eq!((collect.max_digits, collect.digit_timeout), (1, Duration::from_secs(4)));
        let test1 = Conference { name: "test1".into(), ..Conference::default() };
        assert_eq!(collect.on["1"].action(1), Some(&Action::Conference(Arc::new(test1))));
    }

    #[test]
    fn an_error_names_field_value_and_what_is_allowed() {
        for (action, expected) in [
            (r#"{}"#, r#"plan.actions[0]: got "nothing", wanted one of answer, play"#),
            (r#"{"play": {}}"#, r#"plan.actions[0].play.file: got "", wanted a file"#),
            (
                r#"{"hangup": {"cause": "BORED"}}"#,
                r#"plan.actions[0].hangup.cause: got "BORED", wanted the name of a hangup cause"#,
            ),
            (
                r#"{"schedule": {"after_ms": 0, "hangup": {}}}"#,
                "plan.actions[0].schedule.after_ms: got 0, wanted 1 to 31,536,000,000 ms",
            ),
            (
                r#"{"schedule": {"after_ms": 5}}"#,
                r#"plan.actions[0].schedule: got "nothing to do", wanted one of hangup"#,
            ),
            (
                r#"{"schedule": {"after_ms": 5, "transfer": {}}}"#,
                r#"plan.actions[0].schedule.transfer: got "nothing", wanted a uri or a plan"#,
            ),
            (
                r#"{"schedule": {"after_ms": 5, "transfer": {"plan": {"actions": [{}]}}}}"#,
                r#"plan.actions[0].schedule.transfer.plan.actions[0]: got "nothing", wanted one of"#,
            ),
            (
                r#"{"schedule": {"after_ms": 5, "play": {"file": "f", "legs": 9}}}"#,
                "plan.actions[0].schedule.play.legs: got 9, wanted LEGS_BOTH, LEGS_A or LEGS_B",
            ),
            (
                r#"{"schedule": {"after_ms": 5, "publish": {"subject": "holdfast.call.x"}}}"#,
                r#"plan.actions[0].schedule.publish.subject: got "holdfast.call.x", wanted a subject"#,
            ),
            (
                r#"{"collect": {"on": {"": {}}}}"#,
                r#"plan.actions[0].collect.on: got "", wanted digits of 0-9"#,
            ),
            (
                r#"{"collect": {"on": {"12": {}}}}"#,
                r#"plan.actions[0].collect.on: got "12", wanted at most max_digits (1) digits"#,
            ),
            (
                r##"{"collect": {"terminators": "#", "max_digits": 2, "on": {"1#": {}}}}"##,
                r##"plan.actions[0].collect.on: got "1#", wanted at most max_digits (2) digits"##,
            ),
            (
                r#"{"collect": {"on": {"1": {"actions": [{"conference": {"name": "a b"}}]}}}}"#,
                r#"plan.actions[0].collect.on["1"].actions[0].conference.name: got "a b", wanted 1 to 64"#,
            ),
            (
                r#"{"conference": {"name": "a", "pin": "12a4"}}"#,
                r#"plan.actions[0].conference.pin: got "4 characters", wanted at most 32 digits"#,
            ),
            (
                r#"{"conference": {"name": "a", "pin_prompt": {"file": "p"}}}"#,
                "plan.actions[0].conference.pin_prompt: got \"a prompt\", wanted a pin with it",
            ),
            (
                r#"{"conference": {"name": "a", "max_participants": 65}}"#,
                "plan.actions[0].conference.max_participants: got 65, wanted 1 to 64",
            ),
            (
                r#"{"conference": {"name": "a", "music": {}}}"#,
                r#"plan.actions[0].conference.music.file: got "", wanted a file"#,
            ),
            (
                r#"{"enqueue": {"priority": 101}}"#,
                "plan.actions[0].enqueue.priority: got 101, wanted 0 to 100",
            ),
            (
                r#"{"enqueue": {"on": {"12": {}}}}"#,
                r#"plan.actions[0].enqueue.on: got "12", wanted one digit"#,
            ),
            (r#"{"agent": {}}"#, "plan.actions[0].agent.does: got 0, wanted LOGIN, LOGOUT"),
            (
                r#"{"dial": {"target": "1000"}}"#,
                r#"plan.actions[0].dial.target: got "1000", wanted `sip:"#,
            ),
            (
                r#"{"dial": {"target": "user/1", "ring_timeout_ms": 999}}"#,
                "plan.actions[0].dial.ring_timeout_ms: got 999, wanted 1,000 to 300,000 ms",
            ),
        ] {
            let error = read(&format!(r#"{{"actions": [{action}]}}"#)).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_plan_has_64_actions_and_8_levels_at_most() {
        let many =
            |n: usize| format!(r#"{{"actions": [{}]}}"#, vec![r#"{"park": {}}"#; n].join(","));
        assert!(read(&many(64)).is_ok());
        assert!(read(&many(65)).unwrap_err().to_string().contains("at most 64 actions"));
        let deep = |n: usize| {
            let open = r#"{"actions": [{"dial": {"target": "user/1", "otherwise": "#.repeat(n);
            format!("{open}{{}}{}", "}}]}".repeat(n))
        };
        assert!(read(&deep(8)).is_ok());
        assert!(read(&deep(9)).unwrap_err().to_string().contains("at most 8 plans in plans"));
    }

    #[test]
    fn the_causes_are_those_of_the_protobuf() {
        for &cause in Cause::ALL {
            let wire = wire::HangupCause::from_str_name(cause.name());
            assert_eq!(wire.map(i32::from), Some(i32::from(cause.number())), "{}", cause.name());
        }
        let known = (0..=i32::from(u16::MAX)).filter(|n| wire::HangupCause::try_from(*n).is_ok());
        assert_eq!(known.count(), Cause::ALL.len() + 1, "all but UNSPECIFIED");
    }

    fn read(json: &str) -> Result<Plan, Invalid> {
        plan("plan", &proto::json::from_json(json).unwrap())
    }
}
