//! A NATS server that wants a name and a password lets us in with them only.

use boot::{Line, Login, Message, Nats};
use e2e::NatsServer;
use std::sync::Arc;

#[tokio::test]
async fn who_knows_the_password_is_let_in_and_nobody_else() {
    let server = NatsServer::start_for("holdfast", "p@ssword").unwrap();
    let with = |shown: &str| {
        let url = server.url().replace("nats://", &format!("nats://{shown}"));
        Login::at(&url).unwrap()
    };
    let right = with("holdfast:p%40ssword@");
    let nats = Nats::connect("test", &right).await.unwrap();
    nats.make_stream().await.unwrap();
    let mut line = Line::connect("test", &right, Arc::new(|| Some(1))).await.unwrap();
    let message = Message { subject: "holdfast.test", id: "1", payload: b"x" };
    assert_eq!(line.publish([message].into_iter()).await.unwrap(), []);
    for wrong in ["", "holdfast:wrong@", "p%40ssword@"] {
        let wrong = with(wrong);
        let refused = Nats::connect("test", &wrong).await.err().unwrap();
        assert!(format!("{refused:#}").to_lowercase().contains("authorization"), "{refused:#}");
        assert!(!format!("{refused:#}").contains("wrong"), "{refused:#}");
        Line::connect("test", &wrong, Arc::new(|| Some(1))).await.err().unwrap();
    }
}
