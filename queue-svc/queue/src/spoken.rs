//! Announcements as sequences of files, so that any language and voice can be recorded.
//!
//! The files lie in the folder of prompts: `you-are-number`, `wait-within`, `wait-within-a-minute`,
//! `minutes`, and the numbers `number/0` to `number/20`, `number/30` … `number/90`, `number/100` …
//! `number/900`, `number/thousand`. The extension is left to media-relay.

/// What the names of these files begin with, in place of the folder of prompts.
pub const PROMPTS: &str = "prompt:";

/// Longest wait that is said, in minutes.
const MINUTES_MAX: u64 = 120;
/// Highest position that is said.
const POSITION_MAX: u32 = 999_999;

const MS_PER_MINUTE: u64 = 60_000;

/// "You are number …", as names below the folder of prompts.
pub(crate) fn position(position: u32) -> Vec<String> {
    let mut files = vec![word("you-are-number")];
    number(position.min(POSITION_MAX), &mut files);
    files
}

/// "You will be served within … minutes": rounded up, because too early is a lie and too late is not.
pub(crate) fn wait(ms: u64) -> Vec<String> {
    let minutes = ms.div_ceil(MS_PER_MINUTE).clamp(1, MINUTES_MAX);
    if minutes == 1 {
        return vec![word("wait-within-a-minute")];
    }
    let mut files = vec![word("wait-within")];
    number(u32::try_from(minutes).unwrap_or(u32::MAX), &mut files);
    files.push(word("minutes"));
    files
}

fn word(name: &str) -> String {
    format!("{PROMPTS}{name}")
}

fn number(value: u32, files: &mut Vec<String>) {
    if value >= 1_000 {
        number(value / 1_000, files);
        files.push(word("number/thousand"));
        if value.is_multiple_of(1_000) {
            return;
        }
        return number(value % 1_000, files);
    }
    let (hundreds, rest) = (value / 100 * 100, value % 100);
    if hundreds > 0 {
        files.push(word(&format!("number/{hundreds}")));
        if rest == 0 {
            return;
        }
    }
    if rest <= 20 {
        files.push(word(&format!("number/{rest}")));
        return;
    }
    files.push(word(&format!("number/{}", rest / 10 * 10)));
    if rest % 10 > 0 {
        files.push(word(&format!("number/{}", rest % 10)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_said_with_few_recordings() {
        let said = |value| position(value)[1..].join(" ").replace("prompt:number/", "");
        for (value, words) in [
            (0, "0"),
            (1, "1"),
            (20, "20"),
            (21, "20 1"),
            (90, "90"),
            (100, "100"),
            (115, "100 15"),
            (999, "900 90 9"),
            (1_000, "1 thousand"),
            (21_042, "20 1 thousand 40 2"),
            (u32::MAX, "900 90 9 thousand 900 90 9"),
        ] {
            assert_eq!(said(value), words, "{value}");
        }
    }

    #[test]
    fn a_wait_is_rounded_up_to_minutes() {
        let said = |ms| wait(ms).join(" ").replace("prompt:", "");
        assert_eq!(said(0), "wait-within-a-minute");
        assert_eq!(said(60_000), "wait-within-a-minute");
        assert_eq!(said(60_001), "wait-within number/2 minutes");
        assert_eq!(said(u64::MAX), "wait-within number/100 number/20 minutes");
    }
}
