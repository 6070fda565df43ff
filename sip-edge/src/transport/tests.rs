//! Real sockets on loopback. Every wait is for an event, within a limit that only a fault reaches.

use super::streams::MAX_QUEUED_PER_PEER;
use super::{Files, Listen, Received, Tls, Transports};
use bytes::Bytes;
use sip::{HostPort, Listener, Peer, Transport};
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const OPTIONS: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn datagrams_come_with_their_source_and_go_to_it() {
    let mut transports = bind();
    let phone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    phone.send_to(OPTIONS, local(&transports)).await.unwrap();
    let source = Peer::new(Transport::Udp, phone.local_addr().unwrap());
    assert_eq!(soon(transports.recv()).await, message(source, OPTIONS));
    transports.send(source, Bytes::from_static(b"SIP/2.0 200 OK"));
    let mut buffer = [0; 100];
    let len = soon(phone.recv(&mut buffer)).await.unwrap();
    assert_eq!(&buffer[..len], b"SIP/2.0 200 OK");
}

#[tokio::test]
async fn a_stream_is_cut_into_messages_and_answered_on_its_connection() {
    let mut transports = bind();
    let mut phone = TcpStream::connect(local(&transports)).await.unwrap();
    let source = tcp(phone.local_addr().unwrap());
    phone.write_all(&[OPTIONS, b"\r\n\r\n", &OPTIONS[..9]].concat()).await.unwrap();
    assert_eq!(soon(transports.recv()).await, message(source, OPTIONS));
    phone.write_all(&OPTIONS[9..]).await.unwrap();
    assert_eq!(soon(transports.recv()).await, message(source, OPTIONS));
    transports.send(source, Bytes::from_static(b"answer"));
    let mut buffer = [0; 8];
    soon(phone.read_exact(&mut buffer)).await.unwrap();
    assert_eq!(&buffer, b"\r\nanswer", "pong, then what was sent");
}

#[tokio::test]
async fn send_connects_on_demand_and_keeps_the_connection() {
    let mut transports = bind();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = tcp(listener.local_addr().unwrap());
    transports.send(peer, Bytes::from_static(b"one"));
    transports.send(peer, Bytes::from_static(b"two"));
    let (mut phone, _) = soon(listener.accept()).await.unwrap();
    let mut buffer = [0; 6];
    soon(phone.read_exact(&mut buffer)).await.unwrap();
    assert_eq!(&buffer, b"onetwo");
    phone.write_all(OPTIONS).await.unwrap();
    assert_eq!(soon(transports.recv()).await, message(peer, OPTIONS));
}

#[tokio::test]
async fn refused_and_lost_connections_are_told() {
    let mut transports = bind();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = tcp(listener.local_addr().unwrap());
    drop(listener);
    transports.send(peer, Bytes::from_static(OPTIONS));
    assert_eq!(soon(transports.recv()).await, Received::Failed { peer });

    let mut phone = TcpStream::connect(local(&transports)).await.unwrap();
    phone.write_all(OPTIONS).await.unwrap();
    let source = tcp(phone.local_addr().unwrap());
    assert_eq!(soon(transports.recv()).await, message(source, OPTIONS));
    drop(phone);
    assert_eq!(soon(transports.recv()).await, Received::Failed { peer: source });
}

#[tokio::test]
async fn a_broken_frame_closes_the_connection() {
    let mut transports = bind();
    let mut phone = TcpStream::connect(local(&transports)).await.unwrap();
    let peer = tcp(phone.local_addr().unwrap());
    phone.write_all(b"BYE sip:a SIP/2.0\r\nContent-Length: -1\r\n\r\n").await.unwrap();
    assert_eq!(soon(transports.recv()).await, Received::Malformed { peer });
    assert_eq!(soon(phone.read(&mut [0; 9])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_peer_that_never_reads_is_given_up_and_stalls_nobody() {
    let mut transports = bind();
    let mut deaf = TcpStream::connect(local(&transports)).await.unwrap();
    let deaf_peer = tcp(deaf.local_addr().unwrap());
    deaf.write_all(OPTIONS).await.unwrap();
    assert_eq!(soon(transports.recv()).await, message(deaf_peer, OPTIONS));
    let big = Bytes::from(vec![b'x'; 60_000]);
    for _ in 0..=MAX_QUEUED_PER_PEER {
        transports.send(deaf_peer, big.clone()); // No await: nothing is taken meanwhile.
    }
    let phone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    phone.send_to(OPTIONS, local(&transports)).await.unwrap();
    let source = Peer::new(Transport::Udp, phone.local_addr().unwrap());
    assert_eq!(soon(transports.recv()).await, Received::Failed { peer: deaf_peer });
    assert_eq!(soon(transports.recv()).await, message(source, OPTIONS));
}

#[tokio::test]
async fn what_no_datagram_can_hold_is_lost_but_its_peer_is_not_given_up() {
    let mut transports = bind();
    let phone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let source = Peer::new(Transport::Udp, phone.local_addr().unwrap());
    transports.send(source, Bytes::from(vec![b'x'; 65_508]));
    phone.send_to(OPTIONS, local(&transports)).await.unwrap();
    assert_eq!(soon(transports.recv()).await, message(source, OPTIONS));
}

#[tokio::test]
async fn a_port_that_icmp_calls_closed_is_told() {
    let mut transports = bind();
    let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let peer = Peer::new(Transport::Udp, gone.local_addr().unwrap());
    drop(gone);
    transports.send(peer, Bytes::from_static(OPTIONS));
    assert_eq!(soon(transports.recv()).await, Received::Failed { peer });
}

#[tokio::test]
async fn blank_datagrams_keep_a_nat_open_and_are_nobodys_message() {
    let mut transports = bind();
    let phone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for datagram in [b"\r\n\r\n", &b"\0"[..], b"", OPTIONS] {
        phone.send_to(datagram, local(&transports)).await.unwrap();
    }
    let source = Peer::new(Transport::Udp, phone.local_addr().unwrap());
    assert_eq!(soon(transports.recv()).await, message(source, OPTIONS));
}

#[tokio::test]
async fn each_listener_has_its_number_and_answers_from_its_own_address() {
    let listens = ["udp:127.0.0.1:0", "udp:127.0.0.2:0;advertise=edge.example", "udp:[::1]:0"];
    let listens = listens.map(|text| Listen::parse(text).unwrap());
    let mut transports = Transports::bind(&listens, None).unwrap();
    let bound: Vec<_> = transports.bound().iter().map(|it| it.addr).collect();
    for (number, (local, phone)) in
        bound.iter().zip(["127.0.0.1:0", "127.0.0.3:0", "[::1]:0"]).enumerate()
    {
        let phone = UdpSocket::bind(phone).await.unwrap();
        phone.send_to(OPTIONS, local).await.unwrap();
        let listener = Listener(number as u8);
        let source = Peer { listener, ..Peer::new(Transport::Udp, phone.local_addr().unwrap()) };
        assert_eq!(soon(transports.recv()).await, message(source, OPTIONS));
        transports.send(source, Bytes::from_static(b"answer"));
        let (_, from) = soon(phone.recv_from(&mut [0; 9])).await.unwrap();
        assert_eq!(from, *local);
    }
    let advertised = transports.advertised().unwrap();
    let peer = Peer { listener: Listener(1), ..tcp(bound[1]) };
    assert_eq!(*advertised.at(peer), HostPort::new("edge.example", bound[1].port()));
}

#[tokio::test]
async fn a_peer_that_says_where_it_listens_is_reached_over_its_connection() {
    let mut transports = bind();
    let mut phone = TcpStream::connect(local(&transports)).await.unwrap();
    let source = tcp(phone.local_addr().unwrap());
    phone.write_all(OPTIONS).await.unwrap();
    assert_eq!(soon(transports.recv()).await, message(source, OPTIONS));
    let alias = tcp("127.0.0.1:1".parse().unwrap()); // Where nobody listens.
    transports.alias(source, alias);
    transports.send(alias, Bytes::from_static(b"over it"));
    let mut buffer = [0; 7];
    soon(phone.read_exact(&mut buffer)).await.unwrap();
    assert_eq!(&buffer, b"over it");
    drop(phone);
    assert_eq!(soon(transports.recv()).await, Received::Failed { peer: source });
    transports.send(alias, Bytes::from_static(b"lost"));
    assert_eq!(soon(transports.recv()).await, Received::Failed { peer: alias });
}

#[tokio::test]
async fn tls_carries_messages_both_ways_to_the_one_who_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, client) = (tls(folder.path(), "edge.example"), tls(folder.path(), "phone.example"));
    let listen = [Listen::parse("tls:127.0.0.1:0").unwrap()];
    let mut edge = Transports::bind(&listen, Some(&tls)).unwrap();
    let mut phone = Transports::bind(&listen, Some(&client)).unwrap();
    let to_edge = Peer::new(Transport::Tls, local(&edge));
    phone.expect_name(to_edge.addr, "edge.example");
    phone.send(to_edge, Bytes::from_static(OPTIONS));
    let Received::Message { source, bytes } = soon(edge.recv()).await else { panic!("no message") };
    assert_eq!((source.transport, bytes), (Transport::Tls, Bytes::from_static(OPTIONS)));
    edge.send(source, Bytes::from_static(OPTIONS));
    assert_eq!(soon(phone.recv()).await, message(to_edge, OPTIONS));
}

#[tokio::test]
async fn whoever_has_no_certificate_for_its_name_is_not_talked_to() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, client) = (tls(folder.path(), "edge.example"), tls(folder.path(), "phone.example"));
    let listen = [Listen::parse("tls:127.0.0.1:0").unwrap()];
    let edge = Transports::bind(&listen, Some(&tls)).unwrap();
    for name in ["other.example", "phone.example"] {
        let mut phone = Transports::bind(&listen, Some(&client)).unwrap();
        let peer = Peer::new(Transport::Tls, local(&edge));
        phone.expect_name(peer.addr, name);
        phone.send(peer, Bytes::from_static(OPTIONS));
        assert_eq!(soon(phone.recv()).await, Received::Failed { peer });
    }
}

#[tokio::test]
async fn a_new_certificate_is_taken_for_the_connections_that_come() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, client) = (tls(folder.path(), "edge.example"), tls(folder.path(), "phone.example"));
    let listen = [Listen::parse("tls:127.0.0.1:0").unwrap()];
    let mut edge = Transports::bind(&listen, Some(&tls)).unwrap();
    let cert = folder.path().join("edge.example.pem");
    std::fs::copy(folder.path().join("phone.example.pem"), &cert).unwrap();
    let error = format!("{:#}", tls.reload().unwrap_err());
    assert!(error.starts_with("use --tls-key "), "the key is still the old one's: {error}");
    let key = folder.path().join("edge.example.key");
    std::fs::copy(folder.path().join("phone.example.key"), &key).unwrap();
    tls.reload().unwrap();
    let mut phone = Transports::bind(&listen, Some(&client)).unwrap();
    let peer = Peer::new(Transport::Tls, local(&edge));
    phone.expect_name(peer.addr, "phone.example");
    phone.send(peer, Bytes::from_static(OPTIONS));
    assert!(matches!(soon(edge.recv()).await, Received::Message { .. }));
}

#[tokio::test]
async fn tls_without_a_certificate_and_every_address_without_a_name_are_errors() {
    let bind = |text| {
        let listen = [Listen::parse(text).unwrap()];
        format!("{:#}", Transports::bind(&listen, None).err().unwrap())
    };
    assert_eq!(
        bind("tls:127.0.0.1:5061"),
        "listen for TLS at 127.0.0.1:5061: give --tls-cert and --tls-key"
    );
    assert!(bind("udp:0.0.0.0:0").contains("where peers reach us"));
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let transports = bind();
    let listen = Listen { addr: local(&transports), ..both() };
    let error = format!("{:#}", Transports::bind(&[listen], None).err().unwrap());
    assert!(error.contains(&format!("bind SIP to UDP {}: ", local(&transports))), "{error}");
}

/// UDP is listener 0, TCP 1.
fn bind() -> Transports {
    Transports::bind(&[both()], None).unwrap()
}

fn both() -> Listen {
    let addr = "127.0.0.1:0".parse().unwrap();
    Listen { transports: vec![Transport::Udp, Transport::Tcp], addr, advertise: None }
}

/// Where the first listener is; the second of [`bind`] has the same port.
fn local(transports: &Transports) -> SocketAddr {
    transports.bound()[0].addr
}

fn tcp(addr: SocketAddr) -> Peer {
    Peer { listener: Listener(1), ..Peer::new(Transport::Tcp, addr) }
}

/// With a certificate for `name` that an authority signed, which all of one folder trust.
fn tls(folder: &Path, name: &str) -> Tls {
    let authority = e2e::Authority::in_folder(folder).unwrap();
    let (cert, key) = authority.certify(name).unwrap();
    Tls::load(Files { cert, key, ca: Some(authority.file()) }).unwrap()
}

fn message(source: Peer, bytes: &'static [u8]) -> Received {
    Received::Message { source, bytes: Bytes::from_static(bytes) }
}

async fn soon<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), event).await.expect("it comes within 20 s")
}
