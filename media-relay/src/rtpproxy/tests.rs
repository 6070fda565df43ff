//! The parser: every command as clients write it, every error that is in the words alone, and junk.

use super::command::{COMMAND_BYTES_MAX, Command, CopyTo, Party, Place, Play, Verb, parse};
use super::error_code::ErrorCode;
use super::modifiers::Modifiers;
use super::sub_command::SubCommand;
use proptest::prelude::*;

fn read(line: &str) -> Verb {
    parse(line.as_bytes()).unwrap().verb
}

fn party(from_tag: &str, to_tag: Option<&str>) -> Party {
    Party { call_id: "c@h".into(), from_tag: from_tag.into(), to_tag: to_tag.map(str::to_owned) }
}

#[test]
fn set_up_is_read_as_kamailio_writes_it() {
    let verb = read("Uc0,8,101 c@h 192.0.2.1 4000 a;1\n");
    let modifiers = Modifiers { codecs: Some(vec![0, 8, 101]), ..Modifiers::default() };
    let remote = Some("192.0.2.1:4000".parse().unwrap());
    let place = Place { modifiers, party: party("a;1", None), remote, notify: None };
    assert_eq!(verb, Verb::Update(Box::new(place)));
    let Verb::Lookup(place) = read("lz20 c@h [2001:db8::1] 1 a;1 b;1") else { panic!() };
    assert_eq!(place.party, party("a;1", Some("b;1")));
    assert_eq!(place.remote, Some("[2001:db8::1]:1".parse().unwrap()));
    for held in ["U c@h 0.0.0.0 4000 a", "U c@h :: 4000 a", "U c@h 192.0.2.1 0 a"] {
        let Verb::Update(place) = read(held) else { panic!() };
        assert_eq!(place.remote, None, "{held}");
    }
}

#[test]
fn a_notification_s_place_comes_with_or_without_a_to_tag() {
    let notify = |line: &str| {
        let Verb::Update(place) = read(line) else { panic!() };
        let notify = place.notify.unwrap();
        (place.party.to_tag, notify.socket, notify.tag)
    };
    let (socket, tag) = ("tcp:192.0.2.9:7".to_owned(), "a b%".to_owned());
    let wanted = (None, socket.clone(), tag.clone());
    assert_eq!(notify("U c@h 192.0.2.1 4000 a tcp:192.0.2.9:7 a%20b%25"), wanted);
    let wanted = (Some("b".to_owned()), socket, tag);
    assert_eq!(notify("U c@h 192.0.2.1 4000 a b tcp:192.0.2.9:7 a%20b%25"), wanted);
}

#[test]
fn the_other_commands_are_read() {
    let play = |times, codecs| {
        let (party, name) = (party("a;1", Some("b;1")), "/m/test.pcm".to_owned());
        Verb::Play(Play { party, name, times, codecs })
    };
    assert_eq!(read("P-1 c@h /m/test.pcm session a;1 b;1"), play(None, None));
    assert_eq!(read("p3 c@h /m/test.pcm 8,0 a;1 b;1"), play(Some(3), Some(vec![8, 0])));
    assert_eq!(read("P c@h /m/test.pcm session a;1 b;1"), play(Some(1), None));
    assert_eq!(read("S c@h a;1 b;1"), Verb::Stop(party("a;1", Some("b;1"))));
    assert_eq!(read("Dw c@h a"), Verb::Delete { weak: true, party: party("a", None) });
    assert_eq!(read("R c@h a b"), Verb::Record(party("a", Some("b"))));
    assert_eq!(read("Na c@h a"), Verb::StopRecording(party("a", None)));
    let to = CopyTo::Address("192.0.2.9:7000".parse().unwrap());
    let party_a = party("a", None);
    assert_eq!(
        read("CP c@h udp:192.0.2.9:7000 a"),
        Verb::Copy { party: party_a.clone(), to, tell_port: true }
    );
    let to = CopyTo::File("name".into());
    assert_eq!(read("C c@h name a"), Verb::Copy { party: party_a, to, tell_port: false });
    let names = vec!["ttl".to_owned(), "nrelayed".to_owned()];
    let party_ab = party("a", Some("b"));
    assert_eq!(
        read("Qv c@h a b ttl nrelayed"),
        Verb::Query { verbose: true, party: party_ab, names: names.clone() }
    );
    assert_eq!(read("G ttl nrelayed"), Verb::Stats { verbose: false, names });
    assert_eq!((read("X"), read("Ibl")), (Verb::DeleteAll, Verb::Info { load: true }));
    assert_eq!((read("V"), read("VF 20071116")), (Verb::Version, Verb::Feature("20071116".into())));
}

#[test]
fn sub_commands_follow_what_takes_them() {
    let line = "U c@h 192.0.2.1 4000 a && M3:1 tag 96 && S ttl=30 && Lc8 192.0.2.2 5000 && Dw";
    let Command { sub_commands, .. } = parse(line.as_bytes()).unwrap();
    let modifiers = Modifiers { codecs: Some(vec![8]), ..Modifiers::default() };
    let wanted = [
        SubCommand::CatchDigits { tag: "tag".into(), payload_type: 96 },
        SubCommand::TimeToLive { seconds: 30 },
        SubCommand::Other { modifiers, remote: Some("192.0.2.2:5000".parse().unwrap()) },
        SubCommand::Delete { weak: true },
    ];
    assert_eq!(sub_commands, wanted);
}

#[test]
fn what_is_wrong_with_a_command_has_its_code() {
    use ErrorCode::*;
    let long_tag = format!("S c {}", "t".repeat(513));
    let wrong = [
        ("", ArgumentCount),
        ("Z c a", UnknownCommand),
        ("ä", UnknownCommand),
        ("V 1", ArgumentCount),
        ("VF", ArgumentCount),
        ("VX", Modifiers),
        ("Sx c a", Modifiers),
        ("X1", Modifiers),
        ("X 1", ArgumentCount),
        ("U c 192.0.2.1 4000", ArgumentCount),
        ("U c 192.0.2.1 4000 a b s t u", ArgumentCount),
        ("L c 192.0.2.1 4000 a b c", ArgumentCount),
        ("D c", ArgumentCount),
        ("P c f session", ArgumentCount),
        ("V && S ttl=1", SubCommand),
        ("U c 192.0.2.1 4000 a &&", SubCommand),
        ("U c 192.0.2.1 4000 a && M4:1 t", SubCommand),
        ("U c 192.0.2.1 4000 a && M3:1 t 128", SubCommand),
        ("U c 192.0.2.1 4000 a && S tos=184", SubCommand),
        ("Q c a && M3:1 t", SubCommand),
        ("S c a\0b", Syntax),
        (&long_tag, Syntax),
        ("Nx c a", StopRecordingModifier),
        ("Rx c a", RecordModifier),
        ("Cx c n a", RecordModifier),
        ("Dx c a", DeleteModifier),
        ("Gx", StatsModifier),
        ("U c 192.0.2.1 4000 a tcp:192.0.2.9:7 a%2", NotifyTag),
        ("U c 192.0.2.1 4000 a tcp:192.0.2.9:7 a%0a", NotifyTag),
        ("UE c 192.0.2.1 4000 a", External),
        ("LI c 192.0.2.1 4000 a", Internal),
        ("UZ c 192.0.2.1 4000 a", PacketTime),
        ("UC c 192.0.2.1 4000 a", CodecList),
        ("P c f 0,x a", CodecList),
        ("UL c 192.0.2.1 4000 a", LocalAddressSyntax),
        ("UR c 192.0.2.1 4000 a", RouteSyntax),
        ("Px c f session a", PlayCount),
        ("P-2 c f session a", PlayCount),
        ("Ix", InfoModifier),
        ("Qx c a", QueryModifier),
        ("UL{x} c 192.0.2.1 4000 a", LocalAddress),
        ("UY c 192.0.2.1 4000 a", Unusable),
        ("U c host 4000 a", RemoteAddress),
        ("U c 224.0.0.1 4000 a", RemoteAddress),
        ("U c 192.0.2.1 65536 a", RemoteAddress),
        ("C c udp:host:1 a", NotCopied),
    ];
    for (line, code) in wrong {
        assert_eq!(parse(line.as_bytes()).unwrap_err(), code, "{line:?}");
    }
    assert_eq!(parse(b"S c \xff"), Err(Syntax));
    let long = format!("D c {}", " ".repeat(COMMAND_BYTES_MAX));
    assert_eq!(parse(long.as_bytes()), Err(Syntax));
    let words = format!("G {}", "a ".repeat(200));
    assert_eq!(parse(words.as_bytes()), Err(ArgumentCount));
}

#[test]
fn numbers_of_errors_are_the_protocol_s() {
    let numbers: Vec<String> = ErrorCode::ALL.iter().map(ToString::to_string).collect();
    let wanted = "E0 E1 E2 E3 E5 E6 E7 E8 E9 E10 E11 E12 E13 E14 E15 E16 E17 E18 E19 E25 E26 E31 E32 \
                  E35 E36 E37 E50 E60 E62 E65 E68 E71 E72 E75 E98 E99";
    assert_eq!(numbers.join(" "), wanted);
}

fn word() -> impl Strategy<Value = String> {
    let words = [
        "U",
        "Lz20c0,8",
        "UAEI6WNR[::1]L{x}",
        "P-1",
        "Q",
        "&&",
        "M3:1",
        "S",
        "ttl=0",
        "192.0.2.1",
        "[::",
        "0",
        "65535",
        "65536",
        "-1",
        "session",
        "a;1",
        ";",
        "%",
        "%zz",
        "udp:1.2.3.4:5",
        "ß",
        "\u{feff}",
        "Lä",
        "tcp:%%CC_SELF%%:1",
    ];
    prop_oneof![prop::sample::select(words.to_vec()).prop_map(str::to_owned), "\\PC{0,12}"]
}

proptest! {
    #[test]
    fn bytes_of_any_kind_are_a_command_or_an_error(line in prop::collection::vec(any::<u8>(), 0..9_000)) {
        let _ = parse(&line);
    }

    #[test]
    fn words_in_any_order_are_a_command_or_an_error(words in prop::collection::vec(word(), 0..12)) {
        let _ = parse(words.join(" ").as_bytes());
    }
}
