//! The 49 messages of RFC 4475, one file each (bit for bit as in its appendix A), and what the RFC
//! asks for against what the user agent does.

mod receiving;

use bytes::Bytes;
use expect_test::expect;
use receiving::{agent, messages, outcome};
use sip::{Envelope, Message, Name, NameAddr, SipUri};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What the RFC asks of a user agent; statuses are those that it names or allows.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// The INVITE reaches the TU.
    Call,
    /// One of these responses.
    Response(&'static [u16]),
    /// A response that is wrong, or that nobody waits for: no answer, and no harm.
    Discarded,
}

use Wanted::{Call, Discarded, Response};

/// Section, file, whether the message can be read, and what is wanted.
///
/// A REGISTER that is right, but proves nothing, is challenged: 401.
const MESSAGES: [(&str, &str, bool, Wanted); 49] = [
    ("3.1.1.1", "wsinv", true, Response(&[481])), // Its To has a tag of a dialog that is not.
    ("3.1.1.2", "intmeth", true, Response(&[501])),
    ("3.1.1.3", "esc01", true, Call),
    ("3.1.1.4", "escnull", true, Response(&[401])),
    ("3.1.1.5", "esc02", true, Response(&[501])),
    ("3.1.1.6", "lwsdisp", true, Response(&[200])),
    ("3.1.1.7", "longreq", true, Call),
    ("3.1.1.8", "dblreq", true, Response(&[401])), // The INVITE behind it is no part of it.
    ("3.1.1.9", "semiuri", true, Response(&[200])),
    ("3.1.1.10", "transports", true, Response(&[200])),
    ("3.1.1.11", "mpart01", true, Response(&[405])), // We do not speak MESSAGE.
    ("3.1.1.12", "unreason", true, Discarded),
    ("3.1.1.13", "noreason", true, Discarded),
    ("3.1.2.1", "badinv01", false, Response(&[400])),
    ("3.1.2.2", "clerr", false, Response(&[400])),
    ("3.1.2.3", "ncl", false, Response(&[400])),
    ("3.1.2.4", "scalar02", false, Response(&[400])),
    ("3.1.2.5", "scalarlg", false, Discarded),
    ("3.1.2.6", "quotbal", false, Response(&[400])),
    ("3.1.2.7", "ltgtruri", false, Response(&[400])),
    ("3.1.2.8", "lwsruri", false, Response(&[400])),
    ("3.1.2.9", "lwsstart", false, Response(&[400])), // May be accepted: we do not guess.
    ("3.1.2.10", "trws", true, Response(&[200, 400])),
    ("3.1.2.11", "escruri", true, Call), // Or 400: the headers in the URI are ignored.
    ("3.1.2.12", "baddate", true, Call), // Or 400: nothing here reads Date.
    ("3.1.2.13", "regbadct", false, Response(&[400])),
    ("3.1.2.14", "badaspec", true, Response(&[200, 400])),
    ("3.1.2.15", "baddn", false, Response(&[200, 400])), // The file lacks its empty line, too.
    ("3.1.2.16", "badvers", false, Response(&[505])),
    ("3.1.2.17", "mismatch01", false, Response(&[400])),
    ("3.1.2.18", "mismatch02", false, Response(&[400, 501])),
    ("3.1.2.19", "bigcode", false, Discarded),
    ("3.2.1", "badbranch", true, Response(&[200])),
    ("3.3.1", "insuf", false, Response(&[400])),
    ("3.3.2", "unkscm", false, Response(&[416])),
    ("3.3.3", "novelsc", false, Response(&[416])),
    ("3.3.4", "unksm2", false, Response(&[400])),
    ("3.3.5", "bext01", true, Response(&[420])),
    ("3.3.6", "invut", true, Response(&[415])),
    ("3.3.7", "regaut01", true, Response(&[401])),
    ("3.3.8", "multi01", false, Response(&[400])),
    ("3.3.9", "mcl01", false, Response(&[400])),
    ("3.3.10", "bcast", true, Discarded),
    ("3.3.11", "zeromf", true, Response(&[200, 483])),
    ("3.3.12", "cparam01", true, Response(&[401])),
    ("3.3.13", "cparam02", true, Response(&[401])),
    ("3.3.14", "regescrt", true, Response(&[401])),
    ("3.3.15", "sdp01", true, Response(&[406])),
    ("3.4.1", "inv2543", true, Call),
];

#[test]
fn each_message_gets_what_the_rfc_asks_for() {
    let mut files: BTreeMap<_, _> = messages("torture").into_iter().collect();
    for (section, name, _, wanted) in MESSAGES {
        let bytes = files.remove(name).expect("every message has its file");
        let outcome = outcome(&mut agent(), bytes);
        let last = outcome.split(", ").last().unwrap_or_default();
        let fits = match wanted {
            Call => last.starts_with("Invited"),
            Response(allowed) => allowed.iter().any(|it| last.starts_with(&format!("{it} "))),
            Discarded => last.starts_with('('),
        };
        assert!(fits, "§{section} {name}: {outcome}, wanted {wanted:?}");
    }
    assert!(files.is_empty(), "files without a line in the table: {:?}", files.keys());
}

#[test]
fn each_message_is_read_as_it_is_meant() {
    let mut table = String::new();
    let files: BTreeMap<_, _> = messages("torture").into_iter().collect();
    for (section, name, is_readable, _) in MESSAGES {
        let values = values(files[name].clone());
        assert_eq!(values.is_ok(), is_readable, "§{section} {name}: {values:?}");
        match values {
            Ok(values) => writeln!(table, "{name}\n{values}").unwrap(),
            Err(defect) => writeln!(table, "{name}\n  {defect}").unwrap(),
        }
    }
    expect![[r#"
        wsinv
          INVITE sip:vivekg@chair-dnrc.example.com;unknownparam
          user Some("vivekg") at chair-dnrc.example.com
          Via 192.0.2.2 "390skdjuw"
          From sip:jdrosen@example.com Some("98asjd8")
          To sip:vivekg@chair-dnrc.example.com Some("1918181833n")
          Call-ID wsinv.ndaksdj@192.0.2.1
          CSeq 9 INVITE
          Contact sip:jdrosen@example.com [("newparam", "newvalue"), ("secondparam", ""), ("q", "0.33")]
          2 Via lines, body 150
        intmeth
          !interesting-Method0123456789_*+`.%indeed'~ sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com
          user Some("1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*") at example.com
          Via host1.example.com "z9hG4bK-.!%66*_+`'~"
          From sip:mundane@example.com Some("_token~1'+`*%!-.")
          To sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@example.com None
          Call-ID intmeth.word%ZK-!.*_+'@word`~)(><:\/"][?}{
          CSeq 139122385 !interesting-Method0123456789_*+`.%indeed'~
          1 Via lines, body 0
        esc01
          INVITE sip:sips%3Auser%40example.com@example.net
          user Some("sips%3Auser%40example.com") at example.net
          Via host5.example.net "z9hG4bKkdjuw"
          From sip:I%20have%20spaces@example.net Some("938")
          To sip:%75se%72@example.com None
          Call-ID esc01.239409asdfakjkn23onasd0-3234
          CSeq 234234 INVITE
          Contact sip:cal%6Cer@host5.example.net;%6C%72;n%61me=v%61lue%25%34%31 []
          1 Via lines, body 150
        escnull
          REGISTER sip:example.com
          user None at example.com
          Via host5.example.com "z9hG4bKkdjuw"
          From sip:null-%00-null@example.com Some("839923423")
          To sip:null-%00-null@example.com None
          Call-ID escnull.39203ndfvkjdasfkq3w4otrq0adsfdfnavd
          CSeq 14398234 REGISTER
          Contact sip:%00@host5.example.com []
          Contact sip:%00%00@host5.example.com []
          1 Via lines, body 0
        esc02
          RE%47IST%45R sip:registrar.example.com
          user None at registrar.example.com
          Via host.example.com "z9hG4bK209%fzsnel234"
          From sip:resource@example.com Some("f232jadfj23")
          To sip:resource@example.com None
          Call-ID esc02.asdfnqwo34rq23i34jrjasdcnl23nrlknsdf
          CSeq 29344 RE%47IST%45R
          Contact sip:alias1@host1.example.com []
          Contact sip:alias3@host3.example.com []
          1 Via lines, body 0
        lwsdisp
          OPTIONS sip:user@example.com
          user Some("user") at example.com
          Via funky.example.com "z9hG4bKkdjuw"
          From sip:caller@example.com Some("323")
          To sip:user@example.com None
          Call-ID lwsdisp.1234abcd@funky.example.com
          CSeq 60 OPTIONS
          1 Via lines, body 0
        longreq
          INVITE sip:user@example.com
          user Some("user") at example.com
          Via sip33.example.com ""
          From sip:amazinglylongcallernameamazinglylongcallernameamazinglylongcallernameamazinglylongcallernameamazinglylongcallername@example.net Some("12982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982424")
          To sip:user@example.com:6000;unknownparam1=verylonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglongvalue;longparamnamenamenamenamenamenamenamenamenamenamenamenamenamenamenamenamenamenamenamenamenamenamenamenamename=shortvalue;verylonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglongParameterNameWithNoValue None
          Call-ID longreq.onereallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallylongcallid
          CSeq 3882340 INVITE
          Contact sip:amazinglylongcallernameamazinglylongcallernameamazinglylongcallernameamazinglylongcallernameamazinglylongcallername@host5.example.net []
          34 Via lines, body 150
        dblreq
          REGISTER sip:example.com
          user None at example.com
          Via 192.0.2.125 "z9hG4bKkdjuw23492"
          From sip:j.user@example.com Some("43251j3j324")
          To sip:j.user@example.com None
          Call-ID dblreq.0ha0isndaksdj99sdfafnl3lk233412
          CSeq 8 REGISTER
          Contact sip:j.user@host.example.com []
          1 Via lines, body 0
        semiuri
          OPTIONS sip:user;par=u%40example.net@example.com
          user Some("user;par=u%40example.net") at example.com
          Via 192.0.2.1 "z9hG4bKkdjuw"
          From sip:caller@example.org Some("33242")
          To sip:j_user@example.com None
          Call-ID semiuri.0ha0isndaksdj
          CSeq 8 OPTIONS
          1 Via lines, body 0
        transports
          OPTIONS sip:user@example.com
          user Some("user") at example.com
          Via t1.example.com "z9hG4bKkdjuw"
          From sip:caller@example.com Some("323")
          To sip:user@example.com None
          Call-ID transports.kijh4akdnaqjkwendsasfdj
          CSeq 60 OPTIONS
          5 Via lines, body 0
        mpart01
          MESSAGE sip:kumiko@example.org
          user Some("kumiko") at example.org
          Via 127.0.0.1:5070 "z9hG4bK-d87543-4dade06d0bdb11ee-1--d87543-"
          From sip:fluffy@example.com Some("2fb0dcc9")
          To sip:kumiko@example.org None
          Call-ID 3d9485ad0c49859b@Zmx1ZmZ5LW1hYy0xNi5sb2NhbA..
          CSeq 1 MESSAGE
          Contact sip:fluffy@127.0.0.1:5070 []
          1 Via lines, body 553
        unreason
          200 "= 2**3 * 5**2 но сто девяносто девять - простое"
          Via 192.0.2.198 "z9hG4bK1324923"
          From sip:user@example.com Some("11141343")
          To sip:user@example.edu Some("2229")
          Call-ID unreason.1234ksdfak3j2erwedfsASdf
          CSeq 35 INVITE
          Contact sip:user@host198.example.com []
          1 Via lines, body 154
        noreason
          100 ""
          Via 192.0.2.105 "z9hG4bK2398ndaoe"
          From sip:user@example.com Some("39ansfi3")
          To sip:user@example.edu Some("902jndnke3")
          Call-ID noreason.asndj203insdf99223ndf
          CSeq 35 INVITE
          Contact sip:user@host105.example.com []
          1 Via lines, body 0
        badinv01
          Missing or Invalid Via Header Field
        clerr
          Body Shorter than Content-Length
        ncl
          Invalid Content-Length Header Field
        scalar02
          Missing or Invalid CSeq Header Field
        scalarlg
          Missing or Invalid CSeq Header Field
        quotbal
          Missing or Invalid To Header Field
        ltgtruri
          Invalid Request-URI
        lwsruri
          Invalid Request-URI
        lwsstart
          Invalid Request-URI
        trws
          OPTIONS sip:remote-target@example.com
          user Some("remote-target") at example.com
          Via host1.examle.com "z9hG4bK299342093"
          From sip:local-resource@example.com Some("329429089")
          To sip:remote-target@example.com None
          Call-ID trws.oicu34958239neffasdhr2345r
          CSeq 238923 OPTIONS
          1 Via lines, body 0
        escruri
          INVITE sip:user@example.com?Route=%3Csip:example.com%3E
          user Some("user") at example.com
          Via host-of-the-hour.example.com "z9hG4bKkdjuw"
          From sip:caller@example.net Some("341518")
          To sip:user@example.com None
          Call-ID escruri.23940-asdfhj-aje3br-234q098w-fawerh2q-h4n5
          CSeq 149209342 INVITE
          Contact sip:caller@host39923.example.net []
          1 Via lines, body 150
        baddate
          INVITE sip:user@example.com
          user Some("user") at example.com
          Via host.example.com "z9hG4bKkdjuw"
          From sip:caller@example.net Some("2234923")
          To sip:user@example.com None
          Call-ID baddate.239423mnsadf3j23lj42--sedfnm234
          CSeq 1392934 INVITE
          Contact sip:caller@host5.example.net []
          1 Via lines, body 150
        regbadct
          Invalid Contact Header Field
        badaspec
          OPTIONS sip:user@example.org
          user Some("user") at example.org
          Via host4.example.com:5060 "z9hG4bKkdju43234"
          From sip:a.g.bell@example.com Some("433423")
          To sip:t.watson@example.org None
          Call-ID badaspec.sdf0234n2nds0a099u23h3hnnw009cdkne3
          CSeq 3923239 OPTIONS
          1 Via lines, body 0
        baddn
          Invalid Header Line
        badvers
          Version Not Supported
        mismatch01
          CSeq Method Differs from Request Method
        mismatch02
          CSeq Method Differs from Request Method
        bigcode
          status code out of 100 to 699 (RFC 3261 §7.2)
        badbranch
          OPTIONS sip:user@example.com
          user Some("user") at example.com
          Via 192.0.2.1 "z9hG4bK"
          From sip:caller@example.org Some("33242")
          To sip:user@example.com None
          Call-ID badbranch.sadonfo23i420jv0as0derf3j3n
          CSeq 8 OPTIONS
          1 Via lines, body 0
        insuf
          Missing or Invalid From Header Field
        unkscm
          Unsupported URI Scheme
        novelsc
          Unsupported URI Scheme
        unksm2
          Missing or Invalid To Header Field
        bext01
          OPTIONS sip:user@example.com
          user Some("user") at example.com
          Via fold-and-staple.example.com "z9hG4bKkdjuw"
          From sip:caller@example.net Some("242etr")
          To sip:j_user@example.com None
          Call-ID bext01.0ha0isndaksdj
          CSeq 8 OPTIONS
          1 Via lines, body 0
        invut
          INVITE sip:user@example.com
          user Some("user") at example.com
          Via somehost.example.com "z9hG4bKkdjuw"
          From sip:caller@example.net Some("8392034")
          To sip:j.user@example.com None
          Call-ID invut.0ha0isndaksdjadsfij34n23d
          CSeq 235448 INVITE
          Contact sip:caller@host5.example.net []
          1 Via lines, body 40
        regaut01
          REGISTER sip:example.com
          user None at example.com
          Via 192.0.2.253 "z9hG4bKkdjuw"
          From sip:j.user@example.com Some("87321hj23128")
          To sip:j.user@example.com None
          Call-ID regaut01.0ha0isndaksdj
          CSeq 9338 REGISTER
          1 Via lines, body 0
        multi01
          Missing or Invalid From Header Field
        mcl01
          Invalid Content-Length Header Field
        bcast
          200 "OK"
          Via 192.0.2.198 "z9hG4bK1324923"
          From sip:user@example.com Some("11141343")
          To sip:user@example.edu Some("2229")
          Call-ID bcast.0384840201234ksdfak3j2erwedfsASdf
          CSeq 35 INVITE
          Contact sip:user@host28.example.com []
          2 Via lines, body 154
        zeromf
          OPTIONS sip:user@example.com
          user Some("user") at example.com
          Via host1.example.com "z9hG4bKkdjuw2349i"
          From sip:caller@example.net Some("3ghsd41")
          To sip:user@example.com None
          Call-ID zeromf.jfasdlfnm2o2l43r5u0asdfas
          CSeq 39234321 OPTIONS
          1 Via lines, body 0
        cparam01
          REGISTER sip:example.com
          user None at example.com
          Via saturn.example.com:5060 "z9hG4bKkdjuw"
          From sip:watson@example.com Some("DkfVgjkrtMwaerKKpe")
          To sip:watson@example.com None
          Call-ID cparam01.70710@saturn.example.com
          CSeq 2 REGISTER
          Contact sip:+19725552222@gw1.example.net [("unknownparam", "")]
          1 Via lines, body 0
        cparam02
          REGISTER sip:example.com
          user None at example.com
          Via saturn.example.com:5060 "z9hG4bKkdjuw"
          From sip:watson@example.com Some("838293")
          To sip:watson@example.com None
          Call-ID cparam02.70710@saturn.example.com
          CSeq 3 REGISTER
          Contact sip:+19725552222@gw1.example.net;unknownparam []
          1 Via lines, body 0
        regescrt
          REGISTER sip:example.com
          user None at example.com
          Via host5.example.com "z9hG4bKkdjuw"
          From sip:user@example.com Some("8")
          To sip:user@example.com None
          Call-ID regescrt.k345asrl3fdbv@192.0.2.1
          CSeq 14398234 REGISTER
          Contact sip:user@example.com?Route=%3Csip:sip.example.com%3E []
          1 Via lines, body 0
        sdp01
          INVITE sip:user@example.com
          user Some("user") at example.com
          Via 192.0.2.15 "z9hG4bKkdjuw"
          From sip:caller@example.net Some("234")
          To sip:j_user@example.com None
          Call-ID sdp01.ndaksdj9342dasdd
          CSeq 8 INVITE
          Contact sip:caller@host15.example.net []
          1 Via lines, body 150
        inv2543
          INVITE sip:UserB@example.com
          user Some("UserB") at example.com
          Via iftgw.example.com ""
          From sip:+13035551111@ift.client.example.net;user=phone None
          To sip:+16505552222@ss1.example.net None
          Call-ID inv2543.1717@ift.client.example.com
          CSeq 56 INVITE
          1 Via lines, body 105
    "#]].assert_eq(&table);
}

/// The typed values that every message has, one per line.
fn values(bytes: Bytes) -> Result<String, String> {
    let mut lines = Vec::new();
    let message = Message::parse(bytes).map_err(|e| e.to_string())?;
    let (headers, body, envelope) = match &message {
        Message::Request(it) => {
            lines.push(format!("{} {}", it.method_name(), it.uri()));
            if let Ok(uri) = SipUri::parse(it.uri()) {
                lines.push(format!("user {:?} at {}", uri.user, uri.host));
            }
            (&it.headers, &it.body, Envelope::of_request(it))
        }
        Message::Response(it) => {
            lines.push(format!("{} {:?}", it.status, it.phrase()));
            (&it.headers, &it.body, Envelope::of_response(it))
        }
    };
    let envelope = envelope.map_err(|e| e.to_string())?;
    let (via, from, to) = (&envelope.via, &envelope.from, &envelope.to);
    lines.push(format!("Via {} {:?}", via.sent_by, via.branch().unwrap_or_default()));
    lines.push(format!("From {} {:?}", from.uri, from.tag()));
    lines.push(format!("To {} {:?}", to.uri, to.tag()));
    lines.push(format!("Call-ID {}", envelope.call_id));
    lines.push(format!("CSeq {} {}", envelope.cseq, envelope.cseq_method));
    for contact in headers.all(Name::Contact).flat_map(NameAddr::list).flatten() {
        let params: Vec<_> = contact.params.iter().collect();
        lines.push(format!("Contact {} {params:?}", contact.uri));
    }
    lines.push(format!("{} Via lines, body {}", headers.count(Name::Via), body.len()));
    Ok(lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"))
}
