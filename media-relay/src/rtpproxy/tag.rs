//! Tags that name a party, and one media description of a call: `TAG;N`.

/// How a tag of a command meets that of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    Exact,
    /// The command's has no `;N`: it means all media descriptions of the call.
    AllMedia,
}

/// Whether a tag of a command means this session's.
pub(super) fn compare(session: &str, asked: &str) -> Option<Match> {
    match session.strip_prefix(asked)? {
        "" => Some(Match::Exact),
        rest if rest.starts_with(';') => Some(Match::AllMedia),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_without_number_means_all_media_of_the_call() {
        assert_eq!(compare("abc;1", "abc;1"), Some(Match::Exact));
        assert_eq!(compare("abc", "abc"), Some(Match::Exact));
        assert_eq!(compare("abc;1", "abc"), Some(Match::AllMedia));
        for other in ["abcd;1", "ab", "abc;2", "abc;", "abc;12", ""] {
            assert_eq!(compare("abc;1", other), None, "{other:?}");
        }
        assert_eq!(compare("abc", "abc;1"), None);
    }
}
