//! What `E<n>` in a reply means. Clients look only at the letter; people look at the number.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            #[cfg(test)]
            pub(super) const ALL: &[Self] = &[$(Self::$name,)*];

            fn number(self) -> u8 {
                match self {
                    $(Self::$name => $number,)*
                }
            }
        }
    };
}

codes! {
    UnknownCommand = 0,
    ArgumentCount = 1,
    /// Of a command that has none.
    Modifiers = 2,
    SubCommand = 3,
    /// NUL, bytes that are no UTF-8, a token or command that is too long.
    Syntax = 5,
    StopRecordingModifier = 6,
    RecordModifier = 7,
    DeleteModifier = 8,
    StatsModifier = 9,
    /// A notification tag that is not URL-encoded.
    NotifyTag = 10,
    /// `E` or `I`: we have one address, and bridge nothing.
    External = 11,
    Internal = 12,
    PacketTime = 13,
    CodecList = 14,
    LocalAddressSyntax = 15,
    RouteSyntax = 16,
    PlayCount = 17,
    InfoModifier = 18,
    QueryModifier = 19,
    StatsTooLong = 25,
    QueryTooLong = 26,
    /// Not an address of ours.
    LocalAddress = 31,
    /// No address of ours reaches that one.
    NoLocalForRemote = 32,
    /// A modifier that is not known; or codecs of a session that has named none.
    Unusable = 35,
    /// We have no address of that family.
    Family = 36,
    RemoteAddress = 37,
    NoSession = 50,
    NothingPlayed = 60,
    UnknownStatistic = 62,
    NotCopied = 65,
    UnknownCounter = 68,
    NoPorts = 71,
    NoMoreSessions = 72,
    /// To a place that is not listed.
    Notify = 75,
    Overload = 98,
    Draining = 99,
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "E{}", self.number())
    }
}
