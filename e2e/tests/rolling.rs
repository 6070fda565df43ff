//! All services are replaced, one process after the other, while 20 calls a second come in: no new call
//! fails, and nobody in line loses the place.
//!
//! As it is deployed: two replicas of each on one PostgreSQL, a proxy before the sip-edges, one address for
//! the gRPC of each kind. A process that is to be replaced gets SIGTERM, and a new one takes its place.
//!
//! HOLDFAST_ROLLS says how often each process is replaced.

use anyhow::Context as _;
use e2e::audio::Codec;
use e2e::phone::{Dialog, Phone};
use e2e::{Fleet, MUSIC, QUEUE, REPLICAS, Scenario, Service, Sipp};
use proto::queue::v1::{CreateQueueRequest, Queue};
use std::time::{Duration, Instant};

const CALLS_PER_SECOND: u32 = 20;
/// More than there will be before all have been replaced.
const CALLS_MAX: u32 = 20_000;
/// A caller who is not connected hangs up after so long.
const STAY_MS: u32 = 500;
/// Who are in line all the time, by half at either sip-edge.
const WAITING: usize = 6;
/// How long music may take to be heard again.
const MUSIC_LIMIT: Duration = Duration::from_secs(20);

/// Every call needs all four services before it is answered.
const DIAL_PLAN: &str = r#"routes:
  - name: queue
    uri: "^sip:1008@"
    plan:
      actions:
        - schedule: { after_ms: 3600000, hangup: {}, as: limit }
        - enqueue: { queue: abc }
"#;

/// In the order in which they are replaced.
const ORDER: [Service; 4] =
    [Service::QueueSvc, Service::Scheduler, Service::MediaRelay, Service::SipEdge];

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_each_process_is_replaced() -> anyhow::Result<()> {
    let rolls: usize = std::env::var("HOLDFAST_ROLLS").map_or(Ok(1), |it| it.parse())?;
    let mut fleet = Fleet::start(DIAL_PLAN).await?;
    create_queue(&fleet).await?;
    let phones: Vec<Phone> = (0..WAITING)
        .map(|nth| Phone::start(&format!("waiting{nth}"), Codec::Pcmu))
        .collect::<anyhow::Result<_>>()?;
    let mut waiting: Vec<Dialog<'_>> = Vec::new();
    for (nth, phone) in phones.iter().enumerate() {
        let edge = fleet.edge_sip(nth % REPLICAS);
        waiting.push(phone.dial(edge, &format!("sip:1008@{edge}"))?);
        fleet.wait_line(QUEUE, nth + 1).await?;
    }
    let line = fleet.line(QUEUE).await?;

    let scenario = Scenario::caller(fleet.sip(), "1008", STAY_MS);
    let callers = Sipp::start(&scenario.repeat(CALLS_MAX, CALLS_PER_SECOND), None)?;
    fleet.wait_calls(CALLS_PER_SECOND as usize).await?;
    let begun = Instant::now();
    for _ in 0..rolls {
        for service in ORDER {
            for nth in 0..REPLICAS {
                let at = begun.elapsed();
                fleet.replace(service, nth)?;
                eprintln!("{at:.1?}: {} {nth} replaced by {:.1?}", service.name(), begun.elapsed());
            }
        }
    }
    callers.hush()?;
    let tally = tokio::task::spawn_blocking(|| callers.finish()).await??;
    eprintln!("{tally:?} while {} processes were replaced", rolls * ORDER.len() * REPLICAS);
    assert!(tally.failed == 0, "{}", fleet.outputs());
    let least = u32::try_from(begun.elapsed().as_secs())? * CALLS_PER_SECOND / 2;
    assert!(tally.successful >= least, "{tally:?}: fewer than came in");

    fleet.wait_line(QUEUE, WAITING).await?;
    assert_eq!(fleet.line(QUEUE).await?, line, "another order");
    for phone in &phones {
        assert!(!phone.has_bye(), "somebody in line was hung up on");
        phone.ear().clear();
        phone.ear().wait_for_packets(20, MUSIC_LIMIT)?; // The music goes on.
    }
    waiting.into_iter().try_for_each(Dialog::bye)?;
    fleet.wait_clean(QUEUE).await
}

async fn create_queue(fleet: &Fleet) -> anyhow::Result<()> {
    let (mohdir, mohfile) = MUSIC.split_once('/').context("split the music's path")?;
    let queue = Queue {
        name: QUEUE.into(),
        uri: format!("sip:1008@{}", fleet.sip()),
        mohdir: mohdir.into(),
        mohfile: mohfile.into(),
        max_calls: 5_000,
        ..Queue::default()
    };
    fleet.queues(0).create_queue(CreateQueueRequest { queue: Some(queue) }).await?;
    Ok(())
}
