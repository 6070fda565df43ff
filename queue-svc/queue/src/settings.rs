//! What a queue is: a row of mohqueue's `mohqueues`, and the limit that we add to it.

use crate::{Malformed, Uri};

/// `max_calls` of a queue that does not say: mohqueue's `moh_maxcalls`.
pub const MAX_CALLS_DEFAULT: u32 = 50;
/// The highest `max_calls`.
pub const MAX_CALLS_MAX: u32 = 100_000;

/// Sizes of mohqueue's columns, in bytes.
const NAME_MAX: usize = 25;
const COLUMN_MAX: usize = 100;

/// `mohqueues.id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub i64);

/// A queue as people write it: by API, or by hand into the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsRow {
    pub name: String,
    pub uri: String,
    pub mohdir: String,
    pub mohfile: String,
    pub debug: bool,
    /// 0 means [`MAX_CALLS_DEFAULT`].
    pub max_calls: u32,
}

/// A queue that holds what its row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    row: SettingsRow,
    uri: Uri,
}

impl Settings {
    /// From the API.
    ///
    /// # Errors
    /// [`Malformed`] for the first field that breaks its rule or mohqueue's column size.
    pub fn parse(row: SettingsRow) -> Result<Self, Malformed> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        check(
            "name",
            &row.name,
            "1 to 25 of [A-Za-z0-9_.-]",
            (1..=NAME_MAX).contains(&row.name.len()) && row.name.chars().all(plain),
        )?;
        Self::read(row)
    }

    /// From the table, where mohqueue takes any name.
    ///
    /// # Errors
    /// [`Malformed`] for the first field that cannot be used.
    pub fn read(mut row: SettingsRow) -> Result<Self, Malformed> {
        let named = !row.name.is_empty() && row.name.chars().count() <= NAME_MAX;
        let named = named && !row.name.chars().any(char::is_control);
        check("name", &row.name, "1 to 25 characters, none of them a control character", named)?;
        check("uri", &row.uri, "at most 100 bytes", row.uri.len() <= COLUMN_MAX)?;
        let uri = Uri::parse("uri", &row.uri)?;
        let printable =
            |text: &str| text.len() <= COLUMN_MAX && !text.chars().any(char::is_control);
        let climbs = |text: &str| text.split('/').any(|part| part == "..");
        check(
            "mohdir",
            &row.mohdir,
            "a directory of at most 100 bytes without `..`, or nothing",
            printable(&row.mohdir) && !climbs(&row.mohdir),
        )?;
        check(
            "mohfile",
            &row.mohfile,
            "a file name or base name of 1 to 100 bytes without `..`",
            !row.mohfile.is_empty() && printable(&row.mohfile) && !climbs(&row.mohfile),
        )?;
        check(
            "max_calls",
            &row.max_calls.to_string(),
            "1 to 100000, or 0 for 50",
            row.max_calls <= MAX_CALLS_MAX,
        )?;
        if row.max_calls == 0 {
            row.max_calls = MAX_CALLS_DEFAULT;
        }
        Ok(Self { row, uri })
    }

    /// Stands for a queue whose row is gone while callers still wait in it.
    pub(crate) fn lost(id: QueueId) -> Self {
        let host = "lost.invalid";
        let row = SettingsRow {
            name: format!("lost-{}", id.0.unsigned_abs()),
            uri: format!("sip:lost-{}@{host}", id.0.unsigned_abs()),
            max_calls: MAX_CALLS_DEFAULT,
            ..SettingsRow::default()
        };
        let uri = Uri::parse("uri", &row.uri).expect("the URI of a lost queue is one");
        Self { row, uri }
    }

    /// As parsed; `max_calls` is never 0.
    pub fn row(&self) -> &SettingsRow {
        &self.row
    }

    pub fn name(&self) -> &str {
        &self.row.name
    }

    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The music as media-relay wants it: "mohdir/mohfile", or "mohfile" without a directory.
    pub fn music(&self) -> String {
        match self.row.mohdir.trim_end_matches('/') {
            "" if self.row.mohdir.is_empty() => self.row.mohfile.clone(),
            dir => format!("{dir}/{}", self.row.mohfile),
        }
    }
}

fn check(
    field: &'static str,
    got: &str,
    wanted: &'static str,
    holds: bool,
) -> Result<(), Malformed> {
    if holds { Ok(()) } else { Err(Malformed::new(field, got, wanted)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn music_is_directory_and_file() {
        let music = |mohdir: &str| {
            let row = SettingsRow { mohdir: mohdir.into(), ..good() };
            Settings::parse(row).unwrap().music()
        };
        assert_eq!(music("/var/moh/"), "/var/moh/test.pcm");
        assert_eq!(music("/"), "/test.pcm");
        assert_eq!(music(""), "test.pcm");
    }

    #[test]
    fn the_first_bad_field_is_named() {
        let long = "x".repeat(101);
        refused("name", SettingsRow { name: String::new(), ..good() });
        refused("name", SettingsRow { name: "x".repeat(26), ..good() });
        refused("name", SettingsRow { name: "a b".into(), ..good() });
        refused("uri", SettingsRow { uri: "1008".into(), ..good() });
        refused("uri", SettingsRow { uri: format!("sip:{long}@h"), ..good() });
        refused("mohdir", SettingsRow { mohdir: "../etc".into(), ..good() });
        refused("mohdir", SettingsRow { mohdir: long.clone(), ..good() });
        refused("mohfile", SettingsRow { mohfile: String::new(), ..good() });
        refused("mohfile", SettingsRow { mohfile: "a\nb".into(), ..good() });
        refused("max_calls", SettingsRow { max_calls: 100_001, ..good() });
    }

    #[track_caller]
    fn refused(field: &str, row: SettingsRow) {
        assert_eq!(Settings::parse(row).unwrap_err().field, field);
    }

    fn good() -> SettingsRow {
        SettingsRow {
            name: "abc".into(),
            uri: "sip:1008@example.com".into(),
            mohfile: "test.pcm".into(),
            ..SettingsRow::default()
        }
    }
}
