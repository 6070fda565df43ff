//! Non-INVITE server transaction: RFC 3261 §17.2.2 (Figure 8).

use super::timers::{Timers, Timing};
use super::{Failure, Output, Outputs};
use std::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Trying,
    Proceeding,
    Completed,
    Terminated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    J,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Input {
    Retransmitted,
    /// The TU answers with this status.
    Respond(u16),
    Fired(Timer),
    TransportFailed,
}

#[derive(Debug)]
pub(crate) struct ServerNonInvite {
    state: State,
    timers: Timers<Timer>,
    timing: Timing,
    reliable: bool,
    outputs: Outputs,
}

impl ServerNonInvite {
    pub(crate) fn new(timing: Timing, reliable: bool) -> Self {
        let (state, timers) = (State::Trying, Timers::new());
        Self { state, timers, timing, reliable, outputs: Outputs::default() }
    }

    pub(crate) fn is_terminated(&self) -> bool {
        self.state == State::Terminated
    }

    /// The whole of Figure 8: one arrow, one line. `Output::Send` is the last response.
    pub(crate) fn handle(&mut self, now: Instant, input: Input) {
        use {Input::*, State::*, Timer::*};
        self.state = match (self.state, input) {
            (Trying | Proceeding, Respond(100..=199)) => self.send(Proceeding),
            (Trying | Proceeding, Respond(200..=699)) => self.complete(now),
            (Proceeding, Retransmitted) => self.send(Proceeding),
            (Completed, Retransmitted) => self.send(Completed),
            (Proceeding | Completed, TransportFailed) => self.fail(),
            (Completed, Fired(J)) => Terminated,
            (state, _) => state, // Late timers and stray messages: the figure draws no arrow.
        };
    }

    fn send(&mut self, next: State) -> State {
        self.outputs.push(Output::Send);
        next
    }

    fn complete(&mut self, now: Instant) -> State {
        let linger = self.timing.linger(self.reliable, self.timing.timeout());
        self.timers.set(Timer::J, now + linger);
        self.send(State::Completed)
    }

    fn fail(&mut self) -> State {
        self.timers.clear();
        self.outputs.push(Output::Failed(Failure::Transport));
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

    impl Machine for ServerNonInvite {
        fn input(&mut self, now: Instant, word: &str) {
            match word {
                "broken" => self.handle(now, Input::TransportFailed),
                "again" => self.handle(now, Input::Retransmitted),
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
        ladder::run(
            ServerNonInvite::new(ladder::TIMING, reliable),
            Instant::now(),
            script,
            expected,
        );
    }

    #[test]
    fn repeated_request_gets_the_response_again_until_timer_j() {
        check(
            false,
            "0 again | 0.1 200 | 0.5 again | 1 again",
            expect![[r#"
            00.100 Send
            00.500 Send
            01.000 Send
            32.100 Terminated
        "#]],
        );
    }

    #[test]
    fn by_tcp_the_transaction_ends_with_its_response() {
        check(
            true,
            "0.1 200",
            expect![[r#"
            00.100 Send
            00.100 Terminated
        "#]],
        );
    }

    #[test]
    fn broken_transport_ends_it() {
        check(
            false,
            "0.1 200 | 0.2 broken",
            expect![[r#"
            00.100 Send
            00.200 Failed(Transport)
            00.200 Terminated
        "#]],
        );
    }
}
