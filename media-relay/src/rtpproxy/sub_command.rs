//! What may follow `&&`.

use super::command::ip;
use super::error_code::ErrorCode;
use super::modifiers::{self, Modifiers};
use std::net::SocketAddr;

/// Letters of the sub-commands of U and L, and of Q.
pub(super) const OF_PLACE: &str = "MDSL";
pub(super) const OF_QUERY: &str = "DS";
/// The module that tells of digits, and its only instance.
const CATCH_DTMF: &str = "3:1";
/// Payload type of telephone-event unless the command says so; the customary one.
const TELEPHONE_EVENT: u8 = 101;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SubCommand {
    /// Tell of digits that the party sends, by this name.
    CatchDigits {
        tag: String,
        payload_type: u8,
    },
    Delete {
        weak: bool,
    },
    /// The session may be silent for so long.
    TimeToLive {
        seconds: u32,
    },
    /// Where the other party is: the set-up of both in one command.
    Other {
        modifiers: Modifiers,
        remote: Option<SocketAddr>,
    },
}

/// Reads one sub-command.
///
/// # Errors
/// [`ErrorCode::SubCommand`] if it is not one of `takes`, or not well-formed.
pub(super) fn parse(words: &[&str], takes: &str) -> Result<SubCommand, ErrorCode> {
    let wrong = ErrorCode::SubCommand;
    let (head, args) = words.split_first().ok_or(wrong)?;
    let letter = head.chars().next().map(|it| it.to_ascii_uppercase()).ok_or(wrong)?;
    if !takes.contains(letter) {
        return Err(wrong);
    }
    let rest = &head[1..];
    match (letter, rest, args) {
        ('M', CATCH_DTMF, [tag, more @ ..]) if more.len() <= 2 => {
            let payload_type = more.first().map_or(Ok(TELEPHONE_EVENT), |it| it.parse());
            let payload_type = payload_type.ok().filter(|it| *it < 128).ok_or(wrong)?;
            Ok(SubCommand::CatchDigits { tag: (*tag).to_owned(), payload_type })
        }
        ('D', "", []) => Ok(SubCommand::Delete { weak: false }),
        ('D', "w" | "W", []) => Ok(SubCommand::Delete { weak: true }),
        ('S', "" | "r" | "R", [setting]) => {
            let seconds = setting.strip_prefix("ttl=").and_then(|it| it.parse().ok());
            let seconds = seconds.filter(|it| *it > 0).ok_or(wrong)?;
            Ok(SubCommand::TimeToLive { seconds })
        }
        ('L', rest, [address, port]) => {
            let ip = ip(address).ok_or(wrong)?;
            let port: u16 = port.parse().map_err(|_| wrong)?;
            let remote = SocketAddr::new(ip, port);
            let is_there = !ip.is_unspecified() && port != 0;
            let modifiers = modifiers::parse(rest)?;
            Ok(SubCommand::Other { modifiers, remote: is_there.then_some(remote) })
        }
        _ => Err(wrong),
    }
}
