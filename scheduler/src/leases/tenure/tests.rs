//! Replicas and a database in virtual time: what is lost, late, or stands still.

use super::*;
use proptest::prelude::*;

/// The database: leases and holders, by its own clock, which is the test's.
#[derive(Default)]
struct Database {
    leases: Vec<(Replica, Tick)>,
    shards: Vec<(i64, Option<String>)>,
}

impl Database {
    fn new() -> Self {
        Self { leases: Vec::new(), shards: vec![(0, None); usize::from(SHARDS)] }
    }

    fn is_alive(&self, name: &str, now: Tick) -> bool {
        self.leases.iter().any(|(it, until)| it.name == name && *until >= now)
    }

    fn renew(&mut self, now: Tick, me: &Replica) -> View {
        let until = now + LEASE_MS;
        let known = self.leases.iter_mut().find(|(it, _)| it.name == me.name);
        let renewed = match known {
            Some((_, end)) if *end < now => false,
            Some(known) => {
                *known = (me.clone(), until);
                true
            }
            None => {
                self.leases.push((me.clone(), until));
                true
            }
        };
        let alive = self.leases.iter().filter(|(_, until)| *until >= now);
        let alive = alive.map(|(it, _)| it.clone()).collect();
        View { renewed, alive, shards: self.shards.clone() }
    }

    fn take(&mut self, now: Tick, me: &str, shards: &[u8]) -> Vec<Held> {
        let mut taken = Vec::new();
        for shard in shards.iter().copied() {
            let (fence, holder) = self.shards[usize::from(shard)].clone();
            let free = holder.is_none_or(|holder| !self.is_alive(&holder, now));
            if free && self.is_alive(me, now) {
                self.shards[usize::from(shard)] = (fence + 1, Some(me.to_owned()));
                taken.push(Held { shard, fence: fence + 1 });
            }
        }
        taken
    }

    fn release(&mut self, me: &str, held: &[Held]) {
        for Held { shard, fence } in held.iter().copied() {
            let (current, holder) = &mut self.shards[usize::from(shard)];
            if *current == fence && holder.as_deref() == Some(me) {
                *holder = None;
            }
        }
    }
}

/// A replica whose shell stands still, or whose answers get lost.
struct Peer {
    tenure: Tenure,
    awake_at: Tick,
    /// It hears nothing from the database until then.
    cut_until: Tick,
}

impl Peer {
    fn new(name: &str) -> Self {
        let tenure = Tenure::new(name.to_owned(), format!("http://{name}"), 0);
        Self { tenure, awake_at: 0, cut_until: 0 }
    }

    /// What may be begun now, in the shell's words: held, and the lease is not over.
    fn may_act(&self, now: Tick, shard: u8) -> bool {
        self.tenure.valid_until().is_some_and(|end| now < end)
            && self.tenure.held().any(|held| held.shard == shard)
    }

    fn run(&mut self, now: Tick, database: &mut Database) {
        if now < self.awake_at {
            return;
        }
        if now >= self.tenure.poll_timeout() {
            self.tenure.handle_timeout(now);
        }
        while let Some(order) = self.tenure.poll_output() {
            let lost = now < self.cut_until;
            match order {
                // While it is cut off, half of what it asks arrives, and no answer comes.
                Order::Renew(me) => {
                    if !lost || now.is_multiple_of(2) {
                        let view = database.renew(now, &me);
                        if !lost {
                            self.tenure.handle_renewed(now, now, &me.name, view);
                        }
                    }
                }
                Order::Take { me, shards } => {
                    if !lost || now.is_multiple_of(2) {
                        let taken = database.take(now, &me, &shards);
                        if !lost {
                            self.tenure.handle_taken(now, &me, taken);
                        }
                    }
                }
                Order::Release { me, held } => {
                    if !lost || now.is_multiple_of(2) {
                        database.release(&me, &held);
                    }
                }
                Order::Tell(Turn::Leaving(shard)) => self.tenure.handle_quiet(shard),
                Order::Tell(_) => {}
            }
        }
    }
}

struct World {
    database: Database,
    peers: Vec<Peer>,
    now: Tick,
}

impl World {
    fn new(peers: usize) -> Self {
        let peers = (0..peers).map(|nth| Peer::new(&format!("replica-{nth}"))).collect();
        Self { database: Database::new(), peers, now: 1 }
    }

    fn run(&mut self, ms: Tick) {
        for _ in 0..ms / 10 {
            self.now += 10;
            for peer in &mut self.peers {
                peer.run(self.now, &mut self.database);
            }
            for shard in 0..SHARDS {
                let owners = self.owners(shard);
                assert!(owners.len() <= 1, "shard {shard} at {}: {owners:?}", self.now);
            }
        }
    }

    fn owners(&self, shard: u8) -> Vec<usize> {
        let peers = self.peers.iter().enumerate();
        peers.filter(|(_, it)| it.may_act(self.now, shard)).map(|(nth, _)| nth).collect()
    }

    fn counts(&self) -> Vec<usize> {
        let held = self.peers.iter().map(|peer| peer.tenure.held().count());
        held.collect()
    }

    fn all_owned(&self) -> bool {
        (0..SHARDS).all(|shard| self.owners(shard).len() == 1)
    }
}

#[test]
fn one_replica_takes_all_and_a_second_gets_half() {
    let mut world = World::new(1);
    world.run(20);
    assert_eq!(world.counts(), [16]);
    world.peers.push(Peer::new("late"));
    world.run(2_000);
    assert_eq!(world.counts(), [8, 8]);
    world.peers.push(Peer::new("later"));
    world.run(2_000);
    assert!(world.all_owned());
    assert!(world.counts().iter().all(|count| (4..=6).contains(count)), "{:?}", world.counts());
}

#[test]
fn the_shards_of_who_died_are_taken_over_within_3_s() {
    let mut world = World::new(3);
    world.run(2_000);
    world.peers.remove(0);
    world.run(2_500);
    assert!(world.all_owned());
    assert_eq!(world.counts(), [8, 8]);
}

#[test]
fn who_stood_still_has_lost_all_and_comes_back_under_another_name() {
    let mut world = World::new(2);
    world.run(2_000);
    world.peers[0].awake_at = world.now + 30_000;
    world.run(2_500);
    assert_eq!(world.owners(0), [1]);
    assert!(world.all_owned());
    world.run(27_000);
    let number = world.peers[0].tenure.number;
    world.run(3_000);
    assert_eq!(world.peers[0].tenure.number, number + 1);
    assert_eq!(world.counts(), [8, 8]);
}

#[test]
fn who_drains_gives_all_up_and_takes_nothing() {
    let mut world = World::new(2);
    world.run(2_000);
    world.peers[0].tenure.drain();
    world.run(1_000);
    assert_eq!(world.counts(), [0, 16]);
    world.run(5_000);
    assert_eq!(world.counts(), [0, 16]);
    assert!(
        world.database.shards.iter().all(|(_, holder)| holder.as_deref() == Some("replica-1/1"))
    );
}

#[test]
fn a_take_whose_answer_is_lost_is_seen_with_the_next_renewal() {
    let mut tenure = Tenure::new("me".to_owned(), String::new(), 0);
    let mut database = Database::new();
    tenure.handle_timeout(0);
    let Some(Order::Renew(me)) = tenure.poll_output() else { panic!() };
    tenure.handle_renewed(0, 0, &me.name, database.renew(0, &me));
    let Some(Order::Take { me: name, shards }) = tenure.poll_output() else { panic!() };
    assert_eq!(database.take(0, &name, &shards).len(), 16);
    assert_eq!(tenure.held().count(), 0);
    tenure.handle_timeout(RENEWAL_MS);
    assert_eq!(tenure.poll_output(), Some(Order::Renew(me.clone())));
    let view = database.renew(RENEWAL_MS, &me);
    tenure.handle_renewed(RENEWAL_MS, RENEWAL_MS, &me.name, view);
    assert_eq!(tenure.held().count(), 16);
}

/// What goes wrong with one of the replicas.
#[derive(Clone, Copy, Debug)]
enum Fault {
    StandsStill(usize, Tick),
    CutOff(usize, Tick),
    Dies(usize),
    Starts,
    None(Tick),
}

fn fault() -> impl Strategy<Value = Fault> {
    let time = || prop_oneof![0..5_000u64, Just(LEASE_MS), Just(LEASE_MS - MARGIN_MS)];
    prop_oneof![
        (0..4usize, time()).prop_map(|(nth, ms)| Fault::StandsStill(nth, ms)),
        (0..4usize, time()).prop_map(|(nth, ms)| Fault::CutOff(nth, ms)),
        (0..4usize).prop_map(Fault::Dies),
        Just(Fault::Starts),
        time().prop_map(Fault::None),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Never do two act in one shard ([`World::run`] asserts it), and when all is well again, each
    /// shard has an owner within 3 s.
    #[test]
    fn no_two_act_in_one_shard_and_none_is_left_alone(faults in prop::collection::vec(fault(), 1..20)) {
        let mut world = World::new(3);
        let mut started = 3;
        for fault in faults {
            let now = world.now;
            let count = world.peers.len();
            match fault {
                Fault::StandsStill(nth, ms) => world.peers[nth % count].awake_at = now + ms,
                Fault::CutOff(nth, ms) => world.peers[nth % count].cut_until = now + ms,
                Fault::Dies(nth) if count > 1 => drop(world.peers.remove(nth % count)),
                Fault::Dies(_) => {}
                Fault::Starts if count < 4 => {
                    started += 1;
                    world.peers.push(Peer::new(&format!("replica-{started}")));
                }
                Fault::Starts => {}
                Fault::None(ms) => world.run(ms),
            }
            world.run(150);
        }
        for peer in &mut world.peers {
            (peer.awake_at, peer.cut_until) = (0, 0);
        }
        world.run(2_800);
        prop_assert!(world.all_owned(), "{:?}", world.counts());
        world.run(3_000);
        let part = usize::from(SHARDS).div_ceil(world.peers.len());
        prop_assert!(world.counts().iter().all(|count| *count <= part), "{:?}", world.counts());
    }
}
