//! Non-INVITE client transaction: RFC 3261 §17.1.2 (Figure 6).

use super::timers::{Timers, Timing};
use super::{Failure, Output, Outputs};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Trying,
    Proceeding,
    Completed,
    Terminated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    E,
    F,
    K,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Input {
    Response(u16),
    Fired(Timer),
    TransportFailed,
}

#[derive(Debug)]
pub(crate) struct ClientNonInvite {
    state: State,
    timers: Timers<Timer>,
    timing: Timing,
    interval: Duration,
    reliable: bool,
    outputs: Outputs,
}

impl ClientNonInvite {
    pub(crate) fn new(now: Instant, timing: Timing, reliable: bool) -> Self {
        let mut tx = Self {
            state: State::Trying,
            timers: Timers::new(),
            timing,
            interval: timing.t1,
            reliable,
            outputs: Outputs::of(Output::Send),
        };
        if !reliable {
            tx.timers.set(Timer::E, now + timing.t1);
        }
        tx.timers.set(Timer::F, now + timing.timeout());
        tx
    }

    pub(crate) fn is_terminated(&self) -> bool {
        self.state == State::Terminated
    }

    /// The whole of Figure 6: one arrow, one line. Actions below never branch.
    pub(crate) fn handle(&mut self, now: Instant, input: Input) {
        use {Input::*, State::*, Timer::*};
        self.state = match (self.state, input) {
            (Trying, Fired(E)) => self.retransmit(now, self.interval * 2, Trying),
            (Proceeding, Fired(E)) => self.retransmit(now, self.timing.t2, Proceeding),
            (Trying | Proceeding, Fired(F)) => self.fail(Failure::TimedOut),
            (Trying | Proceeding, TransportFailed) => self.fail(Failure::Transport),
            (Trying | Proceeding, Response(100..=199)) => self.proceed(),
            (Trying | Proceeding, Response(200..=699)) => self.complete(now),
            (Completed, Fired(K)) => Terminated,
            (state, _) => state, // Late timers and stray messages: the figure draws no arrow.
        };
    }

    fn retransmit(&mut self, now: Instant, interval: Duration, next: State) -> State {
        self.interval = interval.min(self.timing.t2);
        self.timers.set(Timer::E, now + self.interval);
        self.outputs.push(Output::Send);
        next
    }

    fn proceed(&mut self) -> State {
        self.outputs.push(Output::PassUp);
        State::Proceeding
    }

    fn complete(&mut self, now: Instant) -> State {
        self.timers.clear();
        self.timers.set(Timer::K, now + self.timing.linger(self.reliable, self.timing.t4));
        self.outputs.push(Output::PassUp);
        State::Completed
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

    impl Machine for ClientNonInvite {
        fn input(&mut self, now: Instant, word: &str) {
            match word {
                "broken" => self.handle(now, Input::TransportFailed),
                status => self.handle(now, Input::Response(status.parse().unwrap())),
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
        let start = Instant::now();
        ladder::run(ClientNonInvite::new(start, ladder::TIMING, reliable), start, script, expected);
    }

    #[test]
    fn unanswered_request_backs_off_to_t2_until_timer_f() {
        check(
            false,
            "",
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
            "",
            expect![[r#"
            00.000 Send
            32.000 Failed(TimedOut)
            32.000 Terminated
        "#]],
        );
    }

    #[test]
    fn provisional_slows_retransmission_to_t2_but_does_not_stop_timer_f() {
        check(
            false,
            "0.1 100",
            expect![[r#"
            00.000 Send
            00.100 PassUp
            00.500 Send
            04.500 Send
            08.500 Send
            12.500 Send
            16.500 Send
            20.500 Send
            24.500 Send
            28.500 Send
            32.000 Failed(TimedOut)
            32.000 Terminated
        "#]],
        );
    }

    #[test]
    fn repeated_final_response_is_absorbed_until_timer_k() {
        check(
            false,
            "0.1 200 | 0.6 200",
            expect![[r#"
            00.000 Send
            00.100 PassUp
            05.100 Terminated
        "#]],
        );
        check(
            true,
            "0.1 200",
            expect![[r#"
            00.000 Send
            00.100 PassUp
            00.100 Terminated
        "#]],
        );
    }

    #[test]
    fn broken_transport_fails_the_request() {
        check(
            true,
            "0.1 broken",
            expect![[r#"
            00.000 Send
            00.100 Failed(Transport)
            00.100 Terminated
        "#]],
        );
    }
}
