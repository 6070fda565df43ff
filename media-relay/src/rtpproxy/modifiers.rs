//! The letters behind `U` and `L`.

use super::command::ip;
use super::error_code::ErrorCode;
use std::net::IpAddr;

/// Payload types of a list.
const PAYLOAD_TYPES_MAX: usize = media::PAYLOAD_TYPES_MAX;
/// Longest packet time, in ms.
const PACKET_TIME_MAX_MS: u32 = 999;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Modifiers {
    /// The party does not send from where it receives.
    pub asymmetric: bool,
    pub weak: bool,
    pub ipv6: bool,
    /// An address that ours is to reach.
    pub route_to: Option<IpAddr>,
    /// Which of our addresses is wanted.
    pub local: Option<IpAddr>,
    /// Of what the other party gets, in ms.
    pub packet_time_ms: Option<u32>,
    /// Payload types that the party has named, in its order.
    pub codecs: Option<Vec<u8>>,
}

/// Reads the modifiers of `U` or `L`.
///
/// # Errors
/// The code of what is wrong with one.
pub(super) fn parse(text: &str) -> Result<Modifiers, ErrorCode> {
    let mut modifiers = Modifiers::default();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        rest = &rest[letter.len_utf8()..];
        match letter.to_ascii_uppercase() {
            'A' => modifiers.asymmetric = true,
            'S' => modifiers.asymmetric = false,
            'W' => modifiers.weak = true,
            '6' => modifiers.ipv6 = true,
            'N' => (), // The port that there is, is as good as new: it rested before.
            'E' => return Err(ErrorCode::External),
            'I' => return Err(ErrorCode::Internal),
            'R' => {
                let address = take(&mut rest, address_len);
                modifiers.route_to = Some(ip(address).ok_or(ErrorCode::RouteSyntax)?);
            }
            'L' => {
                if rest.starts_with('{') {
                    return Err(ErrorCode::LocalAddress); // We have no labels.
                }
                let address = take(&mut rest, address_len);
                modifiers.local = Some(ip(address).ok_or(ErrorCode::LocalAddressSyntax)?);
            }
            'Z' => {
                let number = take(&mut rest, |it| len_of(it, |byte| byte.is_ascii_digit()));
                let ms: u32 = number.parse().map_err(|_| ErrorCode::PacketTime)?;
                if !(1..=PACKET_TIME_MAX_MS).contains(&ms) {
                    return Err(ErrorCode::PacketTime);
                }
                modifiers.packet_time_ms = Some(ms);
            }
            'C' => {
                let is_of_list = |byte: u8| byte.is_ascii_digit() || byte == b',';
                let list = take(&mut rest, |it| len_of(it, is_of_list));
                if modifiers.codecs.is_some() {
                    return Err(ErrorCode::CodecList);
                }
                modifiers.codecs = Some(payload_types(list).ok_or(ErrorCode::CodecList)?);
            }
            _ => return Err(ErrorCode::Unusable),
        }
    }
    Ok(modifiers)
}

/// Payload types with commas between them; none if it is not that, or has too many.
pub(super) fn payload_types(list: &str) -> Option<Vec<u8>> {
    let numbers: Option<Vec<u8>> =
        list.split(',').map(|it| it.parse().ok().filter(|it| *it < 128)).collect();
    numbers.filter(|it| it.len() <= PAYLOAD_TYPES_MAX)
}

fn take<'a>(rest: &mut &'a str, len: impl Fn(&str) -> usize) -> &'a str {
    let (taken, left) = rest.split_at(len(rest));
    *rest = left;
    taken
}

/// An IPv6 address is in brackets.
fn address_len(text: &str) -> usize {
    match text.starts_with('[') {
        true => text.find(']').map_or(text.len(), |at| at + 1),
        false => len_of(text, |byte| byte.is_ascii_digit() || byte == b'.'),
    }
}

fn len_of(text: &str, is_of_it: impl Fn(u8) -> bool) -> usize {
    text.bytes().take_while(|it| is_of_it(*it)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_their_arguments_are_read_in_any_order_and_case() {
        let read = parse("AWz30c0,8,101R192.0.2.1L[2001:db8::1]6n").unwrap();
        let wanted = Modifiers {
            asymmetric: true,
            weak: true,
            ipv6: true,
            route_to: Some("192.0.2.1".parse().unwrap()),
            local: Some("2001:db8::1".parse().unwrap()),
            packet_time_ms: Some(30),
            codecs: Some(vec![0, 8, 101]),
        };
        assert_eq!(read, wanted);
        assert_eq!(parse("AS").unwrap(), Modifiers::default(), "S takes A back");
    }

    #[test]
    fn each_wrong_modifier_has_its_code() {
        use ErrorCode::*;
        let wrong = [
            ("E", External),
            ("AI", Internal),
            ("Z", PacketTime),
            ("Z0", PacketTime),
            ("Z1000", PacketTime),
            ("C", CodecList),
            ("C0,,8", CodecList),
            ("C128", CodecList),
            ("C0C8", CodecList),
            ("L", LocalAddressSyntax),
            ("L1.2.3", LocalAddressSyntax),
            ("L{label}", LocalAddress),
            ("R", RouteSyntax),
            ("R[::1", RouteSyntax),
            ("Q", Unusable),
            ("ä", Unusable),
        ];
        for (text, code) in wrong {
            assert_eq!(parse(text), Err(code), "{text}");
        }
    }
}
