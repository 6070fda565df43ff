//! Our parser against rsip, an independent one: where they differ, and on what they agree.
//!
//! docs/RFC.md says for each difference who is right.

mod receiving;

use bytes::Bytes;
use expect_test::expect;
use proptest::prelude::*;
use receiving::{agent, messages, outcome};
use rsip::prelude::*;
use sip::{Envelope, Message};
use std::fmt::Write as _;

/// What every message has, as text, so that both parsers can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Values {
    start: String,
    from: (String, Option<String>),
    to: (String, Option<String>),
    call_id: String,
    cseq: (u32, String),
    sent_by: String,
    branch: Option<String>,
    body: String,
}

fn ours(bytes: &[u8]) -> Option<Values> {
    let message = Message::parse(Bytes::copy_from_slice(bytes)).ok()?;
    let (start, body, envelope) = match &message {
        Message::Request(it) => {
            (format!("{} {}", it.method_name(), it.uri()), &it.body, Envelope::of_request(it))
        }
        Message::Response(it) => (it.status.to_string(), &it.body, Envelope::of_response(it)),
    };
    let envelope = envelope.ok()?;
    let tag = |tag: Option<&str>| tag.map(str::to_owned);
    Some(Values {
        start,
        from: (envelope.from.uri.to_owned(), tag(envelope.from.tag())),
        to: (envelope.to.uri.to_owned(), tag(envelope.to.tag())),
        call_id: envelope.call_id.to_owned(),
        cseq: (envelope.cseq, envelope.cseq_method.to_owned()),
        sent_by: envelope.via.sent_by.to_string(),
        branch: tag(envelope.via.branch()),
        body: String::from_utf8_lossy(body).into_owned(),
    })
}

fn theirs(bytes: &[u8]) -> Option<Values> {
    let message = rsip::SipMessage::try_from(bytes).ok()?;
    let start = match &message {
        rsip::SipMessage::Request(it) => format!("{} {}", it.method, it.uri),
        rsip::SipMessage::Response(it) => u16::from(it.status_code.clone()).to_string(),
    };
    let from = message.from_header().ok()?.typed().ok()?;
    let to = message.to_header().ok()?.typed().ok()?;
    let cseq = message.cseq_header().ok()?.typed().ok()?;
    let via = message.via_header().ok()?.typed().ok()?;
    let tag = |tag: Option<&rsip::param::Tag>| tag.map(|it| it.value().to_owned());
    Some(Values {
        start,
        from: (from.uri.to_string(), tag(from.tag())),
        to: (to.uri.to_string(), tag(to.tag())),
        call_id: message.call_id_header().ok()?.value().to_owned(),
        cseq: (cseq.seq, cseq.method.to_string()),
        sent_by: via.uri.host_with_port.to_string(),
        branch: via.branch().map(|it| it.value().to_owned()),
        body: String::from_utf8_lossy(message.body()).into_owned(),
    })
}

#[test]
fn the_parsers_differ_only_where_docs_rfc_md_says() {
    let mut table = String::new();
    for (name, bytes) in [messages("torture"), messages("messages")].concat() {
        let line = match (ours(&bytes), theirs(&bytes)) {
            (None, None) => continue,
            (Some(ours), Some(theirs)) if ours == theirs => continue,
            (Some(_), None) => "only ours reads it".to_owned(),
            (None, Some(_)) => format!("only rsip reads it; we: {}", outcome(&mut agent(), bytes)),
            (Some(ours), Some(theirs)) => difference(&ours, &theirs),
        };
        writeln!(table, "{name:<20} {line}").unwrap();
    }
    expect![[r#"
        badaspec             only ours reads it
        badinv01             only rsip reads it; we: (malformed_request), 400 Missing or Invalid Via Header Field
        clerr                only rsip reads it; we: (malformed_request), 400 Body Shorter than Content-Length
        dblreq               only ours reads it
        esc01                only ours reads it
        esc02                only ours reads it
        escruri              only ours reads it
        intmeth              only ours reads it
        longreq              only ours reads it
        ltgtruri             only rsip reads it; we: (malformed_request), 400 Invalid Request-URI
        mcl01                only rsip reads it; we: (malformed_request), 400 Invalid Content-Length Header Field
        mismatch01           only rsip reads it; we: (malformed_request), 400 CSeq Method Differs from Request Method
        multi01              only rsip reads it; we: (malformed_request), 400 Missing or Invalid From Header Field
        ncl                  only rsip reads it; we: (malformed_request), 400 Invalid Content-Length Header Field
        novelsc              only rsip reads it; we: (malformed_request), 416 Unsupported URI Scheme
        quotbal              only rsip reads it; we: (malformed_request), 400 Missing or Invalid To Header Field
        regbadct             only rsip reads it; we: (malformed_request), 400 Invalid Contact Header Field
        semiuri              only ours reads it
        trws                 only ours reads it
        wsinv                only ours reads it
        clshort              body: "v=0\r\n", against body: "v=0\r\no=mhandley 29739 7272939 IN IP4 192.0.2.3\r\ns=-\r\nc=IN IP4 192.0.2.4\r\nt=0 0\r\nm=audio 49217 RTP/AVP 0\r\n",
        contact-unbracketed-headers only rsip reads it; we: (malformed_request), 400 Invalid Contact Header Field
        headers-257          only rsip reads it; we: (too_many_headers)
        ipv6                 only ours reads it
        leading-crlf         only ours reads it
        length-empty         only rsip reads it; we: (malformed_request), 400 Invalid Content-Length Header Field
        length-in-hex        only rsip reads it; we: (malformed_request), 400 Invalid Content-Length Header Field
        length-over-usize    only rsip reads it; we: (malformed_request), 400 Invalid Content-Length Header Field
        length-twice-alike   only rsip reads it; we: (malformed_request), 400 Invalid Content-Length Header Field
        length-with-sign     only rsip reads it; we: (malformed_request), 400 Invalid Content-Length Header Field
        lf-only              only ours reads it
        maxforwards300       only rsip reads it; we: (malformed_request), 400 Invalid Max-Forwards Header Field
        nonutf8              only ours reads it
        nul-in-header        only rsip reads it; we: (malformed_request), 400 Invalid Header Line
        sips-uri             only rsip reads it; we: (malformed_request), 416 Unsupported URI Scheme
        telephone-uri        only ours reads it
    "#]].assert_eq(&table);
}

fn difference(ours: &Values, theirs: &Values) -> String {
    let (ours, theirs) = (format!("{ours:#?}"), format!("{theirs:#?}"));
    let pairs = ours.lines().zip(theirs.lines()).filter(|(a, b)| a != b);
    let pairs = pairs.map(|(a, b)| format!("{} against {}", a.trim(), b.trim()));
    pairs.collect::<Vec<_>>().join("; ")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// What real phones send: no folds, known methods, no escapes that one of them undoes.
    #[test]
    fn plain_messages_are_read_alike(message in message()) {
        let (ours, theirs) = (ours(message.as_bytes()), theirs(message.as_bytes()));
        prop_assert!(ours.is_some(), "{message}");
        prop_assert_eq!(ours, theirs, "{}", message);
    }
}

fn message() -> impl Strategy<Value = String> {
    let method = prop::sample::select(vec!["INVITE", "BYE", "OPTIONS", "INFO", "UPDATE", "REFER"]);
    let host =
        prop_oneof![Just("192.0.2.1".to_owned()), "[a-z]{1,8}(-[a-z]{1,4})?\\.example\\.com",];
    let port = prop_oneof![Just(String::new()), (1u16..).prop_map(|port| format!(":{port}"))];
    let uri = ("[a-z0-9._+-]{1,12}", host.clone(), port.clone())
        .prop_map(|(user, host, port)| format!("sip:{user}@{host}{port}"));
    let display = prop_oneof![
        Just(String::new()),
        "[A-Za-z]{1,8}( [A-Za-z]{1,8})?".prop_map(|name| name + " "),
        "[A-Za-z0-9 ;,.]{0,12}".prop_map(|name| format!("\"{name}\" ")),
    ];
    let to_tag =
        prop_oneof![Just(String::new()), "[A-Za-z0-9]{1,12}".prop_map(|it| format!(";tag={it}"))];
    let texts =
        ("[A-Za-z0-9.@-]{1,40}", "[A-Za-z0-9]{0,12}", "[A-Za-z0-9]{1,12}", "[a-z=\r\n]{0,40}");
    let number = prop_oneof![Just(0), Just((1 << 31) - 1), 0u32..1 << 31];
    (method, host, port, [uri.clone(), uri.clone(), uri], display, to_tag, texts, number).prop_map(
        |(method, host, port, [target, from, to], display, to_tag, texts, cseq)| {
            let (call_id, branch, tag, body) = texts;
            format!(
                "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {host}{port};branch=z9hG4bK{branch};rport\r\n\
                 Max-Forwards: 70\r\nFrom: {display}<{from}>;tag={tag}\r\nTo: <{to}>{to_tag}\r\n\
                 Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        },
    )
}
