//! Methods (RFC 3261 §7.1 and the extensions that have an RFC).

/// A method by name. Names are case-sensitive (RFC 3261 §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Invite,
    Ack,
    Bye,
    Cancel,
    Options,
    Register,
    Info,
    /// RFC 3262.
    Prack,
    /// RFC 3311.
    Update,
    /// RFC 3515.
    Refer,
    /// RFC 6665, here only of REFER.
    Notify,
    /// Has an RFC, and we do not speak it: SUBSCRIBE, MESSAGE, PUBLISH. Answered 405.
    Foreign,
    /// No method that we know. Answered 501.
    Unknown,
}

/// What Allow says.
pub(crate) const ALLOW: &str =
    "INVITE, ACK, BYE, CANCEL, OPTIONS, REGISTER, INFO, PRACK, UPDATE, REFER, NOTIFY";

/// Option tags of the extensions that we have: what Supported says, and Require may ask for.
pub(crate) const OPTIONS: [&str; 4] = ["100rel", "timer", "replaces", "norefersub"];

impl Method {
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"INVITE" => Method::Invite,
            b"ACK" => Method::Ack,
            b"BYE" => Method::Bye,
            b"CANCEL" => Method::Cancel,
            b"OPTIONS" => Method::Options,
            b"REGISTER" => Method::Register,
            b"INFO" => Method::Info,
            b"PRACK" => Method::Prack,
            b"UPDATE" => Method::Update,
            b"REFER" => Method::Refer,
            b"NOTIFY" => Method::Notify,
            b"SUBSCRIBE" | b"MESSAGE" | b"PUBLISH" => Method::Foreign,
            _ => Method::Unknown,
        }
    }
}
