//! Whole messages out of a byte stream, by Content-Length (RFC 3261 §18.3).

use crate::header::{Headers, Name};
use crate::message::MAX_MESSAGE_BYTES;
use bytes::{Bytes, BytesMut};

/// Longest header section in bytes.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;

/// What a stream held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// One whole message, for [`crate::UserAgent::handle_message`].
    Message(Bytes),
    /// A double CRLF between messages: send [`PONG`] back (RFC 5626 §4.4.1).
    Ping,
}

/// What [`Frame::Ping`] is on the wire.
const PING: &[u8] = b"\r\n\r\n";
/// The answer to [`Frame::Ping`].
pub const PONG: &[u8] = b"\r\n";

/// Why a stream cannot be read on; close the connection.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    #[error("header section over {MAX_HEAD_BYTES} bytes without an empty line")]
    HeadTooLong,
    #[error("message of {bytes} bytes is over {MAX_MESSAGE_BYTES}")]
    MessageTooLong { bytes: usize },
    #[error("Content-Length {got:?} is not one number: the end of the message cannot be found")]
    ContentLength { got: String },
    #[error("over 256 header fields")]
    TooManyHeaders,
}

/// Bytes in, messages out. Holds at most one incomplete message.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: BytesMut,
    /// Bytes before this offset hold no end of the header section.
    searched: usize,
    /// Head and body of the message at the front, once its head is complete.
    whole: Option<usize>,
}

impl Framer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what was read from the stream; then call [`Framer::next_frame`] until it has none.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether no message has begun; line ends do not begin one.
    pub fn is_empty(&self) -> bool {
        self.buffer.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
    }

    /// The next whole message or keep-alive; `None` until more bytes come. A message without
    /// Content-Length has no body.
    ///
    /// # Errors
    /// The stream has lost its frame, or a limit is passed: the connection must be closed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.whole.is_none() && self.take_line_ends() {
            return Ok(Some(Frame::Ping));
        }
        let whole = match self.whole {
            Some(whole) => whole,
            None => match self.head_end()? {
                Some((head, body)) => *self.whole.insert(self.length(head, body)?),
                None => return Ok(None),
            },
        };
        if self.buffer.len() < whole {
            return Ok(None);
        }
        (self.whole, self.searched) = (None, 0);
        Ok(Some(Frame::Message(self.buffer.split_to(whole).freeze())))
    }

    /// Drops line ends between messages; true if they made a whole ping. A single CRLF is somebody
    /// else's pong, or sloppiness; one that may be half of a ping waits.
    fn take_line_ends(&mut self) -> bool {
        while let Some(b'\r' | b'\n') = self.buffer.first() {
            if self.buffer.starts_with(PING) {
                let _ = self.buffer.split_to(PING.len());
                return true;
            }
            if PING.starts_with(&self.buffer) {
                break; // The rest may come.
            }
            let _ = self.buffer.split_to(1);
        }
        false
    }

    /// End of the header section and start of the body.
    fn head_end(&mut self) -> Result<Option<(usize, usize)>, FrameError> {
        let from = self.searched.saturating_sub(3);
        for at in from..self.buffer.len() {
            if self.buffer[at] != b'\n' {
                continue;
            }
            match &self.buffer[at + 1..] {
                [b'\n', ..] => return Ok(Some((at + 1, at + 2))),
                [b'\r', b'\n', ..] => return Ok(Some((at + 1, at + 3))),
                _ => (),
            }
        }
        self.searched = self.buffer.len();
        if self.buffer.len() > MAX_HEAD_BYTES {
            return Err(FrameError::HeadTooLong);
        }
        Ok(None)
    }

    /// Bytes of the whole message.
    fn length(&self, head: usize, body: usize) -> Result<usize, FrameError> {
        let head = Bytes::copy_from_slice(&self.buffer[..head]);
        let line = head.iter().position(|byte| *byte == b'\n').map_or(head.len(), |at| at + 1);
        let end = head.len();
        let headers = Headers::parse(head, line..end).ok_or(FrameError::TooManyHeaders)?;
        let declared = match headers.get(Name::ContentLength) {
            None => 0,
            // Whoever reads the other one sees other messages (RFC 4475 §3.3.9).
            Some(_) if headers.count(Name::ContentLength) > 1 => {
                let all: Vec<_> = headers.all(Name::ContentLength).collect();
                return Err(FrameError::ContentLength { got: all.join(", ") });
            }
            Some(got) if got.bytes().any(|byte| !byte.is_ascii_digit()) => {
                return Err(FrameError::ContentLength { got: got.to_owned() });
            }
            Some(got) => got
                .parse::<usize>()
                .map_err(|_| FrameError::ContentLength { got: got.to_owned() })?,
        };
        let whole = body.saturating_add(declared);
        if whole > MAX_MESSAGE_BYTES {
            return Err(FrameError::MessageTooLong { bytes: whole });
        }
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OPTIONS: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nContent-Length : 3\r\n\r\nabc";
    const BYE: &[u8] = b"BYE sip:a SIP/2.0\r\nl: 0\r\n\r\n";

    #[test]
    fn any_fragmentation_gives_the_same_frames() {
        let stream = [OPTIONS, BYE, b"\r\n\r\n", b"\r\n", OPTIONS, b"\n\r\r\n\r\n"].concat();
        for size in 1..stream.len() {
            let frames = read(stream.chunks(size));
            let message = |bytes: &'static [u8]| Frame::Message(Bytes::from_static(bytes));
            let wanted =
                [message(OPTIONS), message(BYE), Frame::Ping, message(OPTIONS), Frame::Ping];
            assert_eq!(frames, Ok(wanted.to_vec()), "in pieces of {size}");
        }
    }

    #[test]
    fn a_lost_frame_is_an_error() {
        let error = |stream: &[u8]| read([stream].into_iter()).unwrap_err();
        let negative = error(b"BYE sip:a SIP/2.0\r\nContent-Length: -9\r\n\r\n");
        assert_eq!(negative, FrameError::ContentLength { got: "-9".into() });
        let twice = error(b"BYE sip:a SIP/2.0\r\nContent-Length: 0\r\nl: 3\r\n\r\nabc");
        assert_eq!(twice, FrameError::ContentLength { got: "0, 3".into() });
        let long = error(b"BYE sip:a SIP/2.0\r\nContent-Length: 70000\r\n\r\n");
        assert!(matches!(long, FrameError::MessageTooLong { .. }));
        assert_eq!(error(&[b'x'; MAX_HEAD_BYTES + 1]), FrameError::HeadTooLong);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = read(bytes.chunks(7));
        }
    }

    fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Frame>, FrameError> {
        let (mut framer, mut frames) = (Framer::new(), Vec::new());
        for piece in pieces {
            framer.push(piece);
            while let Some(frame) = framer.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }
}
