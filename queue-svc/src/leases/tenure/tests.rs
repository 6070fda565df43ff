//! Two replicas and a database in virtual time.

use super::*;

/// The row, as both databases keep it.
#[derive(Default)]
struct Row {
    fence: i64,
    holder: String,
    address: String,
    until: Tick,
}

impl Row {
    fn ask(&mut self, now: Tick, ask: &Ask) -> View {
        let mine = self.holder == ask.me.name;
        let done = match ask.wish {
            Wish::Look => true,
            Wish::Take if self.until < now => {
                self.fence += 1;
                self.holder.clone_from(&ask.me.name);
                self.address.clone_from(&ask.me.address);
                self.until = now + LEASE_MS;
                true
            }
            Wish::Renew(fence) if mine && fence.0 == self.fence && self.until >= now => {
                self.until = now + LEASE_MS;
                true
            }
            Wish::Release(fence) if mine && fence.0 == self.fence => {
                self.until = 0;
                true
            }
            _ => false,
        };
        let (holder, address) = (self.holder.clone(), self.address.clone());
        View { done, fence: self.fence, holder, address, alive: self.until >= now }
    }
}

struct World {
    row: Row,
    replicas: [Tenure; 2],
    now: Tick,
}

impl World {
    fn new() -> Self {
        let replica = |name: &str| Tenure::new(name.into(), format!("http://{name}"), 1);
        Self { row: Row::default(), replicas: [replica("a"), replica("b")], now: 1 }
    }

    /// Runs those until then; what they ask is answered at once.
    fn run(&mut self, who: &[usize], until: Tick) {
        while self.now < until {
            for nth in who {
                let replica = &mut self.replicas[*nth];
                replica.handle_timeout(self.now);
                while let Some(ask) = replica.poll_output() {
                    let view = self.row.ask(self.now, &ask);
                    replica.handle_answer(self.now, self.now, &ask, view);
                }
            }
            self.now += 1;
        }
    }

    fn held(&self) -> [Option<Fence>; 2] {
        [0, 1].map(|nth: usize| self.replicas[nth].held().map(|it| it.0))
    }
}

#[test]
fn one_of_two_has_the_lease_and_the_other_knows_where() {
    let mut world = World::new();
    world.run(&[0, 1], 60_000);
    assert_eq!(world.held(), [Some(Fence(1)), None]);
    assert_eq!(world.replicas[1].other(), Some("http://a"));
    assert_eq!(world.replicas[0].other(), None);
}

#[test]
fn who_dies_is_followed_before_three_seconds_are_over() {
    let mut world = World::new();
    world.run(&[0, 1], 10_000);
    world.run(&[1], 10_000 + LEASE_MS + ASK_MS + 1);
    assert_eq!(world.held()[1], Some(Fence(2)));
}

#[test]
fn a_lease_is_over_for_its_holder_before_anybody_else_has_it() {
    for frozen_at in 10_000..10_000 + ASK_MS {
        let mut world = World::new();
        world.run(&[0, 1], frozen_at);
        let (_, until) = world.replicas[0].held().unwrap();
        while world.held()[1].is_none() {
            let next = world.now + 1;
            world.run(&[1], next);
        }
        assert!(until < world.now, "{until} is not before {}", world.now);
        // It wakes under another name, and finds the other.
        world.replicas[0].handle_timeout(world.now);
        assert_eq!((world.held()[0], world.replicas[0].number()), (None, 2));
        let next = world.now + ASK_MS;
        world.run(&[0, 1], next);
        assert_eq!(world.held(), [None, Some(Fence(2))]);
        assert_eq!(world.replicas[0].other(), Some("http://b"));
    }
}

#[test]
fn without_the_database_the_lease_ends_and_comes_back_under_another_token() {
    let mut world = World::new();
    world.run(&[0], 10_000);
    let (_, until) = world.replicas[0].held().unwrap();
    world.replicas[0].handle_timeout(until - 1);
    assert!(world.held()[0].is_some());
    world.replicas[0].handle_timeout(until);
    assert_eq!(world.held()[0], None);
    while world.replicas[0].poll_output().is_some() {} // Nothing comes of these.
    world.now = until;
    world.run(&[0], 20_000);
    assert_eq!(world.held()[0], Some(Fence(2)));
}

#[test]
fn an_answer_that_was_lost_is_made_up_for_by_a_renewal() {
    let mut world = World::new();
    world.replicas[0].handle_timeout(1);
    let ask = world.replicas[0].poll_output().unwrap();
    assert!(world.row.ask(1, &ask).done); // Never arrives.
    world.now = 2;
    world.run(&[0], 2 + ASK_MS);
    assert_eq!(world.held()[0], Some(Fence(1)));
    assert!(world.replicas[0].held().unwrap().1 > LEASE_MS);
}

#[test]
fn an_answer_that_comes_after_the_end_of_the_lease_gives_nothing() {
    let mut world = World::new();
    world.replicas[0].handle_timeout(1);
    let ask = world.replicas[0].poll_output().unwrap();
    let view = world.row.ask(1, &ask);
    world.replicas[0].handle_answer(1 + LEASE_MS, 1, &ask, view);
    assert_eq!((world.held()[0], world.replicas[0].number()), (None, 2));
}

#[test]
fn who_resigns_is_followed_at_once_and_never_asks_again() {
    let mut world = World::new();
    world.run(&[0, 1], 10_000);
    world.replicas[0].resign();
    world.run(&[0, 1], 10_000 + ASK_MS + 1);
    assert_eq!(world.held(), [None, Some(Fence(2))]);
    assert!(world.replicas[0].has_resigned());
    world.run(&[0], 60_000);
    assert_eq!(world.held()[0], None);
}

#[test]
fn a_release_whose_answer_was_lost_is_made_again() {
    let mut world = World::new();
    world.run(&[0], 10_000);
    world.replicas[0].resign();
    assert_eq!(world.replicas[0].poll_output().unwrap().wish, Wish::Release(Fence(1)));
    assert!(!world.replicas[0].has_resigned());
    world.run(&[0], 10_000 + ASK_MS + 1);
    assert!(world.replicas[0].has_resigned());
    assert_eq!(world.row.until, 0);
}
