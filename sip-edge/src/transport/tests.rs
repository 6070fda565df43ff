//! Real sockets on loopback. Every wait is for an event, within a limit that only a fault reaches.

use super::tcp::MAX_QUEUED_PER_PEER;
use super::{Received, Transports};
use bytes::Bytes;
use sip::{Peer, Transport};
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const OPTIONS: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn datagrams_come_with_their_source_and_go_to_it() {
    let mut transports = bind();
    let phone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    phone.send_to(OPTIONS, transports.local_addr()).await.unwrap();
    let source = Peer { transport: Transport::Udp, addr: phone.local_addr().unwrap() };
    assert_eq!(soon(transports.recv()).await, message(source, OPTIONS));
    transports.send(source, Bytes::from_static(b"SIP/2.0 200 OK"));
    let mut buffer = [0; 100];
    let len = soon(phone.recv(&mut buffer)).await.unwrap();
    assert_eq!(&buffer[..len], b"SIP/2.0 200 OK");
}

#[tokio::test]
async fn a_stream_is_cut_into_messages_and_answered_on_its_connection() {
    let mut transports = bind();
    let mut phone = TcpStream::connect(transports.local_addr()).await.unwrap();
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

    let mut phone = TcpStream::connect(transports.local_addr()).await.unwrap();
    phone.write_all(OPTIONS).await.unwrap();
    let source = tcp(phone.local_addr().unwrap());
    assert_eq!(soon(transports.recv()).await, message(source, OPTIONS));
    drop(phone);
    assert_eq!(soon(transports.recv()).await, Received::Failed { peer: source });
}

#[tokio::test]
async fn a_broken_frame_closes_the_connection() {
    let mut transports = bind();
    let mut phone = TcpStream::connect(transports.local_addr()).await.unwrap();
    let peer = tcp(phone.local_addr().unwrap());
    phone.write_all(b"BYE sip:a SIP/2.0\r\nContent-Length: -1\r\n\r\n").await.unwrap();
    assert_eq!(soon(transports.recv()).await, Received::Failed { peer });
    assert_eq!(soon(phone.read(&mut [0; 9])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_peer_that_never_reads_is_given_up_and_stalls_nobody() {
    let mut transports = bind();
    let mut deaf = TcpStream::connect(transports.local_addr()).await.unwrap();
    let deaf_peer = tcp(deaf.local_addr().unwrap());
    deaf.write_all(OPTIONS).await.unwrap();
    assert_eq!(soon(transports.recv()).await, message(deaf_peer, OPTIONS));
    let big = Bytes::from(vec![b'x'; 60_000]);
    for _ in 0..=MAX_QUEUED_PER_PEER {
        transports.send(deaf_peer, big.clone()); // No await: nothing is taken meanwhile.
    }
    let phone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    phone.send_to(OPTIONS, transports.local_addr()).await.unwrap();
    let source = Peer { transport: Transport::Udp, addr: phone.local_addr().unwrap() };
    assert_eq!(soon(transports.recv()).await, Received::Failed { peer: deaf_peer });
    assert_eq!(soon(transports.recv()).await, message(source, OPTIONS));
}

#[tokio::test]
async fn what_no_datagram_can_hold_is_lost_but_its_peer_is_not_given_up() {
    let mut transports = bind();
    let phone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let source = Peer { transport: Transport::Udp, addr: phone.local_addr().unwrap() };
    transports.send(source, Bytes::from(vec![b'x'; 65_508]));
    phone.send_to(OPTIONS, transports.local_addr()).await.unwrap();
    assert_eq!(soon(transports.recv()).await, message(source, OPTIONS));
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let transports = bind();
    let addr = transports.local_addr();
    let error = format!("{:#}", Transports::bind(addr).err().unwrap());
    assert!(error.contains(&format!("bind SIP to UDP {addr}: ")), "{error}");
}

fn bind() -> Transports {
    Transports::bind("127.0.0.1:0".parse().unwrap()).unwrap()
}

fn tcp(addr: SocketAddr) -> Peer {
    Peer { transport: Transport::Tcp, addr }
}

fn message(source: Peer, bytes: &'static [u8]) -> Received {
    Received::Message { source, bytes: Bytes::from_static(bytes) }
}

async fn soon<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), event).await.expect("it comes within 20 s")
}
