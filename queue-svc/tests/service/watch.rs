//! Watching the queues: nothing is missing and nothing comes twice, over restarts.

use crate::world::{World, refused};
use proto::queue::v1::*;
use tonic::{Code, Streaming};

/// The next event as text, and the token after it.
async fn next(watch: &mut Streaming<WatchResponse>) -> (String, String) {
    let response = watch.message().await.unwrap().expect("the watch goes on");
    let text = match response.event {
        None => "begins".to_owned(),
        Some(event) => {
            let kind = event.r#type().as_str_name().trim_start_matches("QUEUE_EVENT_TYPE_");
            format!("{kind} {}", event.caller.unwrap_or_default().call_id)
        }
    };
    (text, response.resume_token)
}

impl World {
    async fn watch(&mut self, resume_token: &str) -> Streaming<WatchResponse> {
        let resume_token = resume_token.into();
        let request = WatchRequest { resume_token, ..WatchRequest::default() };
        self.client.watch(request).await.unwrap().into_inner()
    }
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was_also_after_a_crash() {
    let mut world = World::with_queue(0).await;
    world.join("before").await;
    world.event().await;
    let mut watch = world.watch("").await;
    assert_eq!(next(&mut watch).await.0, "begins");
    world.join("a").await;
    let (text, token) = next(&mut watch).await;
    assert_eq!(text, "JOINED a");
    world.join("b").await;
    assert!(world.leave("a").await.existed);
    world.restart().await;
    let mut watch = world.watch(&token).await;
    assert_eq!(next(&mut watch).await, ("begins".into(), token));
    assert_eq!(next(&mut watch).await.0, "JOINED b");
    assert_eq!(next(&mut watch).await.0, "LEFT a");
}

#[tokio::test]
async fn a_watch_from_nowhere_is_refused() {
    let mut world = World::empty().await;
    for (token, code) in [("1.7", Code::OutOfRange), ("seven", Code::InvalidArgument)] {
        let resume_token = token.into();
        let request = WatchRequest { resume_token, ..WatchRequest::default() };
        refused(world.client.watch(request).await.map(drop), code, "");
    }
}
