//! Whom to call: a SIP URI, `user/NAME` for a registered user, `trunk/NAME/NUMBER` or `tel:NUMBER` by
//! way of a carrier.

use sip::{HostPort, Transport};

/// Longest target, in bytes.
const LENGTH_MAX: usize = 256;

/// A target, parsed once, at the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A user of the registrar.
    User(String),
    Uri(SipUri),
    /// A number, by way of the trunk of this name.
    Trunk {
        trunk: String,
        number: String,
    },
    /// A number, by way of the trunk that its prefix belongs to.
    Number(String),
}

/// A `sip:` URI and what its parts say about the next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SipUri {
    /// As it was given.
    pub(crate) text: String,
    pub(crate) user: Option<String>,
    pub(crate) host_port: HostPort,
    /// What the URI says; nothing is left to DNS if it does.
    pub(crate) transport: Option<Transport>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{got:?}, wanted `sip:[USER@]HOST[:PORT]`, `user/NAME`, `trunk/NAME/NUMBER` or `tel:NUMBER`"
)]
pub(crate) struct NoTarget {
    got: String,
}

impl Target {
    pub(crate) fn parse(text: &str) -> Result<Self, NoTarget> {
        let user = |name: &str| {
            let plain = |c: char| c.is_ascii_graphic() && !"@;?/<>\"".contains(c);
            !name.is_empty() && name.len() <= 64 && name.chars().all(plain)
        };
        if let Some((trunk, number)) = text.strip_prefix("trunk/").and_then(|it| it.split_once('/'))
        {
            return match user(trunk) && user(number) {
                true => Ok(Self::Trunk { trunk: trunk.to_owned(), number: number.to_owned() }),
                false => Err(NoTarget { got: shortened(text) }),
            };
        }
        if text.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("tel:")) {
            let number = number(&text[4..]).map(Self::Number);
            return number.ok_or_else(|| NoTarget { got: shortened(text) });
        }
        match text.strip_prefix("user/") {
            Some(name) if user(name) => Ok(Self::User(name.to_owned())),
            Some(_) => Err(NoTarget { got: shortened(text) }),
            None => SipUri::parse(text).map(Self::Uri).ok_or(NoTarget { got: shortened(text) }),
        }
    }
}

impl SipUri {
    /// `None` for everything but a `sip:` URI with a host.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let printable = text.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"".contains(&b));
        if text.len() > LENGTH_MAX || !printable || !text.get(..4)?.eq_ignore_ascii_case("sip:") {
            return None;
        }
        // A user part may have `;` and `?`, so it is cut off first; headers do not belong here.
        let (user, rest) = match text[4..].rsplit_once('@') {
            Some(("", _)) => return None,
            Some((user, rest)) => (Some(user), rest),
            None => (None, &text[4..]),
        };
        let mut parts = rest.split(';');
        let host_port: HostPort = parts.next()?.parse().ok()?;
        let named = |part: &'_ str| {
            let (name, value) = part.split_once('=')?;
            name.eq_ignore_ascii_case("transport").then(|| value.to_ascii_lowercase())
        };
        let transport = match parts.find_map(named).as_deref() {
            None => None,
            Some(name) => Some(Transport::of_parameter(name)?), // No WebSocket yet.
        };
        let user = user.map(|it| it.split(':').next().unwrap_or(it).to_owned());
        Some(Self { text: text.to_owned(), user, host_port, transport })
    }

    /// Whether both mean the same user at the same host and port (RFC 3261 §19.1.4, parameters
    /// apart; the default port equals none).
    pub(crate) fn means(&self, other: &Self) -> bool {
        let port = |uri: &Self| uri.host_port.port.unwrap_or(5060);
        self.user == other.user
            && self.host_port.host.eq_ignore_ascii_case(&other.host_port.host)
            && port(self) == port(other)
    }
}

/// The number of a `tel:` URI without its separators and parameters (RFC 3966 §3).
fn number(text: &str) -> Option<String> {
    let digits = text.split(';').next()?.replace(['-', '.', '(', ')'], "");
    let plain = |c: char| c.is_ascii_digit() || "*#".contains(c);
    let rest = digits.strip_prefix('+').unwrap_or(&digits);
    let is_number = (1..=64).contains(&rest.len()) && rest.chars().all(plain);
    is_number.then_some(digits)
}

/// Longest display name that is passed on, in bytes.
const DISPLAY_BYTES_MAX: usize = 128;

/// The display name in a From header field, e.g. `"Bob" <sip:bob@a>;tag=x`; `None` if it has none,
/// or one that is no name.
pub(crate) fn display_name(from: &str) -> Option<String> {
    let from = from.trim();
    let name = match from.strip_prefix('"') {
        Some(quoted) => {
            let mut name = String::new();
            let mut chars = quoted.chars();
            loop {
                match chars.next()? {
                    '"' => break name,
                    '\\' => name.push(chars.next()?),
                    c => name.push(c),
                }
            }
        }
        None => from.split_once('<')?.0.trim().to_owned(),
    };
    let plain = !name.trim().is_empty() && !name.chars().any(char::is_control);
    (plain && name.len() <= DISPLAY_BYTES_MAX).then_some(name)
}

fn shortened(text: &str) -> String {
    text.chars().take(LENGTH_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_users_and_sip_uris() {
        assert_eq!(Target::parse("user/1000"), Ok(Target::User("1000".into())));
        let Ok(Target::Uri(uri)) = Target::parse("sip:bob@10.0.0.7:5070;transport=tcp") else {
            panic!("a URI is a target");
        };
        assert_eq!(uri.user.as_deref(), Some("bob"));
        assert_eq!(uri.host_port, HostPort::new("10.0.0.7", 5070));
        assert_eq!(uri.transport, Some(Transport::Tcp));
        let number = |text: &str| Ok(Target::Number(text.into()));
        assert_eq!(Target::parse("tel:+49-(30).1;phone-context=x"), number("+49301"));
        let trunk = Target::Trunk { trunk: "carrier".into(), number: "+49".into() };
        assert_eq!(Target::parse("trunk/carrier/+49"), Ok(trunk));
        let plain = SipUri::parse("sip:example.com").unwrap();
        assert_eq!((plain.user, plain.host_port.port, plain.transport), (None, None, None));
        let v6 = SipUri::parse("sip:a@[::1]:5062").unwrap();
        assert_eq!(v6.host_port, HostPort::new("::1", 5062));
    }

    #[test]
    fn anything_else_is_no_target() {
        for text in [
            "",
            "1000",
            "user/",
            "user/a b",
            "user/a@b",
            "sip:",
            "sip:a@",
            "tel:",
            "tel:49x",
            "trunk/a",
            "trunk//1",
            "trunk/a/b@c",
            "sips:a@b",
            "sip:a@b:0",
            "sip:a@b:99999",
            "sip:a@b\r\nX: y",
            "sip:a@b>",
            "sip:a@b?Replaces=x",
            "sip:a@b;transport=ws",
        ] {
            assert!(Target::parse(text).is_err(), "{text:?}");
        }
        assert!(Target::parse(&format!("sip:{}@b", "a".repeat(300))).is_err());
    }

    #[test]
    fn a_callers_display_name_is_read_with_its_quotes() {
        for (from, expected) in [
            (r#""Bob" <sip:bob@a>;tag=x"#, Some("Bob")),
            (r#""The \"<Bob>\"" <sip:bob@a>"#, Some(r#"The "<Bob>""#)),
            ("Bob Smith <sip:bob@a>", Some("Bob Smith")),
            ("<sip:bob@a>", None),
            ("sip:bob@a;tag=x", None),
            (r#""" <sip:bob@a>"#, None),
            (r#""Bob <sip:bob@a>"#, None),
            ("\"B\u{7}b\" <sip:bob@a>", None),
        ] {
            assert_eq!(display_name(from).as_deref(), expected, "{from}");
        }
        assert_eq!(display_name(&format!("{} <sip:bob@a>", "b".repeat(129))), None);
    }

    #[test]
    fn the_default_port_and_parameters_do_not_matter() {
        let uri = |text| SipUri::parse(text).unwrap();
        assert!(uri("sip:1008@A.b").means(&uri("sip:1008@a.B:5060;user=phone")));
        assert!(!uri("sip:1008@a.b").means(&uri("sip:1008@a.b:5062")));
        assert!(!uri("sip:1008@a.b").means(&uri("sip:1009@a.b")));
    }
}
