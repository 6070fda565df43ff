//! RTCP: our compound packets, and what those of a side tell us (RFC 3550 §6).

use crate::reception::Reported;
use rtcp_types::prelude::*;
use rtcp_types::{
    Bye, Compound, Packet, ReceiverReport, ReportBlock, Sdes, SdesChunk, SdesItem, SenderReport,
};
use std::time::{Duration, Instant};

/// Mean time between our reports; each is drawn between half and one and a half of it (§6.2).
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);

/// Seconds between the epochs of NTP (1900) and Unix (1970).
const NTP_UNIX_S: u64 = 2_208_988_800;

/// The sender's half of a report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SenderInfo {
    /// Since the Unix epoch.
    pub wallclock: Duration,
    pub timestamp: u32,
    pub packets: u64,
    pub octets: u64,
}

/// The newest sender report of a side, for LSR and DLSR.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastSenderReport {
    /// The middle 32 bits of its NTP timestamp.
    pub ntp_middle: u32,
    pub arrival: Instant,
}

/// One compound packet of ours.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub ssrc: u32,
    pub cname: &'a str,
    /// Present if we have sent since the last report: makes it a sender report.
    pub sender: Option<SenderInfo>,
    pub reception: Option<(Reported, Option<LastSenderReport>)>,
    /// This is the last one.
    pub goodbye: bool,
}

impl Report<'_> {
    /// Appends SR or RR, SDES with CNAME, and BYE if it is the last, to `out`.
    pub(crate) fn write(&self, now: Instant, out: &mut Vec<u8>) {
        let block = self.reception.map(|(reported, last)| {
            ReportBlock::builder(reported.ssrc)
                .fraction_lost(reported.fraction_lost)
                .cumulative_lost(reported.cumulative_lost)
                .extended_sequence_number(reported.extended_highest_sequence)
                .interarrival_jitter(reported.jitter)
                .last_sender_report_timestamp(last.map_or(0, |it| it.ntp_middle))
                .delay_since_last_sender_report_timestamp(
                    last.map_or(0, |it| ntp_short(now.saturating_duration_since(it.arrival))),
                )
        });
        let compound = Compound::builder();
        let compound = match self.sender {
            Some(sender) => {
                let report = SenderReport::builder(self.ssrc)
                    .ntp_timestamp(ntp(sender.wallclock))
                    .rtp_timestamp(sender.timestamp)
                    .packet_count(sender.packets as u32) // Both counts wrap (§6.4.1).
                    .octet_count(sender.octets as u32);
                compound.add_packet(block.into_iter().fold(report, |it, b| it.add_report_block(b)))
            }
            None => {
                let report = ReceiverReport::builder(self.ssrc);
                compound.add_packet(block.into_iter().fold(report, |it, b| it.add_report_block(b)))
            }
        };
        let cname = SdesItem::builder(SdesItem::CNAME, self.cname);
        let chunk = SdesChunk::builder(self.ssrc).add_item(cname);
        let mut compound = compound.add_packet(Sdes::builder().add_chunk(chunk));
        if self.goodbye {
            compound = compound.add_packet(Bye::builder().add_source(self.ssrc));
        }
        let start = out.len();
        let size = compound.calculate_size().expect("our reports are valid");
        out.resize(start + size, 0);
        compound.write_into(&mut out[start..]).expect("the size was calculated");
    }
}

/// What an incoming compound says that matters to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// The middle 32 bits of the NTP timestamp, if it has a sender report.
    pub sender_report_ntp_middle: Option<u32>,
    /// Fraction lost (/256) of what we sent, if it has a report block about us.
    pub fraction_lost: Option<u8>,
}

/// Not a valid compound packet (RFC 3550 A.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads a compound packet; parts of unknown types are skipped.
///
/// # Errors
/// [`Malformed`] if a length or version is wrong, or it begins with neither SR nor RR.
pub(crate) fn parse(bytes: &[u8], our_ssrc: u32) -> Result<Heard, Malformed> {
    let mut heard = Heard::default();
    let compound = Compound::parse(bytes).map_err(|_| Malformed)?;
    for (n, packet) in compound.enumerate() {
        match packet.map_err(|_| Malformed)? {
            Packet::Sr(report) => {
                heard.sender_report_ntp_middle = Some((report.ntp_timestamp() >> 16) as u32);
                heard.note_blocks(report.report_blocks(), our_ssrc);
            }
            Packet::Rr(report) => heard.note_blocks(report.report_blocks(), our_ssrc),
            _ if n == 0 => return Err(Malformed),
            _ => (), // SDES, BYE, APP, XR and feedback change nothing here.
        }
    }
    Ok(heard)
}

impl Heard {
    fn note_blocks<'a>(&mut self, mut blocks: impl Iterator<Item = ReportBlock<'a>>, ssrc: u32) {
        if let Some(block) = blocks.find(|it| it.ssrc() == ssrc) {
            self.fraction_lost = Some(block.fraction_lost());
        }
    }
}

/// 64-bit NTP timestamp: seconds since 1900 and 2⁻³² parts.
fn ntp(unix: Duration) -> u64 {
    let seconds = unix.as_secs().wrapping_add(NTP_UNIX_S) & 0xffff_ffff; // Era 1 begins in 2036.
    (seconds << 32) | ((u64::from(unix.subsec_nanos()) << 32) / 1_000_000_000)
}

/// In units of 1/65536 s.
fn ntp_short(duration: Duration) -> u32 {
    u32::try_from((duration.as_micros() << 16) / 1_000_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_was_sent_received_and_when() {
        let now = Instant::now();
        let reported = Reported {
            ssrc: 5,
            fraction_lost: 64,
            cumulative_lost: 100,
            extended_highest_sequence: 65_539,
            jitter: 7,
        };
        let last = LastSenderReport { ntp_middle: 0xabcd_ef01, arrival: now };
        let report = Report {
            ssrc: 1,
            cname: "side@relay",
            sender: Some(SenderInfo {
                wallclock: Duration::from_millis(1_700_000_000_500),
                timestamp: 160,
                packets: 3,
                octets: 480,
            }),
            reception: Some((reported, Some(last))),
            goodbye: true,
        };
        let mut bytes = Vec::new();
        report.write(now + Duration::from_millis(1_500), &mut bytes);

        let mut packets = Compound::parse(&bytes).unwrap().map(Result::unwrap);
        let Some(Packet::Sr(sr)) = packets.next() else { panic!("SR first") };
        assert_eq!(sr.ntp_timestamp(), ((1_700_000_000 + NTP_UNIX_S) << 32) | 0x8000_0000);
        assert_eq!((sr.rtp_timestamp(), sr.packet_count(), sr.octet_count()), (160, 3, 480));
        let block = sr.report_blocks().next().unwrap();
        assert_eq!((block.ssrc(), block.fraction_lost(), block.cumulative_lost()), (5, 64, 100));
        assert_eq!(block.last_sender_report_timestamp(), 0xabcd_ef01);
        assert_eq!(block.delay_since_last_sender_report_timestamp(), 3 << 15);
        assert!(matches!(packets.next(), Some(Packet::Sdes(_))));
        assert!(matches!(packets.next(), Some(Packet::Bye(_))));

        let about_5 = Heard {
            sender_report_ntp_middle: Some(((1_700_000_000 + NTP_UNIX_S) << 16) as u32 | 0x8000),
            fraction_lost: Some(64),
        };
        assert_eq!(parse(&bytes, 5), Ok(about_5));
        assert_eq!(parse(&bytes, 6), Ok(Heard { fraction_lost: None, ..about_5 }));
        assert_eq!(parse(&bytes[..bytes.len() - 1], 5), Err(Malformed));
    }

    #[test]
    fn who_has_not_sent_writes_a_receiver_report() {
        let report = Report { ssrc: 1, cname: "x", sender: None, reception: None, goodbye: false };
        let mut bytes = Vec::new();
        report.write(Instant::now(), &mut bytes);
        let first = Compound::parse(&bytes).unwrap().next().unwrap().unwrap();
        assert!(matches!(first, Packet::Rr(_)));
        assert_eq!(parse(&bytes, 1), Ok(Heard::default()));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_can_make_it_panic(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            kind in 192..=208u8,
        ) {
            let _ = parse(&bytes, 1);
            let words = (bytes.len() / 4) as u16;
            let mut framed = vec![0x80 | bytes.first().unwrap_or(&0) & 0x3f, kind];
            framed.extend(words.to_be_bytes());
            framed.extend(&bytes[..usize::from(words) * 4]);
            let _ = parse(&framed, 1);
        }
    }
}
