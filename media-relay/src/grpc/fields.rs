//! Fields of requests, checked once.

use media::Side;
use proto::media_relay::v1 as wire;
use tonic::Status;

/// Longest id of a session, call or owner, in bytes.
const ID_BYTES_MAX: usize = 128;
/// Longest name of a conference, longest PIN, and longest path of a recording, in bytes.
const CONFERENCE_BYTES_MAX: usize = 64;
const PIN_BYTES_MAX: usize = 32;
const RECORDING_BYTES_MAX: usize = 200;

pub(super) fn side(field: &'static str, number: i32) -> Result<Side, Status> {
    match wire::Side::try_from(number) {
        Ok(wire::Side::A) => Ok(Side::A),
        Ok(wire::Side::B) => Ok(Side::B),
        Ok(wire::Side::Unspecified) | Err(_) => Err(invalid(field, number, "SIDE_A or SIDE_B")),
    }
}

pub(super) fn wire_side(side: Side) -> i32 {
    match side {
        Side::A => wire::Side::A.into(),
        Side::B => wire::Side::B.into(),
    }
}

pub(super) fn check_id(field: &'static str, value: &str) -> Result<(), Status> {
    match value {
        "" => Err(invalid(field, value, "a UUID")),
        value => check_len(field, value),
    }
}

pub(super) fn check_len(field: &'static str, value: &str) -> Result<(), Status> {
    if value.len() > ID_BYTES_MAX {
        return Err(invalid(field, &value[..value.floor_char_boundary(40)], "at most 128 bytes"));
    }
    Ok(())
}

pub(super) fn invalid(field: &str, got: impl std::fmt::Debug, wanted: &str) -> Status {
    Status::invalid_argument(format!("{field} is {got:?}; wanted {wanted}"))
}

pub(super) fn check_conference(name: &str) -> Result<(), Status> {
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || b"_.-".contains(&it);
    match (1..=CONFERENCE_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain) {
        true => Ok(()),
        false => Err(invalid("conference", name, "1 to 64 of [A-Za-z0-9_.-]")),
    }
}

pub(super) fn check_pin(pin: &str) -> Result<(), Status> {
    match pin.len() <= PIN_BYTES_MAX && pin.bytes().all(|it| it.is_ascii_digit()) {
        true => Ok(()),
        false => Err(Status::invalid_argument("pin is not at most 32 digits")), // Not repeated.
    }
}

/// The path of a recording, with its extension.
pub(super) fn recording_file(file: &str, session_id: &str) -> Result<String, Status> {
    let name = if file.is_empty() { session_id } else { file };
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || b"_.-/".contains(&it);
    let is_name = |it: &str| !it.is_empty() && !it.starts_with('.');
    if name.len() > RECORDING_BYTES_MAX
        || !name.bytes().all(is_plain)
        || !name.split('/').all(is_name)
    {
        let wanted = "a path below --recordings-dir: at most 200 of [A-Za-z0-9_./-], no name empty \
                      or with a dot before it";
        return Err(invalid("file", name, wanted));
    }
    Ok(match name.ends_with(".wav") {
        true => name.to_owned(),
        false => format!("{name}.wav"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_stays_below_its_folder() {
        assert_eq!(recording_file("2026/11/a.wav", "s").unwrap(), "2026/11/a.wav");
        assert_eq!(recording_file("a.mp3", "s").unwrap(), "a.mp3.wav");
        assert_eq!(recording_file("", "s-1").unwrap(), "s-1.wav");
        for wrong in ["/etc/a", "../a", "a/../../b", "a//b", "a/", "a b", "a\0", ".wav", "a/.b"] {
            assert!(recording_file(wrong, "s").is_err(), "{wrong}");
        }
    }
}
