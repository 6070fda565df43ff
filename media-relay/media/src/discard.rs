//! Why a packet of a side went nowhere. Every reason is a metric label, never a log line.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Discard {
            $($(#[$doc])* $name,)*
        }

        impl Discard {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }
        }
    };
}

reasons! {
    /// Not RTP (RFC 3550 §5.1 and A.1).
    MalformedRtp = "malformed_rtp",
    /// Not RTCP (A.2).
    MalformedRtcp = "malformed_rtcp",
    /// A packet longer than any we negotiate.
    TooLong = "too_long",
    /// RTCP that came on the RTP port; rtcp-mux is not negotiated (RFC 5761).
    RtcpOnRtpPort = "rtcp_on_rtp_port",
    /// From elsewhere than the latched source.
    Stranger = "stranger",
    /// A payload type that was not negotiated.
    PayloadType = "payload_type",
    /// Nobody hears this side.
    NoListener = "no_listener",
    /// The other side is on hold, or has no address or no codec yet.
    OnHold = "on_hold",
    /// The side that would hear it is being sent digits.
    SendingDigits = "sending_digits",
    /// An event for a side that has not negotiated telephone-event.
    NoTelephoneEvent = "no_telephone_event",
    /// Its place in the outgoing stream was taken before a switch.
    BeforeSwitch = "before_switch",
    /// Too late for the mix.
    Late = "late",
    /// Another codec or source so soon after the last one that it is no talk.
    CodecChanged = "codec_changed",
}

/// How often each reason has come up.
#[derive(Clone, Debug, Default)]
pub struct Discards([u64; Discard::ALL.len()]);

impl Discards {
    pub fn count(&mut self, reason: Discard) {
        self.0[reason as usize] += 1;
    }

    /// Those that have come up.
    pub fn iter(&self) -> impl Iterator<Item = (Discard, u64)> {
        Discard::ALL.iter().map(|it| (*it, self.0[*it as usize])).filter(|(_, count)| *count > 0)
    }

    pub fn get(&self, reason: Discard) -> u64 {
        self.0[reason as usize]
    }
}
