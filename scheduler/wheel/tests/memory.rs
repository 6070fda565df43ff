//! What a waiting task costs: the memory of this process, as the system counts it.

use wheel::{Agenda, Lane, LaneLimits, News, SHARDS, Standing, TaskId};

/// Just after the index of tasks has grown, when it is emptiest.
const TASKS: u64 = 240_000;
const BYTES_PER_TASK_MAX: u64 = 120;

#[test]
fn waiting_tasks_cost_at_most_120_bytes_each() {
    let lanes = [LaneLimits { begun_max: 64, begun_per_s_max: Some(2_000) }; 2];
    let mut agenda = Agenda::new(&lanes);
    (0..SHARDS).for_each(|shard| agenda.own_shard(shard, 1));
    let before = resident_bytes();
    agenda.handle_news(0, (0..TASKS).map(news));
    let bytes_per_task = (resident_bytes() - before) / TASKS;
    println!("{bytes_per_task} bytes per task");
    assert_eq!(agenda.len(), TASKS as usize);
    assert!((40..=BYTES_PER_TASK_MAX).contains(&bytes_per_task), "{bytes_per_task} bytes");
    // Cancelled and added again, they cost no more.
    for nth in 0..TASKS {
        agenda.handle_news(0, [News { revision: 2, now: Standing::Gone, ..news(nth) }]);
    }
    assert!(agenda.is_empty());
    agenda.handle_news(0, (0..TASKS).map(news));
    let bytes_per_task = (resident_bytes() - before) / TASKS;
    assert!(bytes_per_task <= BYTES_PER_TASK_MAX, "{bytes_per_task} bytes the second time");
}

fn news(nth: u64) -> News {
    // An id as a client would see it: time and random bits.
    let random = nth.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let task = TaskId(u128::from(1_700_000_000_000 + nth / 100) << 80 | u128::from(random));
    let lane = Lane((nth % 2) as u16);
    News { task, revision: 1, now: Standing::Waiting { due: 1_700_000_000_000 + nth, lane } }
}

/// `VmRSS` of this process.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("read /proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a VmRSS line");
    let kib = line.trim().trim_end_matches(" kB").parse::<u64>().expect("VmRSS in kB");
    kib * 1_024
}
