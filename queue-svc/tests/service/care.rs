//! What a queue asks of sip-edge for those who wait.

use crate::edge::Seen;
use crate::world::{World, abc};
use proto::queue::v1::*;

impl World {
    async fn update(&mut self, queue: Queue) {
        self.client.update_queue(UpdateQueueRequest { queue: Some(queue) }).await.unwrap();
    }
}

#[tokio::test]
async fn caller_who_waited_too_long_is_in_another_queue_with_its_music() {
    let mut world = World::with_queue(0).await;
    let night = Queue { name: "night".into(), uri: "sip:1009@example.com".into(), ..abc(0) };
    let night = Queue { mohfile: "night.wav".into(), ..night };
    world.client.create_queue(CreateQueueRequest { queue: Some(night) }).await.unwrap();
    world.update(Queue { max_wait_ms: 300, overflow: "queue/night".into(), ..abc(0) }).await;
    world.join("a").await;
    let to = "queue night with /var/moh/night.wav".into();
    assert_eq!(world.edge.next().await, Seen::Transfer { call_id: "a".into(), to });
    assert_eq!(world.list("night").await, "1 a IN_QUEUE");
    for event in [
        "JOINED a at 1 of 1: caller was answered",
        "LEFT a at 0 of 0: to queue night: waited for 300 ms, the queue's max_wait_ms",
        "MOVED a at 1 of 1: from queue abc: waited for 300 ms, the queue's max_wait_ms",
    ] {
        assert_eq!(world.event_text().await, event);
    }
    // What sip-edge asked for is true, under the old name, too.
    assert_eq!(world.enqueue("a", true).await.unwrap().caller.unwrap().queue, "night");
}

#[tokio::test]
async fn caller_who_waited_too_long_is_sent_on_until_that_is_done() {
    let mut world = World::with_queue(0).await;
    world.update(Queue { max_wait_ms: 100, ..abc(0) }).await;
    world.join("a").await;
    let wanted = Seen::Transfer { call_id: "a".into(), to: "its plan".into() };
    assert_eq!(world.edge.next().await, wanted);
    assert_eq!(world.edge.next().await, wanted, "nobody has left, so it is asked for again");
    assert!(world.leave("a").await.existed);
}

#[tokio::test]
async fn position_is_said_in_words_of_the_folder_of_prompts() {
    let mut world = World::with_queue(0).await;
    let announce_every_ms = 5_000;
    world.update(Queue { announce_every_ms, announce_position: true, ..abc(0) }).await;
    world.join("a").await;
    let file = "prompts/queue/you-are-number&prompts/queue/number/1".into();
    assert_eq!(world.edge.next().await, Seen::Play { call_id: "a".into(), file });
}
