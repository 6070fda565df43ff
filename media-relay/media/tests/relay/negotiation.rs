//! Offers, answers, sessions and ports.

use crate::bench::{A, B, Bench, SESSION, audio, rtp, sdp, sdp_with};
use expect_test::{Expect, expect};
use media::sdp::{Refusal, Remote};
use media::{Codec, Error, Side};

/// The description with what differs from run to run made plain.
fn plain(sdp: &[u8]) -> String {
    let text = String::from_utf8(sdp.to_vec()).unwrap();
    let line = |line: &str| match line.split(' ').collect::<Vec<_>>().as_slice() {
        ["o=-", _, version, rest @ ..] => format!("o=- ID {version} {}\n", rest.join(" ")),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

fn check_answer(offer: &str, expected: Expect) {
    let mut bench = Bench::with(|it| it.rtp_ports = 20_000..=20_001);
    let described = bench.offer(SESSION, Side::A, Some(offer)).unwrap();
    expected.assert_eq(&plain(&described.sdp));
}

#[test]
fn an_answer_keeps_the_offer_s_order_and_numbers_and_rejects_the_rest_in_place() {
    check_answer(
        "v=0\r\no=phone 5 6 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\na=sendonly\r\n\
         m=video 6000 RTP/AVP 96\r\nc=IN IP4 192.0.2.1\r\na=rtpmap:96 H264/90000\r\n\
         m=audio 4000 RTP/AVP 9 8 97 0 98\r\nc=IN IP4 192.0.2.7\r\n\
         a=rtpmap:97 opus/48000/2\r\na=rtpmap:98 telephone-event/8000\r\na=ptime:30\r\n\
         m=audio 4002 RTP/AVP 0\r\nc=IN IP4 192.0.2.1\r\n",
        expect![[r#"
            v=0
            o=- ID 0 IN IP4 198.51.100.1
            s=-
            c=IN IP4 198.51.100.1
            t=0 0
            m=video 0 RTP/AVP 96
            m=audio 20000 RTP/AVP 9 8 97 0 98
            a=rtpmap:9 G722/8000
            a=rtpmap:8 PCMA/8000
            a=rtpmap:97 opus/48000/2
            a=fmtp:97 stereo=0;sprop-stereo=0;useinbandfec=1
            a=rtpmap:0 PCMU/8000
            a=rtpmap:98 telephone-event/8000
            a=fmtp:98 0-15
            a=ptime:30
            a=rtcp:20001
            a=recvonly
            m=audio 0 RTP/AVP 0
        "#]],
    );
}

#[test]
fn an_offer_that_its_deletion_has_overtaken_makes_no_session() {
    let mut bench = Bench::with(|_| ());
    assert!(!bench.relay.delete(bench.now(), SESSION, None));
    let refused = bench.offer(SESSION, Side::A, Some(&sdp(A, "0 8")));
    assert!(matches!(refused, Err(Error::Deleted(_))), "{refused:?}");
    bench.offer("another", Side::A, Some(&sdp(A, "0 8"))).unwrap();
}

#[test]
fn dynamic_numbers_and_capitals_are_understood() {
    check_answer(
        "v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\n\
         m=audio 4000 RTP/AVP 100 105\na=rtpmap:100 pcmu/8000/1\n\
         a=rtpmap:105 Telephone-Event/8000\na=RecvOnly\n",
        expect![[r#"
            v=0
            o=- ID 0 IN IP4 198.51.100.1
            s=-
            c=IN IP4 198.51.100.1
            t=0 0
            m=audio 20000 RTP/AVP 100 105
            a=rtpmap:100 PCMU/8000
            a=rtpmap:105 telephone-event/8000
            a=fmtp:105 0-15
            a=ptime:20
            a=rtcp:20001
            a=sendonly
        "#]],
    );
}

#[test]
fn offers_as_they_are_found_in_the_wild_are_understood() {
    let offers: [(&str, &[u8]); 6] = [
        (
            "SIPp",
            b"v=0\r\no=user1 53655765 2353687637 IN IP4 192.0.2.1\r\ns=-\r\n\
              c=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8 101\r\n\
              a=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-11,16\r\n",
        ),
        (
            "baresip",
            b"v=0\r\no=- 1234567890 98765 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\n\
              t=0 0\r\na=tool:baresip 1.0.0\r\nm=audio 4000 RTP/AVP 96 8 0 101\r\nb=AS:128\r\n\
              a=rtpmap:96 opus/48000/2\r\na=fmtp:96 stereo=1;sprop-stereo=1\r\n\
              a=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
              a=fmtp:101 0-15\r\na=rtcp:4001\r\na=sendrecv\r\na=label:1\r\na=rtcp-rsize\r\n\
              a=ssrc:2166 cname:sip:a@b\r\na=ptime:20\r\n",
        ),
        (
            "a carrier",
            b"v=0\r\no=SBC 99999999999999999999 0 IN IP4 192.0.2.1\r\ns=sip call\r\n\
              c=IN IP4 192.0.2.1\r\nt=0 0\r\na=sendrecv\r\n\
              m=audio 4000 RTP/AVP 9 8 0 4 18 2 102 101 13 118\r\na=rtpmap:9 G722/8000\r\n\
              a=rtpmap:8 PCMA/8000/1\r\na=rtpmap:0 PCMU/8000/1\r\na=rtpmap:18 G729/8000\r\n\
              a=fmtp:18 annexb=no\r\na=rtpmap:102 telephone-event/16000\r\n\
              a=rtpmap:101 telephone-event/8000/1\r\na=fmtp:101 0-15\r\na=maxptime:30\r\na=ptime:20\r\n\
              a=rtcp:4001 IN IP4 192.0.2.1\r\nm=image 0 udptl t38\r\n",
        ),
        (
            "a subject in Latin-1",
            b"v=0\r\no=J\xfcrgen M 1 1 IN IP4 192.0.2.1\r\ns=Gespr\xe4ch\r\nc=IN IP4 192.0.2.1\r\n\
              t=0 0\r\nm=audio 4000 RTP/AVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\na=x-name:\xe4\r\n",
        ),
        (
            "line feeds, an empty line, no last one",
            b"v=0\no=- 1 1 IN IP4 192.0.2.1\ns= \nt=0 0\n\nm=audio 4000 RTP/AVP 8 101 \n\
              c=IN IP4 192.0.2.1\na=rtpmap:101  telephone-event/8000\na=sendrecv",
        ),
        (
            "odd bandwidths and times",
            b"v=0\r\no=- -1 -1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nb=AS:87.2\r\nt=0\r\n\
              m=audio 4000/1 RTP/AVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\n",
        ),
    ];
    for (name, offer) in offers {
        let remote = Remote::parse(offer).unwrap_or_else(|e| panic!("{name}: {e}"));
        let codec = match name {
            "baresip" => Codec::Opus,
            "a carrier" => Codec::G722,
            _ => Codec::Pcma,
        };
        assert_eq!((remote.codec(), remote.held()), (codec, false), "{name}");
        let mut bench = Bench::new();
        let answer = bench.offer_of(SESSION, Side::A, Some(remote)).unwrap();
        assert!(plain(&answer.sdp).contains("a=rtpmap:101 telephone-event/8000\n"), "{name}");
        assert_eq!(bench.status(SESSION, Side::A).signalled, Some(A.parse().unwrap()), "{name}");
    }
}

#[test]
fn the_version_goes_up_when_the_description_changes_and_only_then() {
    let mut bench = Bench::new();
    let mut version = |attributes| {
        let offer = sdp_with(A, "0 101", attributes);
        let described = bench.offer(SESSION, Side::A, Some(&offer)).unwrap();
        plain(&described.sdp).lines().nth(1).unwrap().split(' ').nth(2).unwrap().to_owned()
    };
    let versions = ["", "", "sendonly", "sendonly", ""].map(&mut version);
    assert_eq!(versions, ["0", "0", "1", "1", "2"]);
}

#[test]
fn our_offer_is_completed_by_the_answer() {
    let mut bench = Bench::with(|it| it.rtp_ports = 20_000..=20_001);
    let offered = bench.offer(SESSION, Side::A, None).unwrap();
    assert_eq!((offered.codec, offered.held), (None, false));
    expect![[r#"
        v=0
        o=- ID 0 IN IP4 198.51.100.1
        s=-
        c=IN IP4 198.51.100.1
        t=0 0
        m=audio 20000 RTP/AVP 0 8 9 96 97 98 3 101 102
        a=rtpmap:0 PCMU/8000
        a=rtpmap:8 PCMA/8000
        a=rtpmap:9 G722/8000
        a=rtpmap:96 opus/48000/2
        a=fmtp:96 stereo=0;sprop-stereo=0;useinbandfec=1
        a=rtpmap:97 L16/16000
        a=rtpmap:98 L16/8000
        a=rtpmap:3 GSM/8000
        a=rtpmap:101 telephone-event/8000
        a=fmtp:101 0-15
        a=rtpmap:102 telephone-event/48000
        a=fmtp:102 0-15
        a=ptime:20
        a=rtcp:20001
        a=sendrecv
    "#]]
    .assert_eq(&plain(&offered.sdp));
    bench.play(Side::A, "music", &audio(Codec::Pcmu, 1, 8_000), true);
    bench.run(100);
    assert_eq!(bench.take_rtp(A), [], "nobody is known to listen yet");
    let answered = bench.answer(Side::A, &sdp(A, "8 110")).unwrap();
    assert_eq!(answered.codec, Some(Codec::Pcma));
    bench.run(100);
    let packets = bench.take_rtp(A);
    assert_eq!((packets.len(), packets[0].payload_type), (6, 8), "music begins at the answer");
    // The remote sends events with the number that we offered, or with its own.
    bench.receive(Side::A, A, &rtp(77, 1, 0, 101, &[1, 10, 0, 160]));
    bench.receive(Side::A, A, &rtp(77, 2, 800, 110, &[2, 10, 0, 160]));
    assert_eq!(bench.digits(), "12");
    let again = bench.answer(Side::A, &sdp(A, "8")).unwrap_err();
    assert!(matches!(again, Error::NoOpenOffer { .. }), "{again}");
}

#[test]
fn an_offer_of_ours_on_a_live_side_keeps_the_numbers_in_use() {
    let mut bench = Bench::new();
    bench.offer(SESSION, Side::A, Some(&sdp(A, "8 97"))).unwrap();
    let offered = bench.offer(SESSION, Side::A, None).unwrap();
    assert_eq!(offered.codec, Some(Codec::Pcma));
    let sdp_offered = plain(&offered.sdp);
    assert!(sdp_offered.contains("RTP/AVP 8 0 9 96 99 98 3 97 101\n"), "{sdp_offered}");
    assert!(bench.answer(Side::A, &sdp(A, "0")).is_ok());
    assert_eq!(bench.status(SESSION, Side::A).codec, Some(Codec::Pcmu));
}

#[test]
fn what_cannot_be_used_is_refused_and_changes_nothing() {
    let refusal = |sdp: &str| Remote::parse(sdp.as_bytes()).unwrap_err().to_string();
    expect!["no codec in common: wanted one of PCMU/8000, PCMA/8000, G722/8000, opus/48000/2, L16/16000, L16/8000, GSM/8000, got 18, 4"].assert_eq(&refusal(&sdp(A, "18 4")));
    expect!["no codec in common: wanted one of PCMU/8000, PCMA/8000, G722/8000, opus/48000/2, L16/16000, L16/8000, GSM/8000, got telephone-event/8000"].assert_eq(&refusal(&sdp(A, "101")));
    expect!["no usable audio: wanted `m=audio` with RTP/AVP, got audio over RTP/SAVP"]
        .assert_eq(&refusal(&sdp(A, "0").replace("RTP/AVP", "RTP/SAVP")));
    expect!["no usable audio: wanted `m=audio` with RTP/AVP, got no media description"]
        .assert_eq(&refusal("v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\n"));
    expect![[r#"connection address "239.1.1.1" is not a unicast IP address"#]]
        .assert_eq(&refusal(&sdp("239.1.1.1:4000", "0")));
    expect![[r#"connection address "255.255.255.255" is not a unicast IP address"#]]
        .assert_eq(&refusal(&sdp("255.255.255.255:4000", "0")));
    expect![[r#"connection address "phone.example" is not a unicast IP address"#]]
        .assert_eq(&refusal(&sdp(A, "0").replace("192.0.2.1", "phone.example")));
    assert!(refusal("hello").starts_with("not a session description (RFC 8866)"));
    assert!(
        refusal(&"m=audio 1 RTP/AVP 0\r\n".repeat(40).replacen("", "v=0\r\n", 1))
            .contains("40 media")
    );
    let huge = vec![b'a'; 65_536];
    assert_eq!(Remote::parse(&huge).unwrap_err(), Refusal::TooLong { len: 65_536 });

    let mut bench = Bench::one_side();
    let v6 = sdp(A, "0").replace("192.0.2.1", "2001:db8::1").replace("IP4", "IP6");
    let error = bench.offer(SESSION, Side::A, Some(&v6)).unwrap_err().to_string();
    assert_eq!(error, "an IPv6 address cannot be reached from our IPv4 one");
    let status = bench.status(SESSION, Side::A);
    assert_eq!(status.signalled, Some(A.parse().unwrap()), "the old one stays in force");
}

#[test]
fn of_two_address_families_ours_is_taken_and_media_goes_there() {
    let mut bench = Bench::with(|it| it.rtp_ports = 20_000..=20_001);
    let offer = "v=0\r\no=- 1 1 IN IP6 2001:db8::1\r\ns=-\r\nt=0 0\r\na=group:ANAT 1 2\r\n\
         m=audio 4000 RTP/AVP 0\r\nc=IN IP6 2001:db8::1\r\na=mid:1\r\n\
         m=audio 4000 RTP/AVP 8\r\nc=IN IP4 192.0.2.1\r\na=mid:2\r\n";
    let described = bench.offer(SESSION, Side::A, Some(offer)).unwrap();
    let medias = |sdp: &[u8]| {
        let sdp = plain(sdp);
        let lines: Vec<_> = sdp.lines().filter(|it| it.starts_with("m=")).collect();
        lines.join("\n")
    };
    expect![[r#"
        m=audio 0 RTP/AVP 0
        m=audio 20000 RTP/AVP 8"#]]
    .assert_eq(&medias(&described.sdp));
    assert_eq!(described.codec, Some(Codec::Pcma));
    assert_eq!(bench.status(SESSION, Side::A).signalled, Some(A.parse().unwrap()));
    // Its place is kept by an offer of ours.
    let offered = bench.offer(SESSION, Side::A, None).unwrap();
    expect![[r#"
        m=audio 0 RTP/AVP 0
        m=audio 20000 RTP/AVP 8 0 9 96 97 98 3 101 102"#]]
    .assert_eq(&medias(&offered.sdp));
}

#[test]
fn what_is_not_acceptable_has_its_warn_code() {
    let warn_code = |sdp: &str| match Bench::new().offer(SESSION, Side::A, Some(sdp)) {
        Err(Error::Refused(refusal)) => refusal.warn_code(),
        other => panic!("not refused, but {other:?}"),
    };
    let v6 = sdp(A, "0").replace("IN IP4 192.0.2.1", "IN IP6 2001:db8::1");
    assert_eq!(warn_code(&v6), Some(301));
    assert_eq!(warn_code(&sdp(A, "18")), Some(305));
    assert_eq!(warn_code(&sdp(A, "0").replace("RTP/AVP", "RTP/SAVP")), Some(305));
    assert_eq!(warn_code(&sdp("239.1.1.1:4000", "0")), None, "it is malformed");
}

#[test]
fn a_refused_first_offer_leaves_no_session_and_no_port() {
    let mut bench = Bench::new();
    let off = sdp(A, "0").replace("m=audio 4000", "m=audio 0");
    let error = bench.offer(SESSION, Side::A, Some(&off)).unwrap_err();
    assert!(matches!(error, Error::Refused(Refusal::NoAudio { .. })), "{error}");
    assert_eq!((bench.relay.sessions(), bench.closed.len()), (0, 0));
}

#[test]
fn port_0_on_a_live_side_turns_the_stream_off_and_on_again() {
    let mut bench = Bench::one_side();
    bench.play(Side::A, "music", &audio(Codec::Pcmu, 1, 8_000), true);
    let off = sdp(A, "0 101").replace("m=audio 4000", "m=audio 0");
    let described = bench.offer(SESSION, Side::A, Some(&off)).unwrap();
    assert!(described.held);
    assert!(plain(&described.sdp).contains("m=audio 0 RTP/AVP 0 101\n"));
    bench.take_rtp(A);
    bench.run(1_000);
    assert_eq!(bench.take_rtp(A), []);
    bench.offer(SESSION, Side::A, Some(&sdp(A, "0 101"))).unwrap();
    bench.run(100);
    assert_eq!(bench.take_rtp(A).len(), 6);
}

#[test]
fn rtcp_goes_where_the_attribute_says() {
    let mut bench = Bench::new();
    bench.offer(SESSION, Side::A, Some(&sdp_with(A, "0", "rtcp:4777"))).unwrap();
    bench.run(10_000);
    assert!(!bench.take_rtcp("192.0.2.1:4777").is_empty());
}

#[test]
fn delete_says_goodbye_frees_the_ports_at_once_and_can_come_twice() {
    let mut bench = Bench::connected("0 101");
    let now = bench.now();
    assert!(bench.relay.delete(now, SESSION, None));
    assert!(!bench.relay.delete(now, SESSION, None));
    bench.run(0);
    assert_eq!(bench.closed.len(), 2);
    assert_eq!((bench.relay.sessions(), bench.relay.poll_timeout()), (0, None));
    let goodbye = bench.take_rtcp("192.0.2.2:5001").remove(0).1;
    assert!(goodbye.windows(2).any(|it| it == [0x81, 203]), "{goodbye:02x?}");
    let port = bench.closed[0].rtp();
    let late = rtp(1, 1, 1, 0, &[0; 160]);
    assert_eq!(bench.receive_on(port, A, &late).as_deref(), Some("no_listener"));
}

#[test]
fn ports_rest_after_use_and_run_out_honestly() {
    let mut bench = Bench::with(|it| it.rtp_ports = 20_000..=20_003);
    bench.offer("one", Side::A, Some(&sdp(A, "0"))).unwrap();
    bench.offer("one", Side::B, Some(&sdp(B, "0"))).unwrap();
    let error = bench.offer("two", Side::A, Some(&sdp(A, "0"))).unwrap_err().to_string();
    assert_eq!(error, "all 2 port pairs are in use or in quarantine (--rtp-ports)");
    let now = bench.now();
    bench.relay.delete(now, "one", None);
    assert!(bench.offer("two", Side::A, Some(&sdp(A, "0"))).is_err(), "still in quarantine");
    bench.run(5_000);
    assert!(bench.offer("two", Side::A, Some(&sdp(A, "0"))).is_ok());
}

#[test]
fn sessions_are_limited_and_named_in_errors() {
    let mut bench = Bench::with(|it| it.sessions_max = 1);
    bench.offer("one", Side::A, Some(&sdp(A, "0"))).unwrap();
    let error = bench.offer("two", Side::A, Some(&sdp(A, "0"))).unwrap_err().to_string();
    assert_eq!(error, "all 1 media sessions are in use (--max-sessions)");
    assert_eq!(bench.closed, [], "no port was taken for it, to rest for nothing");
    let now = bench.now();
    let error = bench.relay.connect(now, "two").unwrap_err().to_string();
    assert_eq!(error, "no media session \"two\"");
    let error = bench.relay.connect(now, "one").unwrap_err().to_string();
    assert_eq!(error, "media session \"one\" has no side B");
}

#[test]
fn codecs_beyond_g711_are_answered_by_their_own_clocks_and_parameters() {
    check_answer(
        "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
         m=audio 4000 RTP/AVP 111 9 3 96 13 110 126 105\r\na=rtpmap:111 OPUS/48000/2\r\n\
         a=fmtp:111 minptime=10;useinbandfec=1;stereo=1\r\na=rtpmap:96 L16/16000\r\n\
         a=rtpmap:110 telephone-event/48000\r\na=rtpmap:126 telephone-event/8000\r\n\
         a=rtpmap:105 telephone-event/32000\r\na=ptime:30\r\n",
        expect![[r#"
            v=0
            o=- ID 0 IN IP4 198.51.100.1
            s=-
            c=IN IP4 198.51.100.1
            t=0 0
            m=audio 20000 RTP/AVP 111 9 3 96 13 110 126
            a=rtpmap:111 opus/48000/2
            a=fmtp:111 stereo=0;sprop-stereo=0;useinbandfec=1
            a=rtpmap:9 G722/8000
            a=rtpmap:3 GSM/8000
            a=rtpmap:96 L16/16000
            a=rtpmap:13 CN/8000
            a=rtpmap:110 telephone-event/48000
            a=fmtp:110 0-15
            a=rtpmap:126 telephone-event/8000
            a=fmtp:126 0-15
            a=ptime:20
            a=rtcp:20001
            a=sendrecv
        "#]],
    );
}

#[test]
fn events_of_a_clock_that_no_codec_has_are_better_than_none() {
    let mut bench = Bench::new();
    let offer = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
         m=audio 4000 RTP/AVP 111 101\r\na=rtpmap:111 opus/48000/2\r\n\
         a=rtpmap:101 telephone-event/8000\r\n";
    let answer = bench.offer(SESSION, Side::A, Some(offer)).unwrap();
    assert!(plain(&answer.sdp).contains(" RTP/AVP 111 101\n"), "{}", plain(&answer.sdp));
}

#[test]
fn only_the_codecs_of_the_flag_are_taken_and_offered() {
    let codecs = [Codec::Gsm, Codec::Pcma];
    let mut bench = Bench::with(|it| it.codecs = codecs.to_vec());
    let refused = bench.offer(SESSION, Side::A, Some(&sdp(A, "0 9"))).unwrap_err();
    expect!["no codec in common: wanted one of GSM/8000, PCMA/8000, got PCMU/8000, G722/8000"]
        .assert_eq(&refused.to_string());
    let taken = bench.offer(SESSION, Side::A, Some(&sdp(A, "0 8 3"))).unwrap();
    assert_eq!(taken.codec, Some(Codec::Pcma), "in the offerer's order");
    let offered = bench.offer("another", Side::A, None).unwrap();
    assert!(plain(&offered.sdp).contains(" RTP/AVP 3 8 101\n"), "{}", plain(&offered.sdp));
}

#[test]
fn what_the_other_side_sends_is_offered_first_so_that_nothing_is_transcoded() {
    let mut bench = Bench::new();
    bench.offer(SESSION, Side::A, Some(&sdp(A, "9 101"))).unwrap();
    let offered = bench.offer(SESSION, Side::B, None).unwrap();
    assert!(plain(&offered.sdp).contains(" RTP/AVP 9 0 8 "), "{}", plain(&offered.sdp));
}
