//! What a queue is: a row of mohqueue's `mohqueues`, and what we add to it.

use crate::{Address, Malformed, Strategy, Uri};

/// `max_calls` of a queue that does not say: mohqueue's `moh_maxcalls`.
pub const MAX_CALLS_DEFAULT: u32 = 50;
/// The highest `max_calls`.
pub const MAX_CALLS_MAX: u32 = 100_000;

/// How long an agent is rung, and is if not said, in ms.
pub const RING_MS: std::ops::RangeInclusive<u32> = 1_000..=300_000;
pub const RING_MS_DEFAULT: u32 = 30_000;
/// Within which wait a call counts as answered in time, if not said, in ms.
pub const SERVICE_LEVEL_MS_DEFAULT: u32 = 20_000;
/// The longest wait that a queue may allow or announce by, in ms: a day.
pub const WAIT_MS_MAX: u32 = 86_400_000;
/// The shortest time between two announcements, in ms.
pub const ANNOUNCE_MS_MIN: u32 = 5_000;
/// Periodic announcements of a queue.
pub const PERIODIC_MAX: usize = 10;

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
    pub strategy: Strategy,
    /// How long an agent is rung; 0 means [`RING_MS_DEFAULT`].
    pub ring_ms: u32,
    /// 0 means [`SERVICE_LEVEL_MS_DEFAULT`].
    pub service_level_ms: u32,
    /// How long a caller may wait; 0: for ever.
    pub max_wait_ms: u32,
    /// Nobody may join a queue that is empty of agents in this sense.
    pub join_empty: EmptyRule,
    /// Callers leave a queue that becomes so.
    pub leave_empty: EmptyRule,
    /// Where callers go who may not join or wait any longer: `queue/NAME`, a SIP URI, `user/NAME`, or
    /// nothing: on with the plan of the call.
    pub overflow: String,
    /// How often position and wait are announced; 0: never.
    pub announce_every_ms: u32,
    /// When first; 0: after `announce_every_ms`.
    pub announce_first_ms: u32,
    pub announce_position: bool,
    pub announce_wait: bool,
    /// How often one of `periodic` is played; 0: never.
    pub periodic_every_ms: u32,
    /// Files, one after the other.
    pub periodic: Vec<String>,
}

/// When a queue counts as empty of agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmptyRule {
    /// Never: callers may wait for whoever comes.
    #[default]
    Never,
    /// No agent of it is logged in.
    LoggedOut,
    /// No agent of it is logged in and not paused.
    Unavailable,
}

impl EmptyRule {
    pub const ALL: [Self; 3] = [Self::Never, Self::LoggedOut, Self::Unavailable];

    /// On disk.
    pub fn words(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::LoggedOut => "logged out",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Where callers go who may not join a queue, or not wait in it any longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// On with the plan of their call.
    Plan,
    /// To the queue of this name, where they are in line by their arrival here.
    Queue(String),
    Address(Address),
}

/// A queue that holds what its row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    row: SettingsRow,
    uri: Uri,
    overflow: Overflow,
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
        let overflow = Overflow::read(&row.overflow)?;
        check_times(&row)?;
        check_periodic(&row)?;
        for (value, default) in [
            (&mut row.max_calls, MAX_CALLS_DEFAULT),
            (&mut row.ring_ms, RING_MS_DEFAULT),
            (&mut row.service_level_ms, SERVICE_LEVEL_MS_DEFAULT),
            (&mut row.announce_first_ms, row.announce_every_ms),
        ] {
            if *value == 0 {
                *value = default;
            }
        }
        Ok(Self { row, uri, overflow })
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
        Self::read(SettingsRow { mohfile: "lost".to_owned(), ..row })
            .expect("what stands for a lost queue is one")
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

    pub fn overflow(&self) -> &Overflow {
        &self.overflow
    }

    /// The music as media-relay wants it: "mohdir/mohfile", or "mohfile" without a directory.
    pub fn music(&self) -> String {
        match self.row.mohdir.trim_end_matches('/') {
            "" if self.row.mohdir.is_empty() => self.row.mohfile.clone(),
            dir => format!("{dir}/{}", self.row.mohfile),
        }
    }
}

impl Overflow {
    fn read(text: &str) -> Result<Self, Malformed> {
        match (text, text.strip_prefix("queue/")) {
            ("", _) => Ok(Self::Plan),
            (_, Some(name)) if (1..=COLUMN_MAX).contains(&name.len()) => {
                Ok(Self::Queue(name.to_owned()))
            }
            _ => Address::parse("overflow", text).map(Self::Address).map_err(|_| {
                let wanted = "`queue/NAME`, `sip:USER@HOST`, `user/NAME`, or nothing";
                Malformed::new("overflow", text, wanted)
            }),
        }
    }
}

fn check_times(row: &SettingsRow) -> Result<(), Malformed> {
    let ring = row.ring_ms == 0 || RING_MS.contains(&row.ring_ms);
    check("ring_ms", &row.ring_ms.to_string(), "1000 to 300000, or 0 for 30000", ring)?;
    for (field, ms) in
        [("service_level_ms", row.service_level_ms), ("max_wait_ms", row.max_wait_ms)]
    {
        check(field, &ms.to_string(), "at most 86400000", ms <= WAIT_MS_MAX)?;
    }
    for (field, ms) in [
        ("announce_every_ms", row.announce_every_ms),
        ("announce_first_ms", row.announce_first_ms),
        ("periodic_every_ms", row.periodic_every_ms),
    ] {
        let holds = ms == 0 || (ANNOUNCE_MS_MIN..=WAIT_MS_MAX).contains(&ms);
        check(field, &ms.to_string(), "5000 to 86400000, or 0", holds)?;
    }
    Ok(())
}

fn check_periodic(row: &SettingsRow) -> Result<(), Malformed> {
    let count = row.periodic.len();
    check("periodic", &format!("{count} files"), "at most 10 files", count <= PERIODIC_MAX)?;
    for file in &row.periodic {
        let plain = !file.is_empty() && file.len() <= COLUMN_MAX;
        let plain = plain && !file.chars().any(|c| c.is_control() || c.is_whitespace());
        let wanted = "files of 1 to 100 bytes without white space or `..`";
        check("periodic", file, wanted, plain && !file.split('/').any(|part| part == ".."))?;
    }
    Ok(())
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
        refused("overflow", SettingsRow { overflow: "queue/".into(), ..good() });
        refused("overflow", SettingsRow { overflow: "tel:1".into(), ..good() });
        refused("ring_ms", SettingsRow { ring_ms: 999, ..good() });
        refused("max_wait_ms", SettingsRow { max_wait_ms: WAIT_MS_MAX + 1, ..good() });
        refused("announce_every_ms", SettingsRow { announce_every_ms: 4_999, ..good() });
        refused("periodic", SettingsRow { periodic: vec!["a b".into()], ..good() });
        refused("periodic", SettingsRow { periodic: vec!["a/../b".into()], ..good() });
        refused("periodic", SettingsRow { periodic: vec!["a".into(); 11], ..good() });
    }

    #[test]
    fn overflow_is_a_queue_an_address_or_the_plan() {
        let overflow = |text: &str| {
            let row = SettingsRow { overflow: text.into(), ..good() };
            Settings::parse(row).unwrap().overflow().clone()
        };
        assert_eq!(overflow(""), Overflow::Plan);
        assert_eq!(overflow("queue/night"), Overflow::Queue("night".into()));
        for address in ["sip:1@h", "user/1001"] {
            let wanted = Address::parse("overflow", address).unwrap();
            assert_eq!(overflow(address), Overflow::Address(wanted));
        }
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let settings = Settings::parse(SettingsRow { announce_every_ms: 9_000, ..good() }).unwrap();
        let row = settings.row();
        assert_eq!((row.max_calls, row.ring_ms, row.service_level_ms), (50, 30_000, 20_000));
        assert_eq!(row.announce_first_ms, 9_000);
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
