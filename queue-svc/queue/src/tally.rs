//! What has happened in a queue, and to an agent, since the process began.

/// Counts and sums of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueTally {
    /// Callers who were answered and in line here, also those who were sent here from another queue.
    pub joined: u64,
    /// Callers who reached an agent; and how many of them within the service level.
    pub connected: u64,
    pub connected_in_time: u64,
    /// Callers who hung up before.
    pub abandoned: u64,
    /// Callers who left in another way: by a digit, overflow, or an operator.
    pub left: u64,
    /// Times an agent was rung and did not take the caller.
    pub released: u64,
    /// From arrival to the agent, over all who reached one, in ms.
    pub wait_ms: u64,
    pub wait_ms_max: u64,
    /// Talks of agents that have ended, and their length, in ms.
    pub talks: u64,
    pub talk_ms: u64,
}

/// Counts and sums of an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentTally {
    /// Times rung for a caller.
    pub rung: u64,
    /// Callers taken.
    pub connected: u64,
    /// Times not answered or not reached.
    pub missed: u64,
    /// Times declined or busy.
    pub refused: u64,
    /// Talks that have ended, and their length, in ms.
    pub talks: u64,
    pub talk_ms: u64,
}

/// How somebody left a queue without an agent of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// The call is over, or talks to somebody else.
    HungUp,
    /// The call does something else now.
    WentOn,
}

impl QueueTally {
    pub(crate) fn connect(&mut self, waited_ms: u64, service_level_ms: u32) {
        self.connected += 1;
        self.connected_in_time += u64::from(waited_ms <= u64::from(service_level_ms));
        self.wait_ms += waited_ms;
        self.wait_ms_max = self.wait_ms_max.max(waited_ms);
    }

    pub(crate) fn depart(&mut self, departure: Departure) {
        match departure {
            Departure::HungUp => self.abandoned += 1,
            Departure::WentOn => self.left += 1,
        }
    }

    /// Part of the callers who reached an agent within the service level, of those who reached one or
    /// gave up; `None` before the first.
    pub fn service_level(&self) -> Option<f64> {
        let all = self.connected + self.abandoned;
        (all > 0).then(|| self.connected_in_time as f64 / all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_level_counts_those_who_gave_up_as_not_served() {
        let mut tally = QueueTally::default();
        assert_eq!(tally.service_level(), None);
        tally.connect(20_000, 20_000);
        tally.connect(20_001, 20_000);
        tally.depart(Departure::HungUp);
        tally.depart(Departure::HungUp);
        tally.depart(Departure::WentOn);
        assert_eq!(tally.service_level(), Some(0.25));
        assert_eq!((tally.wait_ms, tally.wait_ms_max, tally.left), (40_001, 20_001, 1));
    }
}
