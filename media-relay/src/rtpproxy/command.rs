//! Commands of the rtpproxy control protocol, parsed once: words become a [`Command`] or the error
//! code that the client is to get.

use super::error_code::ErrorCode;
use super::modifiers::{self, Modifiers};
use super::sub_command::{self, SubCommand};
use std::net::{IpAddr, SocketAddr};

/// Longest command, in bytes.
pub(super) const COMMAND_BYTES_MAX: usize = 8_192;
/// Longest Call-ID and tag, in bytes.
const NAME_BYTES_MAX: usize = 512;
/// Words of a command.
const WORDS_MAX: usize = 128;
/// What goes before sub-commands.
const AND: &str = "&&";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub verb: Verb,
    pub sub_commands: Vec<SubCommand>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Version,
    /// Whether an extension is known, by its date.
    Feature(String),
    Update(Box<Place>),
    Lookup(Box<Place>),
    Delete {
        weak: bool,
        party: Party,
    },
    Play(Play),
    Stop(Party),
    Record(Party),
    Copy {
        party: Party,
        to: CopyTo,
        tell_port: bool,
    },
    StopRecording(Party),
    Query {
        verbose: bool,
        party: Party,
        names: Vec<String>,
    },
    DeleteAll,
    Info {
        load: bool,
    },
    Stats {
        verbose: bool,
        names: Vec<String>,
    },
}

/// A call, and one of its parties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Party {
    pub call_id: String,
    pub from_tag: String,
    pub to_tag: Option<String>,
}

/// Where a party receives (U, L).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub modifiers: Modifiers,
    pub party: Party,
    /// None: on hold.
    pub remote: Option<SocketAddr>,
    pub notify: Option<Notify>,
}

/// Where to tell of timeouts and digits, and by what name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notify {
    pub socket: String,
    pub tag: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Play {
    pub party: Party,
    pub name: String,
    /// How often; none: for ever. 0 only ends what plays.
    pub times: Option<u32>,
    /// Payload types; none: those of the session.
    pub codecs: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CopyTo {
    File(String),
    Address(SocketAddr),
}

/// Reads a command, without its cookie.
///
/// # Errors
/// The code to answer with.
pub(super) fn parse(line: &[u8]) -> Result<Command, ErrorCode> {
    if line.len() > COMMAND_BYTES_MAX || line.contains(&0) {
        return Err(ErrorCode::Syntax);
    }
    let line = str::from_utf8(line).map_err(|_| ErrorCode::Syntax)?;
    let words: Vec<&str> = line.split_ascii_whitespace().take(WORDS_MAX + 1).collect();
    if words.len() > WORDS_MAX {
        return Err(ErrorCode::ArgumentCount);
    }
    let mut parts = words.split(|it| *it == AND);
    let command = parts.next().unwrap_or_default();
    let (&head, args) = command.split_first().ok_or(ErrorCode::ArgumentCount)?;
    let mut letters = head.chars();
    let letter = letters.next().unwrap_or_default().to_ascii_uppercase();
    let verb = verb(letter, letters.as_str(), args)?;
    let takes = match &verb {
        Verb::Update(_) | Verb::Lookup(_) => sub_command::OF_PLACE,
        Verb::Query { .. } => sub_command::OF_QUERY,
        _ => "",
    };
    let sub_commands =
        parts.map(|words| sub_command::parse(words, takes)).collect::<Result<_, _>>();
    Ok(Command { verb, sub_commands: sub_commands? })
}

fn verb(letter: char, rest: &str, args: &[&str]) -> Result<Verb, ErrorCode> {
    match letter {
        'V' => version(rest, args),
        'U' => Ok(Verb::Update(Box::new(place(rest, args, 4..=7)?))),
        'L' => Ok(Verb::Lookup(Box::new(place(rest, args, 4..=5)?))),
        'D' => {
            let weak = flags(rest, "w", ErrorCode::DeleteModifier)?;
            Ok(Verb::Delete { weak, party: party(args)? })
        }
        'P' => Ok(Verb::Play(play(rest, args)?)),
        'S' => {
            no_modifiers(rest)?;
            Ok(Verb::Stop(party(args)?))
        }
        'R' => {
            flags(rest, "s", ErrorCode::RecordModifier)?; // We always write one file.
            Ok(Verb::Record(party(args)?))
        }
        'C' => copy(rest, args),
        'N' => {
            flags(rest, "a", ErrorCode::StopRecordingModifier)?; // There is one at a time.
            Ok(Verb::StopRecording(party(args)?))
        }
        'Q' => query(rest, args),
        'X' => {
            no_modifiers(rest)?;
            count(args, 0..=0)?;
            Ok(Verb::DeleteAll)
        }
        'I' => {
            let known = |it: char| "bl".contains(it.to_ascii_lowercase());
            count(args, 0..=0)?;
            match rest.chars().all(known) {
                true => Ok(Verb::Info { load: rest.contains(['l', 'L']) }),
                false => Err(ErrorCode::InfoModifier),
            }
        }
        'G' => {
            let verbose = flags(rest, "v", ErrorCode::StatsModifier)?;
            Ok(Verb::Stats { verbose, names: owned(args) })
        }
        _ => Err(ErrorCode::UnknownCommand),
    }
}

fn version(rest: &str, args: &[&str]) -> Result<Verb, ErrorCode> {
    match (rest, args) {
        ("", []) => Ok(Verb::Version),
        ("f" | "F", [date]) => Ok(Verb::Feature((*date).to_owned())),
        ("" | "f" | "F", _) => Err(ErrorCode::ArgumentCount),
        _ => Err(ErrorCode::Modifiers),
    }
}

fn place(
    rest: &str,
    args: &[&str],
    wanted: std::ops::RangeInclusive<usize>,
) -> Result<Place, ErrorCode> {
    count(args, wanted)?;
    let modifiers = modifiers::parse(rest)?;
    let &[call_id, address, port, from_tag, ref more @ ..] = args else {
        return Err(ErrorCode::ArgumentCount);
    };
    let (to_tag, notify) = match *more {
        [] => (None, None),
        [to_tag] => (Some(to_tag), None),
        [socket, tag] => (None, Some((socket, tag))),
        [to_tag, socket, tag, ..] => (Some(to_tag), Some((socket, tag))),
    };
    let party = named(call_id, from_tag, to_tag)?;
    let remote = remote(address, port)?;
    let notify = notify.map(|(socket, tag)| notify_of(socket, tag)).transpose()?;
    Ok(Place { modifiers, party, remote, notify })
}

/// None for the unspecified address and for port 0: on hold.
fn remote(address: &str, port: &str) -> Result<Option<SocketAddr>, ErrorCode> {
    let ip = ip(address).ok_or(ErrorCode::RemoteAddress)?;
    let port: u16 = port.parse().map_err(|_| ErrorCode::RemoteAddress)?;
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_multicast() || broadcast {
        return Err(ErrorCode::RemoteAddress);
    }
    Ok((!ip.is_unspecified() && port != 0).then_some(SocketAddr::new(ip, port)))
}

/// An address, an IPv6 one with or without brackets.
pub(super) fn ip(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    bare.unwrap_or(text).parse().ok()
}

fn notify_of(socket: &str, tag: &str) -> Result<Notify, ErrorCode> {
    if socket.len() > NAME_BYTES_MAX || tag.len() > NAME_BYTES_MAX {
        return Err(ErrorCode::Syntax);
    }
    let tag = url_decoded(tag).ok_or(ErrorCode::NotifyTag)?;
    Ok(Notify { socket: socket.to_owned(), tag })
}

/// None if a `%` is not followed by two hexadecimal digits, or there is a control character in it,
/// which would end the line of the notification.
fn url_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let byte = match first {
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                let digits = str::from_utf8(digits).ok()?;
                let are_hex = digits.bytes().all(|it| it.is_ascii_hexdigit());
                u8::from_str_radix(digits, 16).ok().filter(|_| are_hex)?
            }
            other => other,
        };
        if byte.is_ascii_control() {
            return None;
        }
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok()
}

fn play(rest: &str, args: &[&str]) -> Result<Play, ErrorCode> {
    let times = match rest {
        "" => Some(1),
        rest => match rest.parse::<i32>().map_err(|_| ErrorCode::PlayCount)? {
            -1 => None,
            times => Some(u32::try_from(times).map_err(|_| ErrorCode::PlayCount)?),
        },
    };
    count(args, 4..=5)?;
    let &[call_id, name, codecs, from_tag, ref more @ ..] = args else {
        return Err(ErrorCode::ArgumentCount);
    };
    let codecs = match codecs {
        "session" => None,
        list => Some(modifiers::payload_types(list).ok_or(ErrorCode::CodecList)?),
    };
    let party = named(call_id, from_tag, more.first().copied())?;
    Ok(Play { party, name: name.to_owned(), times, codecs })
}

fn copy(rest: &str, args: &[&str]) -> Result<Verb, ErrorCode> {
    let known = |it: char| "sp".contains(it.to_ascii_lowercase());
    if !rest.chars().all(known) {
        return Err(ErrorCode::RecordModifier);
    }
    count(args, 3..=4)?;
    let &[call_id, target, from_tag, ref more @ ..] = args else {
        return Err(ErrorCode::ArgumentCount);
    };
    let to = match target.strip_prefix("udp:") {
        Some(address) => CopyTo::Address(address.parse().map_err(|_| ErrorCode::NotCopied)?),
        None => CopyTo::File(target.to_owned()),
    };
    let party = named(call_id, from_tag, more.first().copied())?;
    let tell_port = rest.contains(['p', 'P']) && matches!(to, CopyTo::Address(_));
    Ok(Verb::Copy { party, to, tell_port })
}

fn query(rest: &str, args: &[&str]) -> Result<Verb, ErrorCode> {
    let verbose = flags(rest, "v", ErrorCode::QueryModifier)?;
    count(args, 2..=usize::MAX)?;
    let party = party(&args[..args.len().min(3)])?;
    let names = owned(args.get(3..).unwrap_or_default());
    Ok(Verb::Query { verbose, party, names })
}

fn party(args: &[&str]) -> Result<Party, ErrorCode> {
    count(args, 2..=3)?;
    named(args[0], args[1], args.get(2).copied())
}

fn named(call_id: &str, from_tag: &str, to_tag: Option<&str>) -> Result<Party, ErrorCode> {
    let names = [Some(call_id), Some(from_tag), to_tag];
    if names.into_iter().flatten().any(|it| it.len() > NAME_BYTES_MAX) {
        return Err(ErrorCode::Syntax);
    }
    Ok(Party {
        call_id: call_id.to_owned(),
        from_tag: from_tag.to_owned(),
        to_tag: to_tag.map(str::to_owned),
    })
}

fn count(args: &[&str], wanted: std::ops::RangeInclusive<usize>) -> Result<(), ErrorCode> {
    if wanted.contains(&args.len()) { Ok(()) } else { Err(ErrorCode::ArgumentCount) }
}

fn no_modifiers(rest: &str) -> Result<(), ErrorCode> {
    if rest.is_empty() { Ok(()) } else { Err(ErrorCode::Modifiers) }
}

/// Whether the one modifier that there may be is there.
fn flags(rest: &str, known: &str, wrong: ErrorCode) -> Result<bool, ErrorCode> {
    match rest {
        "" => Ok(false),
        rest if rest.eq_ignore_ascii_case(known) => Ok(true),
        _ => Err(wrong),
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|it| (*it).to_owned()).collect()
}
