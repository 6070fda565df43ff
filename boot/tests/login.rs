//! A NATS server that wants a name and a password, or a key, lets us in with them only.

use boot::{Line, Login, Message, Nats};
use clap::Parser;
use data_encoding::BASE64URL_NOPAD;
use e2e::NatsServer;
use nkeys::KeyPair;
use serde_json::{Value, json};
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

#[tokio::test]
async fn who_has_the_key_of_a_user_is_let_in_and_nobody_else() {
    let [right, wrong] = [KeyPair::new_user(), KeyPair::new_user()];
    let users = format!("authorization {{ users: [ {{ nkey: {} }} ] }}", right.public_key());
    let server = NatsServer::start_configured(&users).unwrap();
    check(&server, &right.seed().unwrap(), &wrong.seed().unwrap()).await;
}

#[tokio::test]
async fn who_has_the_jwt_of_a_user_and_its_key_is_let_in_and_nobody_else() {
    let (operator, account, system) =
        (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let unlimited = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
        "wildcards": true, "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1,
        "streams": -1, "consumer": -1});
    let account_jwt = jwt(&operator, &account, json!({"type": "account", "limits": unlimited}));
    let system_jwt = jwt(&operator, &system, json!({"type": "account"}));
    let config = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}",
        jwt(&operator, &operator, json!({"type": "operator"})),
        system.public_key(),
        account.public_key(),
        account_jwt,
        system.public_key(),
        system_jwt,
    );
    let server = NatsServer::start_configured(&config).unwrap();
    let user = KeyPair::new_user();
    let creds = |key: &KeyPair| {
        let user =
            jwt(&account, &user, json!({"type": "user", "subs": -1, "data": -1, "payload": -1}));
        let seed = key.seed().unwrap();
        format!(
            "-----BEGIN NATS USER JWT-----\n{user}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    };
    check(&server, &creds(&user), &creds(&KeyPair::new_user())).await;
}

/// Claims of `subject`, signed by `issuer`, as NATS has them.
fn jwt(issuer: &KeyPair, subject: &KeyPair, mut nats: Value) -> String {
    nats["version"] = json!(2);
    let claims = json!({"jti": "1", "iat": 1, "iss": issuer.public_key(), "name": "test",
        "sub": subject.public_key(), "nats": nats});
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let encode = |it: &[u8]| BASE64URL_NOPAD.encode(it);
    let text = [header, claims].map(|it| encode(it.to_string().as_bytes())).join(".");
    format!("{text}.{}", encode(&issuer.sign(text.as_bytes()).unwrap()))
}

/// Both kinds of connections are let in with the first of two files of `--nats-creds` only.
async fn check(server: &NatsServer, right: &str, wrong: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let login = |creds: &str| {
        std::fs::write(file.path(), creds).unwrap();
        let flags =
            ["x", "--nats-url", &server.url(), "--nats-creds", file.path().to_str().unwrap()];
        Login::read(&Args::parse_from(flags).common).unwrap()
    };
    let right = login(right);
    let nats = Nats::connect("test", &right).await.unwrap();
    nats.make_stream().await.unwrap();
    let mut line = Line::connect("test", &right, Arc::new(|| Some(1))).await.unwrap();
    let message = Message { subject: "holdfast.test", id: "1", payload: b"x" };
    assert_eq!(line.publish([message].into_iter()).await.unwrap(), []);
    let wrong = login(wrong);
    let refused = Nats::connect("test", &wrong).await.err().unwrap();
    assert!(format!("{refused:#}").to_lowercase().contains("authorization"), "{refused:#}");
    Line::connect("test", &wrong, Arc::new(|| Some(1))).await.err().unwrap();
}

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: boot::Common,
}
