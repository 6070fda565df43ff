//! What tasks have published, as it arrived.

use async_nats::Client;
use futures::StreamExt as _;
use std::collections::HashMap;
use tokio::sync::watch;

pub(crate) const SUBJECT: &str = "faults.message";
/// What is published here comes after all that the server had before.
const MARK: &str = "faults.mark";

/// By payload.
pub(crate) type Arrived = HashMap<String, Arrivals>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrivals {
    pub(crate) first_unix_ms: i64,
    pub(crate) times: u32,
}

pub(crate) struct Messages {
    client: Client,
    arrived: watch::Receiver<Arrived>,
    marks: watch::Receiver<u32>,
}

impl Messages {
    pub(crate) async fn listen(url: &str) -> Self {
        let client = async_nats::connect(url).await.unwrap();
        let mut messages = client.subscribe("faults.>").await.unwrap();
        client.flush().await.unwrap();
        let (arrived, all) = watch::channel(Arrived::new());
        let (mark, marks) = watch::channel(0);
        tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                if message.subject.as_str() == MARK {
                    mark.send_modify(|marks| *marks += 1);
                    continue;
                }
                let first_unix_ms = boot::unix_ms();
                let payload = String::from_utf8(message.payload.to_vec()).unwrap();
                arrived.send_modify(|arrived| {
                    let arrivals = Arrivals { first_unix_ms, times: 0 };
                    arrived.entry(payload).or_insert(arrivals).times += 1;
                });
            }
        });
        Self { client, arrived: all, marks }
    }

    pub(crate) fn arrived(&self) -> Arrived {
        self.arrived.borrow().clone()
    }

    /// Waits until so many different ones have arrived.
    pub(crate) async fn wait(&self, count: usize) {
        let mut arrived = self.arrived.clone();
        arrived.wait_for(|arrived| arrived.len() >= count).await.unwrap();
    }

    /// How many the server has had until now, also if they were the same.
    pub(crate) async fn count(&self) -> u32 {
        let mut marks = self.marks.clone();
        let before = *marks.borrow_and_update();
        self.client.publish(MARK, "".into()).await.unwrap();
        marks.wait_for(|marks| *marks > before).await.unwrap();
        self.arrived.borrow().values().map(|it| it.times).sum()
    }
}
