//! From, To, Contact, Route and Record-Route values (RFC 3261 §20.10, §25.1).

use crate::param::{self, Params};
use memchr::memchr;

/// `"Display" <uri>;params` or `uri;params`.
#[derive(Clone, Copy, Debug)]
pub struct NameAddr<'a> {
    pub uri: &'a str,
    /// Those of the header field, behind the URI.
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    /// One value. `None` if brackets do not match or there is no URI.
    pub fn parse(text: &'a str) -> Option<Self> {
        let text = text.trim();
        let (uri, params) = match open_bracket(text) {
            Some(open) => {
                let close = open + memchr(b'>', &text.as_bytes()[open..])?;
                let rest = text[close + 1..].trim_start();
                (&text[open + 1..close], rest.strip_prefix(';').or(rest.is_empty().then_some(""))?)
            }
            None => {
                let end = memchr(b';', text.as_bytes()).unwrap_or(text.len());
                let uri = &text[..end];
                if memchr(b'?', uri.as_bytes()).is_some() {
                    return None; // Without brackets nobody knows whose the headers are.
                }
                (uri, text.get(end + 1..).unwrap_or_default())
            }
        };
        let uri = uri.trim();
        let strange = |byte: u8| byte.is_ascii_whitespace() || byte == b'"';
        let plain = memchr(b':', uri.as_bytes()).is_some() && !uri.bytes().any(strange);
        plain.then_some(Self { uri, params: Params(params) })
    }

    /// All values of a comma list; `None` in place of each that is wrong.
    pub fn list(text: &'a str) -> impl Iterator<Item = Option<Self>> {
        param::split(text, b',').map(NameAddr::parse)
    }

    /// The tag, if there is one that is not empty.
    pub fn tag(&self) -> Option<&'a str> {
        self.params.get("tag").filter(|tag| !tag.is_empty())
    }
}

/// The `<` that is not in a quoted display name.
fn open_bracket(text: &str) -> Option<usize> {
    param::find(text.as_bytes(), b'<')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms_and_refuses_broken_brackets() {
        for (text, wanted) in [
            ("\"Q <z>\" <sip:a@b;lr>;tag=7", Some(("sip:a@b;lr", Some("7")))),
            ("sip:a@b;tag=7", Some(("sip:a@b", Some("7")))),
            ("<sip:a@b> ; TAG = 7", Some(("sip:a@b", Some("7")))),
            ("Bob <sip:a@b", None),
            ("\"Bob <sip:a@b>", None),
            ("", None),
        ] {
            let got = NameAddr::parse(text).map(|it| (it.uri, it.tag()));
            assert_eq!(got, wanted, "{text}");
        }
    }
}
