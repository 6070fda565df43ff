//! Parameters, quoted strings and comma lists, which most header values share (RFC 3261 §25.1).

use memchr::memchr3;

/// `;name=value` pairs of a header value or URI, as text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Params<'a>(pub(crate) &'a str);

impl<'a> Params<'a> {
    /// Value of the first parameter of this name in any case; empty if it has no value. A quoted
    /// value keeps its quotes.
    pub fn get(self, name: &str) -> Option<&'a str> {
        self.iter().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Name and value of each, in order.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let parts = split(self.0, b';').map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| match part.split_once('=') {
            Some((name, value)) => (name.trim(), value.trim()),
            None => (part, ""),
        })
    }
}

/// Splits at `separator` where it stands neither in a quoted string nor between angle brackets.
pub(crate) fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        match find(text.as_bytes(), separator) {
            Some(at) => {
                rest = Some(&text[at + 1..]);
                Some(&text[..at])
            }
            None => rest.take(),
        }
    })
}

/// Where `wanted` first stands outside quoted strings and angle brackets.
pub(crate) fn find(text: &[u8], wanted: u8) -> Option<usize> {
    let first = memchr3(wanted, b'"', b'<', text)?;
    if text[first] == wanted {
        return Some(first); // Nothing is open yet.
    }
    let (mut quoted, mut escaped, mut angle) = (false, false, false);
    for (at, byte) in text.iter().copied().enumerate().skip(first) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => (),
            _ if byte == wanted && !angle => return Some(at),
            b'<' => angle = true,
            b'>' => angle = false,
            _ => (),
        }
    }
    None
}

/// The text of a quoted string; what is not quoted comes back as it is.
pub(crate) fn unquote(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return text.to_owned();
    };
    let mut plain = String::with_capacity(inner.len());
    let mut escaped = false;
    for letter in inner.chars() {
        if letter == '\\' && !escaped {
            escaped = true;
        } else {
            escaped = false;
            plain.push(letter);
        }
    }
    plain
}

/// `text` as a quoted string; control characters become blanks.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            _ if letter.is_control() => quoted.push(' '),
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether `text` can be a header name or a method (RFC 3261 §25.1, `token`).
pub(crate) fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

/// Whether `text` can be a header value: one line, no control characters.
pub(crate) fn is_value(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_inside_quotes_and_brackets_do_not_split() {
        let text = r#""a;b\";" <sip:x;lr>;tag=1; q = ";" "#;
        let parts: Vec<_> = split(text, b';').collect();
        assert_eq!(parts, [r#""a;b\";" <sip:x;lr>"#, "tag=1", r#" q = ";" "#]);
        assert_eq!(Params(r#"tag=1; q = ";" "#).get("Q"), Some("\";\""));
    }

    #[test]
    fn quoting_is_undone_by_unquoting() {
        let text = r#"J "Rosenberg" \o/"#;
        assert_eq!(unquote(&quote(text)), text);
        assert_eq!(quote("a\r\nb"), "\"a  b\"");
    }
}
