//! Any bytes: as a datagram, and as a stream in pieces of any size.

use bytes::Bytes;
use sip::{
    Config, Envelope, Frame, FrameError, Framer, HostPort, Listener, Message, Output, Peer,
    Transport, UserAgent,
};
use std::time::Instant;

/// The first byte is the size of the pieces; the rest is what comes.
pub(crate) fn check(input: &[u8]) {
    let Some((size, rest)) = input.split_first() else { return };
    let pieces = usize::from(*size).max(1);
    assert_eq!(frames(rest, pieces), frames(rest, rest.len().max(1)), "in pieces of {pieces}");
    receive(Bytes::copy_from_slice(input));
    receive(Bytes::copy_from_slice(rest));
}

fn frames(stream: &[u8], size: usize) -> (Vec<Frame>, Option<FrameError>) {
    let (mut framer, mut frames) = (Framer::new(), Vec::new());
    for piece in stream.chunks(size) {
        framer.push(piece);
        loop {
            match framer.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                // How much of a head without an end had come depends on the pieces.
                Err(FrameError::HeadTooLong) => return (frames, Some(FrameError::HeadTooLong)),
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// No panic, at most a few messages for one, and each of ours can be read.
fn receive(bytes: Bytes) {
    if let Ok(message) = Message::parse(bytes.clone()) {
        let _ = match &message {
            Message::Request(request) => Envelope::of_request(request).map(|it| it.cseq),
            Message::Response(response) => Envelope::of_response(response).map(|it| it.cseq),
        };
    }
    let mut ua = UserAgent::new(Config::new(HostPort::new("198.51.100.1", 5060)), 7);
    let addr = "192.0.2.1:5060".parse().expect("an address");
    let phone = Peer { transport: Transport::Udp, addr, listener: Listener::default() };
    ua.handle_message(Instant::now(), 0, phone, bytes);
    let outputs: Vec<_> = std::iter::from_fn(|| ua.poll_output()).collect();
    assert!(outputs.len() <= 3, "{outputs:?}");
    for output in outputs {
        if let Output::Send { bytes, .. } = output {
            assert!(Message::parse(bytes.clone()).is_ok(), "we sent {bytes:?}");
        }
    }
}
