//! Sessions and the process: what is there, what is freed, how it starts and ends.

use crate::phone::Phone;
use crate::service::{LIMIT, Service, spawn};
use crate::sound::{melody, wav};
use media::Codec;
use proto::media_relay::v1::{DeleteRequest, QueryRequest, Side};
use std::net::UdpSocket;
use tonic::Code;

fn delete(session_id: &str) -> DeleteRequest {
    DeleteRequest { session_id: session_id.into(), side: 0 }
}

#[tokio::test]
async fn query_shows_a_session_and_delete_frees_its_ports() {
    let mut service = Service::start(&[]).await;
    service.write("moh.wav", &wav(melody, 1_000, 8_000, 1));
    let mut phone = Phone::new(Codec::Pcma).await;
    phone.join(&service, "s", Side::A).await;
    service.play("s", "moh", true).await.unwrap();
    phone.press(1, 0).await;
    phone.hear(20).await;
    let found = service.client.query(QueryRequest::default()).await.unwrap().into_inner();
    assert_eq!(found.total, 1);
    let side = &found.sessions[0].sides[0];
    assert_eq!((side.codec.as_str(), side.hears.as_str()), ("PCMA/8000", "music"));
    assert_eq!((side.file.as_str(), side.packets_received), ("moh", 5));
    assert!(side.packets_sent >= 20 && side.offset_ms >= 380, "{side:?}");
    let address = phone.socket.local_addr().unwrap().to_string();
    assert_eq!((&side.signalled_address, &side.latched_address), (&address, &address));
    assert_eq!(side.rtp_port, u32::from(phone.relay_port()));
    let ports = [phone.relay_port(), phone.relay_port() + 1];
    assert!(ports.iter().all(|it| UdpSocket::bind(("127.0.0.1", *it)).is_err()), "in use");

    assert!(service.client.delete(delete("s")).await.unwrap().into_inner().existed);
    assert!(!service.client.delete(delete("s")).await.unwrap().into_inner().existed);
    assert!(ports.iter().all(|it| UdpSocket::bind(("127.0.0.1", *it)).is_ok()), "free");
    let found = service.client.query(QueryRequest::default()).await.unwrap().into_inner();
    assert_eq!((found.total, found.sessions.len()), (0, 0));
}

#[tokio::test]
async fn many_sessions_are_listed_oldest_first_up_to_the_limit() {
    let mut service = Service::start(&["--rtp-ports", "20000-21999"]).await;
    let phone = Phone::new(Codec::Pcmu).await;
    for n in 0..250 {
        service.offer(&format!("s{n}"), Side::A, phone.sdp()).await.unwrap();
    }
    let query = QueryRequest { limit: 220, owner: "edge".into(), ..QueryRequest::default() };
    let found = service.client.query(query).await.unwrap().into_inner();
    let ids: Vec<_> = found.sessions.into_iter().map(|it| it.session_id).collect();
    assert_eq!(ids, (0..220).map(|n| format!("s{n}")).collect::<Vec<_>>());
    assert_eq!(found.total, 250);
}

#[tokio::test]
async fn ports_that_another_process_has_are_skipped() {
    // Of this test alone: another process may run it at the same time.
    let base = 10_000 + (std::process::id() % 1_000) as u16 * 8;
    let range = format!("{base}-{}", base + 7);
    let service = Service::start(&["--rtp-ports", &range]).await;
    let taken = [base, base + 3, base + 4].map(|it| UdpSocket::bind(("127.0.0.1", it)));
    assert!(taken.iter().all(Result::is_ok), "{taken:?}");
    let mut phone = Phone::new(Codec::Pcmu).await;
    phone.join(&service, "s", Side::A).await;
    assert_eq!(phone.relay_port(), base + 6);
    let error = service.offer("t", Side::A, phone.sdp()).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
}

#[tokio::test]
async fn draining_refuses_new_sessions_and_ends_with_the_last() {
    let mut service = Service::start(&[]).await;
    let phone = Phone::new(Codec::Pcmu).await;
    service.offer("s", Side::A, phone.sdp()).await.unwrap();
    service.process.signal("TERM").unwrap();
    service
        .process
        .wait_for("that it drains", LIMIT, |it| it.contains("\"draining\"").then_some(()))
        .unwrap();
    let error = service.offer("t", Side::A, phone.sdp()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    service.offer("s", Side::B, phone.sdp()).await.unwrap();
    service.client.delete(delete("s")).await.unwrap();
    assert!(service.process.wait(LIMIT).unwrap().success());
}

#[test]
fn what_cannot_start_says_why_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    for (flags, wanted) in [
        (["--rtp-address", "192.0.2.1"], "bind RTP on --rtp-address 192.0.2.1"),
        (["--rtp-address", "0.0.0.0"], "give --advertise ADDR too"),
        (["--rtp-ports", "5-4"], "no pair of an even port"),
    ] {
        let mut process = spawn(dir.path(), &flags);
        assert!(!process.wait(LIMIT).unwrap().success());
        assert!(process.output().contains(wanted), "{}", process.output());
    }
}
