//! INVITE server transaction: RFC 3261 §17.2.1 (Figure 7), as amended by RFC 6026 §7.1.

use super::timers::{Timers, Timing};
use super::{Failure, Output, Outputs};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Proceeding,
    Completed,
    Confirmed,
    Accepted,
    Terminated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    G,
    H,
    I,
    L,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Input {
    /// The INVITE again.
    Retransmitted,
    Acknowledged,
    /// The TU answers with this status.
    Respond(u16),
    Fired(Timer),
    TransportFailed,
}

#[derive(Debug)]
pub(crate) struct ServerInvite {
    state: State,
    timers: Timers<Timer>,
    timing: Timing,
    interval: Duration,
    reliable: bool,
    outputs: Outputs,
}

impl ServerInvite {
    pub(crate) fn new(timing: Timing, reliable: bool) -> Self {
        let (state, timers, interval) = (State::Proceeding, Timers::new(), timing.t1);
        Self { state, timers, timing, interval, reliable, outputs: Outputs::default() }
    }

    pub(crate) fn is_terminated(&self) -> bool {
        self.state == State::Terminated
    }

    /// The whole of Figure 7: one arrow, one line. Actions below never branch.
    ///
    /// `Output::Send` is the last response; the 2xx is repeated by the TU, not here.
    pub(crate) fn handle(&mut self, now: Instant, input: Input) {
        use {Input::*, State::*, Timer::*};
        self.state = match (self.state, input) {
            (Proceeding, Retransmitted | Respond(100..=199)) => self.send(Proceeding),
            (Proceeding, Respond(200..=299)) => self.accept(now),
            (Proceeding, Respond(300..=699)) => self.complete(now),
            (Proceeding | Completed, TransportFailed) => self.fail(Failure::Transport),
            (Completed, Retransmitted) => self.send(Completed),
            (Completed, Fired(G)) => self.repeat(now),
            (Completed, Fired(H)) => self.fail(Failure::TimedOut),
            (Completed, Acknowledged) => self.confirm(now),
            (Confirmed, Fired(I)) | (Accepted, Fired(L)) => Terminated,
            (Accepted, Acknowledged) => self.pass_up(), // Only of peers that follow RFC 2543.
            (state, _) => state, // Late timers and stray messages: the figure draws no arrow.
        };
    }

    fn send(&mut self, next: State) -> State {
        self.outputs.push(Output::Send);
        next
    }

    fn accept(&mut self, now: Instant) -> State {
        self.timers.set(Timer::L, now + self.timing.timeout());
        self.send(State::Accepted)
    }

    fn complete(&mut self, now: Instant) -> State {
        if !self.reliable {
            self.timers.set(Timer::G, now + self.interval);
        }
        self.timers.set(Timer::H, now + self.timing.timeout());
        self.send(State::Completed)
    }

    fn repeat(&mut self, now: Instant) -> State {
        self.interval = (self.interval * 2).min(self.timing.t2);
        self.timers.set(Timer::G, now + self.interval);
        self.send(State::Completed)
    }

    fn confirm(&mut self, now: Instant) -> State {
        self.timers.clear();
        self.timers.set(Timer::I, now + self.timing.linger(self.reliable, self.timing.t4));
        State::Confirmed
    }

    fn pass_up(&mut self) -> State {
        self.outputs.push(Output::PassUp);
        State::Accepted
    }

    fn fail(&mut self, failure: Failure) -> State {
        self.timers.clear();
        self.outputs.push(Output::Failed(failure));
        State::Terminated
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.take_expired(now) {
            self.handle(now, Input::Fired(timer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::ladder::{self, Machine};
    use expect_test::{Expect, expect};

    impl Machine for ServerInvite {
        fn input(&mut self, now: Instant, word: &str) {
            match word {
                "broken" => self.handle(now, Input::TransportFailed),
                "INVITE" => self.handle(now, Input::Retransmitted),
                "ACK" => self.handle(now, Input::Acknowledged),
                status => self.handle(now, Input::Respond(status.parse().unwrap())),
            }
        }
        fn output(&mut self) -> Option<Output> {
            self.poll_output()
        }
        fn timeout(&self) -> Option<Instant> {
            self.poll_timeout()
        }
        fn fire(&mut self, now: Instant) {
            self.handle_timeout(now);
        }
        fn over(&self) -> bool {
            self.is_terminated()
        }
    }

    #[track_caller]
    fn check(reliable: bool, script: &str, expected: Expect) {
        ladder::run(ServerInvite::new(ladder::TIMING, reliable), Instant::now(), script, expected);
    }

    #[test]
    fn retransmitted_invite_gets_the_last_provisional_again() {
        check(
            false,
            "0 100 | 0.5 INVITE | 1 180 | 1.5 INVITE | 2 486 | 2.1 ACK",
            expect![[r#"
            00.000 Send
            00.500 Send
            01.000 Send
            01.500 Send
            02.000 Send
            07.100 Terminated
        "#]],
        );
    }

    #[test]
    fn rejection_without_ack_is_repeated_until_timer_h() {
        check(
            false,
            "0 486",
            expect![[r#"
            00.000 Send
            00.500 Send
            01.500 Send
            03.500 Send
            07.500 Send
            11.500 Send
            15.500 Send
            19.500 Send
            23.500 Send
            27.500 Send
            31.500 Send
            32.000 Failed(TimedOut)
            32.000 Terminated
        "#]],
        );
        check(
            true,
            "0 486",
            expect![[r#"
            00.000 Send
            32.000 Failed(TimedOut)
            32.000 Terminated
        "#]],
        );
    }

    #[test]
    fn after_a_2xx_the_invite_is_absorbed_until_timer_l() {
        check(
            false,
            "0 200 | 0.5 INVITE | 1 ACK",
            expect![[r#"
            00.000 Send
            01.000 PassUp
            32.000 Terminated
        "#]],
        );
    }

    #[test]
    fn confirmed_transaction_absorbs_acks_until_timer_i() {
        check(
            false,
            "0 486 | 0.1 ACK | 0.2 ACK | 0.3 INVITE",
            expect![[r#"
            00.000 Send
            05.100 Terminated
        "#]],
        );
        check(
            true,
            "0 486 | 0.1 ACK",
            expect![[r#"
            00.000 Send
            00.100 Terminated
        "#]],
        );
    }

    #[test]
    fn broken_transport_fails_a_pending_invite() {
        check(
            true,
            "0 100 | 0.1 broken",
            expect![[r#"
            00.000 Send
            00.100 Failed(Transport)
            00.100 Terminated
        "#]],
        );
    }
}
