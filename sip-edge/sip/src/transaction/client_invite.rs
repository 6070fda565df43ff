//! INVITE client transaction: RFC 3261 §17.1.1 (Figure 5), as amended by RFC 6026 §7.2.

use super::timers::{Timers, Timing};
use super::{Failure, Output, Outputs};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Calling,
    Proceeding,
    Completed,
    Accepted,
    Terminated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    A,
    B,
    D,
    M,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Input {
    Response(u16),
    /// CANCEL is on its way: the final response must come within 64·T1 (§9.1).
    Cancelled,
    Fired(Timer),
    TransportFailed,
}

#[derive(Debug)]
pub(crate) struct ClientInvite {
    state: State,
    timers: Timers<Timer>,
    timing: Timing,
    interval: Duration,
    reliable: bool,
    outputs: Outputs,
}

impl ClientInvite {
    pub(crate) fn new(now: Instant, timing: Timing, reliable: bool) -> Self {
        let mut tx = Self {
            state: State::Calling,
            timers: Timers::new(),
            timing,
            interval: timing.t1,
            reliable,
            outputs: Outputs::of(Output::Send),
        };
        if !reliable {
            tx.timers.set(Timer::A, now + timing.t1);
        }
        tx.timers.set(Timer::B, now + timing.timeout());
        tx
    }

    pub(crate) fn is_terminated(&self) -> bool {
        self.state == State::Terminated
    }

    /// The whole of Figure 5: one arrow, one line. Actions below never branch.
    pub(crate) fn handle(&mut self, now: Instant, input: Input) {
        use {Input::*, State::*, Timer::*};
        self.state = match (self.state, input) {
            (Calling, Fired(A)) => self.retransmit(now),
            (Calling | Proceeding, Fired(B)) => self.fail(Failure::TimedOut),
            (Calling, Response(100..=199)) => self.proceed(),
            (Proceeding, Response(100..=199)) => self.pass_up(Proceeding),
            (Proceeding, Cancelled) => self.limit(now),
            (Calling | Proceeding, Response(200..=299)) => self.accept(now),
            (Calling | Proceeding, Response(300..=699)) => self.complete(now),
            (Accepted, Response(200..=299)) => self.pass_up(Accepted), // The TU sends the ACK.
            (Completed, Response(300..=699)) => self.ack_again(),
            (Calling | Completed, TransportFailed) => self.fail(Failure::Transport),
            (Completed, Fired(D)) | (Accepted, Fired(M)) => Terminated,
            (state, _) => state, // Late timers and stray messages: the figure draws no arrow.
        };
    }

    fn retransmit(&mut self, now: Instant) -> State {
        self.interval *= 2;
        self.timers.set(Timer::A, now + self.interval);
        self.outputs.push(Output::Send);
        State::Calling
    }

    fn proceed(&mut self) -> State {
        self.timers.clear();
        self.pass_up(State::Proceeding)
    }

    fn limit(&mut self, now: Instant) -> State {
        self.timers.set(Timer::B, now + self.timing.timeout());
        State::Proceeding
    }

    fn accept(&mut self, now: Instant) -> State {
        self.timers.clear();
        self.timers.set(Timer::M, now + self.timing.timeout());
        self.pass_up(State::Accepted)
    }

    fn complete(&mut self, now: Instant) -> State {
        self.timers.clear();
        let linger = self.timing.linger(self.reliable, self.timing.timeout());
        self.timers.set(Timer::D, now + linger);
        self.outputs.push(Output::SendAck);
        self.pass_up(State::Completed)
    }

    fn pass_up(&mut self, next: State) -> State {
        self.outputs.push(Output::PassUp);
        next
    }

    fn ack_again(&mut self) -> State {
        self.outputs.push(Output::SendAck);
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

    impl Machine for ClientInvite {
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
        ladder::run(ClientInvite::new(start, ladder::TIMING, reliable), start, script, expected);
    }

    #[test]
    fn unanswered_invite_backs_off_until_timer_b() {
        check(
            false,
            "",
            expect![[r#"
            00.000 Send
            00.500 Send
            01.500 Send
            03.500 Send
            07.500 Send
            15.500 Send
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
    fn retransmitted_486_is_acked_again_until_timer_d() {
        check(
            false,
            "0.1 100 | 0.9 486 | 1.4 486",
            expect![[r#"
            00.000 Send
            00.100 PassUp
            00.900 SendAck
            00.900 PassUp
            01.400 SendAck
            32.900 Terminated
        "#]],
        );
    }

    #[test]
    fn final_response_by_tcp_is_acked_once_and_the_transaction_is_gone() {
        check(
            true,
            "0.1 180 | 0.9 486",
            expect![[r#"
            00.000 Send
            00.100 PassUp
            00.900 SendAck
            00.900 PassUp
            00.900 Terminated
        "#]],
        );
    }

    #[test]
    fn every_2xx_is_passed_up_until_timer_m() {
        check(
            false,
            "0.1 200 | 0.6 200 | 1.6 486",
            expect![[r#"
            00.000 Send
            00.100 PassUp
            00.600 PassUp
            32.100 Terminated
        "#]],
        );
    }

    #[test]
    fn provisional_stops_timers_a_and_b() {
        check(
            false,
            "0.7 180 | 40 200",
            expect![[r#"
            00.000 Send
            00.500 Send
            00.700 PassUp
            40.000 PassUp
            72.000 Terminated
        "#]],
        );
    }

    #[test]
    fn broken_transport_fails_a_calling_but_not_a_proceeding_invite() {
        check(
            true,
            "0.1 broken",
            expect![[r#"
            00.000 Send
            00.100 Failed(Transport)
            00.100 Terminated
        "#]],
        );
        check(
            true,
            "0.1 100 | 0.2 broken | 0.3 200",
            expect![[r#"
            00.000 Send
            00.100 PassUp
            00.300 PassUp
            32.300 Terminated
        "#]],
        );
    }
}
