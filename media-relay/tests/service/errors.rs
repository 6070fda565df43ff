//! Requests that cannot be done: the code, and a message that says what to do.

use crate::phone::Phone;
use crate::service::Service;
use media::Codec;
use proto::media_relay::WARN_CODE;
use proto::media_relay::v1::{
    AnswerRequest, ConnectRequest, InjectDtmfRequest, JoinRequest, OfferRequest, QueryRequest, Side,
};
use tonic::{Code, Status};

fn check(status: Status, code: Code, wanted: &str) {
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(wanted), "{}", status.message());
}

#[tokio::test]
async fn each_error_has_its_code_and_names_what_is_wrong() {
    let mut service = Service::start(&["--max-sessions", "1"]).await;
    let phone = Phone::new(Codec::Pcmu).await;
    let offer = |change: &dyn Fn(&mut OfferRequest)| {
        let mut request = OfferRequest {
            session_id: "s".into(),
            call_id: "c".into(),
            side: Side::A.into(),
            sdp: phone.sdp().into_bytes(),
            owner: "edge".into(),
            ..OfferRequest::default()
        };
        change(&mut request);
        let mut client = service.client.clone();
        async move { client.offer(request).await.unwrap_err() }
    };
    use Code::{FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted};
    check(offer(&|it| it.side = 0).await, InvalidArgument, "side is 0; wanted SIDE_A or SIDE_B");
    check(offer(&|it| it.session_id.clear()).await, InvalidArgument, "session_id is \"\"");
    check(offer(&|it| it.call_id.clear()).await, InvalidArgument, "call_id is missing");
    check(offer(&|it| it.sdp = b"x".into()).await, InvalidArgument, "not a session description");
    let opus = phone.sdp().replace("AVP 0", "AVP 97").into_bytes();
    let refused = offer(&|it| it.sdp = opus.clone()).await;
    assert_eq!(refused.metadata().get(WARN_CODE).unwrap(), "305");
    check(refused, FailedPrecondition, "488 Not Acceptable Here: no codec in common");
    let v6 = phone.sdp().replace("c=IN IP4 127.0.0.1", "c=IN IP6 2001:db8::1").into_bytes();
    let refused = offer(&|it| it.sdp = v6.clone()).await;
    assert_eq!(refused.metadata().get(WARN_CODE).unwrap(), "301");
    check(
        refused,
        FailedPrecondition,
        "488 Not Acceptable Here: an IPv6 address cannot be reached",
    );
    service.offer("s", Side::A, phone.sdp()).await.unwrap();
    let another = offer(&|it| it.session_id = "t".into()).await;
    check(another, ResourceExhausted, "--max-sessions");

    let connect = ConnectRequest { session_id: "s".into(), ..Default::default() };
    check(service.client.connect(connect).await.unwrap_err(), NotFound, "no side B");
    let join = JoinRequest {
        session_id: "s".into(),
        side: 1,
        conference: "a b".into(),
        ..JoinRequest::default()
    };
    let error = service.client.join(join).await.unwrap_err();
    check(error, InvalidArgument, "conference is \"a b\"; wanted 1 to 64");
    let inject =
        InjectDtmfRequest { session_id: "s".into(), side: 1, digit: "12".into(), duration_ms: 0 };
    let error = service.client.inject_dtmf(inject).await.unwrap_err();
    check(error, InvalidArgument, "digit is \"12\"; wanted one of 0-9 * # A-D");
    let sdp = phone.sdp().into_bytes();
    let answer = AnswerRequest { session_id: "s".into(), side: 1, sdp };
    let error = service.client.answer(answer).await.unwrap_err();
    check(error, FailedPrecondition, "no offer of ours is open");
    let query = QueryRequest { limit: 10_001, ..QueryRequest::default() };
    let error = service.client.query(query).await.unwrap_err();
    check(error, InvalidArgument, "limit is 10001; wanted 1 to 10000");
    let query = QueryRequest { session_id: "none".into(), ..QueryRequest::default() };
    check(service.client.query(query).await.unwrap_err(), NotFound, "no media session \"none\"");
}
