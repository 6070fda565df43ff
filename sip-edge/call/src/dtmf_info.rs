//! Digits in the bodies of SIP INFO: `application/dtmf-relay` and `application/dtmf`.

/// The digit that an INFO carries (one of `0-9 * # A-D`) and its duration in ms, 100 if not said
/// and at most 8,000; `None` for any other content.
///
/// `Signal=` is the digit itself, or 10 for `*`, 11 for `#` and 12 to 15 for A to D.
pub fn parse(content_type: &str, body: &[u8]) -> Option<(char, u32)> {
    let content_type = content_type.split(';').next()?.trim();
    let body = std::str::from_utf8(body).ok()?;
    if content_type.eq_ignore_ascii_case("application/dtmf") {
        return Some((digit(body.trim())?, DURATION_MS));
    }
    if !content_type.eq_ignore_ascii_case("application/dtmf-relay") {
        return None;
    }
    let field = |name: &str| {
        body.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let duration_ms = field("duration").and_then(|it| it.parse().ok()).unwrap_or(DURATION_MS);
    Some((digit(field("signal")?)?, duration_ms.clamp(1, DURATION_MAX_MS)))
}

const DURATION_MS: u32 = 100;
const DURATION_MAX_MS: u32 = 8_000;

fn digit(text: &str) -> Option<char> {
    match text {
        "10" => Some('*'),
        "11" => Some('#'),
        "12" => Some('A'),
        "13" => Some('B'),
        "14" => Some('C'),
        "15" => Some('D'),
        _ => {
            let mut chars = text.chars();
            let digit = chars.next()?.to_ascii_uppercase();
            (chars.next().is_none() && is_digit(digit)).then_some(digit)
        }
    }
}

/// Whether `c` is a DTMF digit: `0-9 * # A-D`.
pub fn is_digit(c: char) -> bool {
    matches!(c, '0'..='9' | '*' | '#' | 'A'..='D')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_as_phones_write_them() {
        let relay = |body: &str| parse("application/dtmf-relay", body.as_bytes());
        assert_eq!(relay("Signal=5\r\nDuration=160\r\n"), Some(('5', 160)));
        assert_eq!(relay("signal = 11\nduration = x"), Some(('#', 100)));
        assert_eq!(relay("Signal=d\r\nDuration=4000000000\r\n"), Some(('D', 8_000)));
        assert_eq!(parse("application/dtmf; x=y", b" 10\r\n"), Some(('*', 100)));
    }

    #[test]
    fn anything_else_is_no_digit() {
        for body in ["", "Signal=", "Signal=16", "Signal=E", "Signal=5 5", "Duration=100"] {
            assert_eq!(parse("application/dtmf-relay", body.as_bytes()), None, "{body}");
        }
        assert_eq!(parse("application/dtmf", &[0xff]), None);
        assert_eq!(parse("text/plain", b"5"), None);
    }
}
