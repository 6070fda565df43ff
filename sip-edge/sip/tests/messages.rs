//! Messages beside those of RFC 4475, one file each, and what the user agent does with them.
//!
//! What has no answer is discarded with a reason, and what has one is never met with silence.

mod receiving;

use bytes::Bytes;
use expect_test::expect;
use proptest::prelude::*;
use receiving::{agent, outcome, phone};
use sip::{Hangup, LegId, OutboundInvite, Output, UserAgent};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

#[test]
fn each_message_gets_what_it_deserves() {
    let mut table = String::new();
    for (name, bytes) in receiving::messages("messages") {
        let outcome = outcome(&mut agent(), bytes);
        writeln!(table, "{name:<20} {outcome}").unwrap();
    }
    expect![[r#"
        accept-anything      100 Trying, Invited
        accept-without-sdp   406 Not Acceptable
        call-id-500          100 Trying, Invited
        clshort              100 Trying, Invited with 5 bytes of SDP
        contact-8k           100 Trying, Invited
        contact-unbracketed-headers (malformed_request), 400 Invalid Contact Header Field
        headers-256          200 OK
        headers-257          (too_many_headers)
        ipv6                 200 OK
        keep-alive           (keep_alive)
        leading-crlf         200 OK
        length-empty         (malformed_request), 400 Invalid Content-Length Header Field
        length-in-hex        (malformed_request), 400 Invalid Content-Length Header Field
        length-of-20-digits  200 OK
        length-over-usize    (malformed_request), 400 Invalid Content-Length Header Field
        length-twice-alike   (malformed_request), 400 Invalid Content-Length Header Field
        length-with-sign     (malformed_request), 400 Invalid Content-Length Header Field
        lf-only              200 OK
        maxforwards300       (malformed_request), 400 Invalid Max-Forwards Header Field
        mpart-sdp            100 Trying, Invited with 105 bytes of SDP
        no-colon             (malformed_request), 400 Invalid Header Line
        no-empty-line        (malformed_request), 400 Invalid Header Line
        nonutf8              100 Trying, Invited
        novia                (malformed_request)
        nul-in-header        (malformed_request), 400 Invalid Header Line
        record-routes-40     100 Trying, Invited
        record-routes-65     400 Bad Request
        sips-uri             (malformed_request), 416 Unsupported URI Scheme
        status-line-of-http  (start_line)
        telephone-uri        100 Trying, Invited
        vias-60              100 Trying, Invited
        vias-60-in-one-line  100 Trying, Invited
        zeromf-invite        483 Too Many Hops
    "#]]
    .assert_eq(&table);
}

#[test]
fn non_utf_8_bytes_come_back_as_they_were() {
    let (_, bytes) =
        receiving::messages("messages").into_iter().find(|(name, _)| name == "nonutf8").unwrap();
    let mut ua = agent();
    ua.handle_message(Instant::now(), 0, phone(), bytes);
    let Some(Output::Send { bytes, .. }) = ua.poll_output() else { panic!("100 is sent") };
    let from = b"From: \"Fran\xe7ois \xff\xfe\" <sip:f@example.net>;tag=9\r\n";
    assert!(bytes.windows(from.len()).any(|it| it == from), "{bytes:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        outcome(&mut agent(), bytes.into());
    }

    /// Damaged messages of every kind, in the middle of calls of both roles: no panic, and after
    /// our hangup nothing is left.
    #[test]
    fn damaged_messages_neither_panic_nor_leave_anything(
        damages in proptest::collection::vec((any::<prop::sample::Index>(), damage()), 1..12),
    ) {
        let messages = [receiving::messages("messages"), receiving::messages("torture")].concat();
        let (mut ua, start) = (agent(), Instant::now());
        let invite = OutboundInvite {
            max_forwards: 70,
            target: "sip:b@192.0.2.1".into(),
            peer: phone(),
            from_uri: "sip:a@192.0.2.2".into(),
            from_display: None,
            sdp: "v=0".into(),
            headers: vec![],
            credentials: None,
            tcp_if_large: false,
        };
        ua.invite(start, invite).unwrap();
        let mut sent = drain(&mut ua);
        for (which, damage) in damages {
            // Half of the material is what we sent ourselves, since its tags and branches match.
            let all: Vec<_> = messages.iter().map(|(_, it)| it.clone()).chain(sent.clone()).collect();
            let bytes = damage.apply(&all[which.index(all.len())]);
            ua.handle_message(start, 0, phone(), bytes);
            for leg in 1..20 {
                ua.answer(start, LegId::from_u64(leg), "v=0".into());
            }
            sent.extend(drain(&mut ua));
        }
        for leg in 1..50 {
            let hangup = Hangup { reason: None, unanswered_status: 480 };
            ua.hangup(start, LegId::from_u64(leg), hangup);
        }
        while let Some(at) = ua.poll_timeout() {
            prop_assert!(at < start + Duration::from_secs(300), "timers go on for ever");
            ua.handle_timeout(at);
            drain(&mut ua);
        }
        prop_assert_eq!((ua.dialogs(), ua.transactions()), (0, 0));
    }
}

/// Ways to damage a message; positions are fractions of its length.
#[derive(Clone, Debug)]
enum Damage {
    None,
    Replace(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Repeat(prop::sample::Index, prop::sample::Index),
    AsResponse(u16),
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<prop::sample::Index>;
    let letters = prop_oneof![any::<u8>(), prop::sample::select(b"\r\n \t,;:=<>\"\\@%\0".to_vec())];
    let statuses = prop::sample::select(vec![100, 180, 183, 200, 202, 302, 401, 486, 487, 699]);
    prop_oneof![
        Just(Damage::None),
        (index(), letters).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        index().prop_map(Damage::Cut),
        (index(), index()).prop_map(|(from, to)| Damage::Repeat(from, to)),
        statuses.prop_map(Damage::AsResponse),
    ]
}

impl Damage {
    fn apply(&self, bytes: &Bytes) -> Bytes {
        let mut copy = bytes.to_vec();
        match self {
            Damage::None => (),
            Damage::Replace(at, byte) => copy[at.index(bytes.len())] = *byte,
            Damage::Cut(at) => copy.truncate(at.index(bytes.len())),
            Damage::Repeat(from, to) => {
                let (a, b) = (from.index(bytes.len()), to.index(bytes.len()));
                let piece = bytes.slice(a.min(b)..a.max(b));
                copy.splice(a..a, piece);
            }
            Damage::AsResponse(status) => {
                let line = bytes.iter().position(|it| *it == b'\r').unwrap_or(0);
                copy.splice(..line, format!("SIP/2.0 {status} X").into_bytes());
            }
        }
        copy.into()
    }
}

fn drain(ua: &mut UserAgent) -> Vec<Bytes> {
    let outputs = std::iter::from_fn(|| ua.poll_output());
    let sent = outputs.filter_map(|output| match output {
        Output::Send { bytes, .. } => Some(bytes),
        _ => None,
    });
    sent.collect()
}
