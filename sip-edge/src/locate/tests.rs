//! Against dnsmasq, a name server that is not ours, on loopback.

use super::*;
use e2e::Dnsmasq;
use hickory_resolver::proto::rr::Name;
use std::net::UdpSocket;

/// All that the tests ask for.
const RECORDS: [&str; 16] = [
    "--naptr-record=naptr.example,20,10,s,SIP+D2T,,_sip._tcp.naptr.example",
    "--naptr-record=naptr.example,10,20,S,sip+d2u,,_sip._udp.naptr.example",
    "--naptr-record=naptr.example,10,10,s,SIPS+D2T,,_sips._tcp.naptr.example",
    "--naptr-record=naptr.example,5,10,s,SIP+D2W,,_sip._ws.naptr.example",
    "--srv-host=_sip._udp.naptr.example,a.example,5070,10,0",
    "--srv-host=_sip._tcp.naptr.example,b.example,5080,10,0",
    "--srv-host=_sips._tcp.naptr.example,a.example,5071,10,0",
    "--srv-host=_sip._udp.srv.example,b.example,5090,20,0",
    "--srv-host=_sip._udp.srv.example,a.example,5090,10,0",
    "--srv-host=_sip._udp.srv.example,gone.example,5090,5,0",
    "--srv-host=_sip._tcp.srv.example,both.example,5090,10,0",
    "--host-record=a.example,192.0.2.1",
    "--host-record=b.example,192.0.2.2",
    "--host-record=both.example,192.0.2.3,2001:db8::3",
    "--host-record=naptr.example,192.0.2.9",
    "--local=/example/",
];

#[tokio::test]
async fn places_come_in_the_order_of_naptr_srv_and_addresses() {
    let server = Dnsmasq::start(&RECORDS).unwrap();
    let all = [Transport::Udp, Transport::Tcp, Transport::Tls];
    let plain = [Transport::Udp, Transport::Tcp];
    for (spoken, uri, expected) in [
        (&all[..], "naptr.example", "TLS 192.0.2.1:5071, UDP 192.0.2.1:5070, TCP 192.0.2.2:5080"),
        (&plain, "naptr.example", "UDP 192.0.2.1:5070, TCP 192.0.2.2:5080"),
        (&plain, "naptr.example tcp", "TCP 192.0.2.2:5080"),
        (&plain, "naptr.example:5099", "UDP 192.0.2.9:5099"),
        (&plain, "naptr.example:5099 tcp", "TCP 192.0.2.9:5099"),
        (
            &plain,
            "srv.example",
            "UDP 192.0.2.1:5090, UDP 192.0.2.2:5090, TCP 192.0.2.3:5090, TCP [2001:db8::3]:5090",
        ),
        (&plain, "b.example", "UDP 192.0.2.2:5060"),
        (&all, "b.example tls", "TLS 192.0.2.2:5061"),
        (&plain, "nobody.example", ""),
    ] {
        let locator = Locator::new(&[server.addr()], spoken.to_vec()).unwrap();
        let places = locator.locate(&wanted(uri)).await;
        let places = places.iter().map(|it| format!("{} {}", it.transport.name(), it.addr));
        assert_eq!(places.collect::<Vec<_>>().join(", "), expected, "{uri} by {spoken:?}");
    }
}

#[tokio::test]
async fn a_name_server_that_is_silent_is_not_waited_for_longer_than_3_s() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let locator = Locator::new(&[silent.local_addr().unwrap()], vec![Transport::Udp]).unwrap();
    assert_eq!(locator.locate(&wanted("a.example")).await, []);
}

#[test]
fn weights_are_shares_within_one_priority() {
    let record = |priority, weight| {
        SRV::new(priority, weight, 5060, Name::from_ascii(format!("w{weight}.example")).unwrap())
    };
    let order = |drawn: u32| {
        let records = vec![record(2, 5), record(1, 30), record(1, 0), record(1, 10)];
        let ordered = in_order(records, |below| drawn.min(below - 1));
        ordered.iter().map(|it| it.weight.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(order(0), "0 10 30 5");
    assert_eq!(order(1), "10 30 0 5");
    assert_eq!(order(10), "10 30 0 5");
    assert_eq!(order(11), "30 10 0 5");
    assert_eq!(order(40), "30 10 0 5");
}

/// `HOST[:PORT] [TRANSPORT]`.
fn wanted(text: &str) -> Wanted {
    let (place, transport) = text.split_once(' ').unwrap_or((text, ""));
    let place: sip::HostPort = place.parse().unwrap();
    let transport = Transport::of_parameter(transport);
    Wanted { host: place.host, port: place.port, transport }
}
