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
    /// Has an RFC, and we do not speak it: PRACK, UPDATE, REFER and so on. Answered 405.
    Foreign,
    /// No method that we know. Answered 501.
    Unknown,
}

/// What Allow says.
pub(crate) const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, REGISTER, INFO";

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
            b"PRACK" | b"UPDATE" | b"REFER" | b"SUBSCRIBE" | b"NOTIFY" | b"MESSAGE"
            | b"PUBLISH" => Method::Foreign,
            _ => Method::Unknown,
        }
    }
}
