//! What a NATS server says to a client: lines, and lines with a message behind them.

use serde_json::Value;
use std::io::{self, ErrorKind};

/// What the server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Ping,
    Pong,
    /// It goes on, but has not taken what was published on this subject.
    Forbidden(String),
    /// JetStream keeps the message with this number.
    Kept(u64),
    /// It does not, and why.
    NotKept(u64, String),
    Nothing,
}

impl Said {
    /// What was said in a frame, without its end.
    ///
    /// # Errors
    /// If the server ends the connection with it, or is none.
    pub(super) fn read(frame: &[u8]) -> io::Result<Self> {
        let end = line_end(frame).unwrap_or(frame.len());
        let (line, message) = frame.split_at(end);
        let line = String::from_utf8_lossy(line);
        match line.split_once(' ').map_or((&*line, ""), |(word, rest)| (word, rest.trim())) {
            ("MSG" | "HMSG", subject_and_more) => Ok(Self::answer(subject_and_more, message)),
            ("PING", _) => Ok(Self::Ping),
            ("PONG", _) => Ok(Self::Pong),
            ("INFO" | "+OK", _) => Ok(Self::Nothing),
            ("-ERR", why) => match forbidden(why) {
                Some(subject) => Ok(Self::Forbidden(subject.to_owned())),
                None => Err(io::Error::other(format!("NATS says {why}"))),
            },
            (other, _) => {
                Err(io::Error::new(ErrorKind::InvalidData, format!("NATS says {other:?}")))
            }
        }
    }

    /// What JetStream says of a message: its number is the end of the subject.
    fn answer(subject_and_more: &str, message: &[u8]) -> Self {
        let subject = subject_and_more.split(' ').next().unwrap_or_default();
        let number = subject.rsplit('.').next().and_then(|it| it.parse().ok());
        let Some(number) = number else { return Self::Nothing };
        let message = message.trim_ascii();
        if let Some(status) = message.strip_prefix(b"NATS/1.0 ") {
            let status = String::from_utf8_lossy(status);
            let status = status.lines().next().unwrap_or_default().trim();
            return Self::NotKept(number, format!("status {status} (503: no stream keeps this)"));
        }
        match serde_json::from_slice::<Value>(message) {
            Ok(ack) if ack["error"].is_null() && ack["seq"].is_u64() => Self::Kept(number),
            Ok(ack) => Self::NotKept(number, format!("JetStream says {}", ack["error"])),
            Err(e) => Self::NotKept(number, format!("JetStream says no JSON: {e}")),
        }
    }
}

/// How long what the server says is, with its end, if that can be seen yet.
pub(super) fn frame_len(said: &[u8]) -> Option<usize> {
    let line = line_end(said)?;
    if !said.starts_with(b"MSG ") && !said.starts_with(b"HMSG ") {
        return Some(line);
    }
    let words = std::str::from_utf8(&said[..line]).ok();
    let bytes = words.and_then(|it| it.split_ascii_whitespace().last()?.parse::<usize>().ok());
    // One that does not say how long it is, is not waited for.
    Some(bytes.map_or(line, |bytes| line.saturating_add(bytes).saturating_add(2)))
}

/// Behind the end of the first line.
fn line_end(said: &[u8]) -> Option<usize> {
    said.iter().position(|byte| *byte == b'\n').map(|end| end + 1)
}

/// The subject on which we may not publish, if this error says so.
fn forbidden(why: &str) -> Option<&str> {
    let subject = why.trim_matches('\'').strip_prefix("Permissions Violation for Publish to ")?;
    Some(subject.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_jetstream_says_is_read_with_the_number_of_the_message() {
        let keeps = r#"{"stream":"HOLDFAST","seq":7,"duplicate":true}"#;
        let full = r#"{"error":{"code":503,"description":"full"},"stream":"S","seq":0}"#;
        let message = |json: &str| format!("MSG _INBOX.x.12 1 {}\r\n{json}", json.len());
        assert_eq!(Said::read(message(keeps).as_bytes()).unwrap(), Said::Kept(12));
        for (bad, of) in [
            (message(full), "full"),
            (message("{}"), "null"),
            (message("no"), "JSON"),
            ("HMSG _INBOX.x.12 1 16 16\r\nNATS/1.0 503\r\n\r\n".to_owned(), "503"),
        ] {
            let Said::NotKept(12, why) = Said::read(bad.as_bytes()).unwrap() else {
                panic!("{bad}")
            };
            assert!(why.contains(of), "{why}");
        }
        assert_eq!(Said::read(b"MSG _INBOX.x.y 1 2\r\n{}").unwrap(), Said::Nothing);
        assert_eq!(Said::read(b"MSG").unwrap(), Said::Nothing);
    }

    #[test]
    fn a_message_is_whole_with_as_many_bytes_as_it_says() {
        for (said, len) in [
            (&b"PON"[..], None),
            (b"PONG\r\nPING\r\n", Some(6)),
            (b"MSG a.1 1 3", None),
            (b"MSG a.1 1 3\r\n", Some(18)),
            (b"HMSG a.1 1 3 5\r\nab", Some(23)),
            (b"MSG a.1 1 x\r\n", Some(13)),
            (b"MSG a 1 18446744073709551615\r\n", Some(usize::MAX)),
        ] {
            assert_eq!(frame_len(said), len, "{}", said.escape_ascii());
        }
    }
}
