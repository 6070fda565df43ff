//! The sixteen keys.

/// One of 0-9 * # A-D.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digit(u8);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("digit {0:?} is not one of 0-9 * # A-D")]
pub struct NotADigit(pub String);

impl Digit {
    const CHARS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '*', '#', 'A', 'B', 'C', 'D'];

    /// Event codes 0 to 15 (RFC 4733 §3.2); others, such as flash (16), are not digits.
    pub(crate) fn from_event_code(code: u8) -> Option<Self> {
        (code < 16).then_some(Self(code))
    }

    pub(crate) fn event_code(self) -> u8 {
        self.0
    }

    pub fn as_char(self) -> char {
        Self::CHARS[usize::from(self.0)]
    }
}

impl std::str::FromStr for Digit {
    type Err = NotADigit;

    /// Letters may be small.
    fn from_str(text: &str) -> Result<Self, NotADigit> {
        let position = |c: char| Self::CHARS.iter().position(|it| *it == c.to_ascii_uppercase());
        let mut chars = text.chars();
        match (chars.next().and_then(position), chars.next()) {
            (Some(code), None) => Ok(Self(code as u8)),
            _ => Err(NotADigit(text.chars().take(16).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sixteen_digits_are_digits() {
        assert_eq!("d".parse::<Digit>().unwrap().as_char(), 'D');
        for wrong in ["", "12", "E", "é"] {
            let error = wrong.parse::<Digit>().unwrap_err().to_string();
            assert_eq!(error, format!("digit {wrong:?} is not one of 0-9 * # A-D"));
        }
        assert_eq!(Digit::from_event_code(16), None, "flash");
    }
}
