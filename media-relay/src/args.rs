//! The flags of media-relay; `--help` is their manual.

use crate::ingest::Wishes;
use crate::library::Library;
use crate::path::Wish;
use crate::rtpproxy::{self, Listed, Listen, Network};
use anyhow::{Context as _, bail};
use clap::Parser;
use media::{CLOCK_RATE_HZ, Codec};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// Longest duration of a flag.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Longest recording: in stereo at 48 kHz its WAV file is below the 4 GiB that its header can say.
const RECORDING_MAX: Duration = Duration::from_secs(4 * 3_600);
/// Longest --gather: a frame.
const GATHER_MAX: Duration = Duration::from_millis(20);

/// RTP for Holdfast: ports, offer/answer, music on hold, prompts, digits, relay and conferences.
#[derive(Clone, Debug, Parser)]
#[command(version)]
#[command(mut_arg("grpc", |it| it.default_value("127.0.0.1:50052")))]
#[command(mut_arg("nats_url", |it| it.help("Taken, but not used: media events go out over gRPC")))]
#[command(mut_arg("nats_user", |it| it.help("Taken, but not used: see --nats-url")))]
#[command(mut_arg("nats_password_file", |it| it.help("Taken, but not used: see --nats-url")))]
pub(crate) struct Args {
    /// Address that RTP and RTCP are received on and sent from; also in the SDP, unless
    /// --advertise says otherwise.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    pub rtp_address: IpAddr,

    /// Address that the SDP tells remotes to send to, e.g. the public one of a NAT.
    #[arg(long, value_name = "ADDR")]
    pub advertise: Option<IpAddr>,

    /// Ports for RTP (even) and RTCP (the odd one above), both included; two for each side of a
    /// session. A pair that another process has is skipped.
    #[arg(long, value_name = "FIRST-LAST", default_value = "20000-29999", value_parser = port_range)]
    pub rtp_ports: RangeInclusive<u16>,

    /// Folder of the audio files; nothing outside it is played.
    #[arg(long, value_name = "DIR", default_value = "media")]
    pub media_dir: PathBuf,

    /// Memory for decoded and encoded audio, e.g. 512MiB. Files beyond it are forgotten, the longest
    /// unused first, and decoded again when they are needed; one that does not fit beside what is
    /// playing is refused.
    #[arg(long, value_name = "BYTES", default_value = "512MiB", value_parser = bytes)]
    pub audio_memory: usize,

    /// Play raw files (NAME.0, .3, .8, .9) that are not what their name says as what they are, e.g.
    /// 16-bit linear PCM named .8, instead of refusing them.
    #[arg(long)]
    pub moh_repair: bool,

    /// Bring all files to one loudness: -19 dB below full scale on average, and peaks of -1 dB.
    #[arg(long)]
    pub moh_normalise: bool,

    /// Codecs that are taken and offered; our offers have them in this order, answers keep the
    /// offerer's. L16 is 16 and 8 kHz.
    #[arg(
        long,
        value_name = "NAMES",
        value_enum,
        ignore_case = true,
        value_delimiter = ',',
        default_value = "pcmu,pcma,g722,opus,l16,gsm"
    )]
    pub codecs: Vec<CodecName>,

    /// After how long without RTP and RTCP a side is reported INACTIVE, while somebody needs to
    /// hear it; phones that hold, and listeners to music, may be silent for ever. At most 24h; 0s:
    /// never.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub inactivity: Duration,

    /// Most media sessions at a time; further ones get RESOURCE_EXHAUSTED. Each side of one takes a
    /// port pair of --rtp-ports: their 5,000 pairs are 5,000 callers on hold, or 2,500 talks. Default:
    /// as many as there are pairs, which is also the most.
    #[arg(long, value_name = "NUMBER")]
    pub max_sessions: Option<usize>,

    /// Folder that recordings go to, and stay below; made if it is not there. Default: none, and
    /// StartRecording is refused.
    #[arg(long, value_name = "DIR")]
    pub recordings_dir: Option<PathBuf>,

    /// Longest recording; it ends by itself then. At most 4h.
    #[arg(long, value_name = "DURATION", default_value = "4h", value_parser = recording_duration)]
    pub max_recording: Duration,

    /// How long a port pair rests after use, so that late packets do not reach the next call. At
    /// most 24h.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub port_quarantine: Duration,

    /// Folder for snapshots of the sessions, one media-relay each: after a crash or a restart on the
    /// same host they go on, on the same ports and at the same place of the music. Default: none, and
    /// sessions end with the process.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// How packets get in and out; the log and the metric holdfast_media_packet_path say which one it
    /// is.
    #[arg(long, value_name = "PATH", value_enum, default_value_t = Wish::Auto)]
    pub packet_path: Wish,

    /// Least time between two wake-ups for packets: those that come or fall due meanwhile are moved
    /// together, which costs less and delays none by more than this. At most 20ms; 0s: never wait.
    #[arg(long, value_name = "DURATION", default_value = "1ms", value_parser = gather)]
    pub gather: Duration,

    /// Where Kamailio's and OpenSIPS' rtpproxy modules, and others that speak that protocol, find this
    /// relay: udp:ADDR:PORT, tcp:ADDR:PORT, unix:PATH (a connection for each command) or cunix:PATH.
    /// May be given several times. Default: none, and nobody does.
    #[arg(long, value_name = "WHERE")]
    pub rtpproxy_listen: Vec<Listen>,

    /// From where commands of that protocol are taken over UDP and TCP, addresses or networks: it has
    /// no passwords. Over UNIX sockets, the permissions of the file say who may.
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',', default_value = "127.0.0.0/8,::1")]
    pub rtpproxy_from: Vec<Network>,

    /// Sockets that its clients may have told of timeouts and digits: tcp:ADDR:PORT, unix:PATH, or
    /// tcp:%%CC_SELF%%:PORT for a port of the client itself. May be given several times. Default:
    /// none.
    #[arg(long, value_name = "WHERE")]
    pub rtpproxy_notify: Vec<Listed>,

    /// After how long without a packet from either party a session of such a client is deleted, if
    /// nothing is played in it. From 1s to 24h.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = lifetime)]
    pub rtpproxy_ttl: Duration,

    /// The same for a session in which something is played: its listener may be muted, or gone
    /// without a word. From 1s to 24h.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = lifetime)]
    pub rtpproxy_playing_ttl: Duration,

    #[command(flatten)]
    pub common: boot::Common,
}

/// As operators write them.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum CodecName {
    Pcmu,
    Pcma,
    G722,
    Opus,
    L16,
    Gsm,
}

impl CodecName {
    fn of(self) -> &'static [Codec] {
        match self {
            Self::Pcmu => &[Codec::Pcmu],
            Self::Pcma => &[Codec::Pcma],
            Self::G722 => &[Codec::G722],
            Self::Opus => &[Codec::Opus],
            Self::L16 => &[Codec::L16Wide, Codec::L16Narrow],
            Self::Gsm => &[Codec::Gsm],
        }
    }
}

impl Args {
    /// The files that may be played to listeners in `codecs`.
    pub(crate) fn open_media_dir(&self, codecs: &[Codec]) -> Library {
        let rates_hz = codecs.iter().map(|it| it.sample_rate_hz());
        let wishes = Wishes {
            repair: self.moh_repair,
            normalise: self.moh_normalise,
            rate_max_hz: rates_hz.max().unwrap_or(CLOCK_RATE_HZ),
            bytes_max: self.audio_memory,
        };
        Library::new(&self.media_dir, wishes, codecs, self.audio_memory)
    }

    /// What the rtpproxy protocol's server must know, beside where it listens.
    pub(crate) fn rtpproxy_settings(&self) -> rtpproxy::Settings {
        rtpproxy::Settings {
            address: self.advertise.unwrap_or(self.rtp_address),
            bound: self.rtp_address,
            ttl: self.rtpproxy_ttl,
            playing_ttl: self.rtpproxy_playing_ttl,
            notify: self.rtpproxy_notify.clone(),
        }
    }

    /// What the core must know.
    ///
    /// # Errors
    /// If flags contradict each other.
    pub(crate) fn config(&self) -> anyhow::Result<media::Config> {
        let address = self.advertise.unwrap_or(self.rtp_address);
        if address.is_unspecified() {
            bail!("use {address} in SDP: with --rtp-address {address}, give --advertise ADDR too");
        }
        if address.is_ipv4() != self.rtp_address.is_ipv4() {
            bail!(
                "advertise {address} for --rtp-address {}: one is IPv4, the other IPv6",
                self.rtp_address
            );
        }
        let pairs = port_pairs(&self.rtp_ports);
        let sessions_max = self.max_sessions.unwrap_or(pairs);
        if !(1..=pairs).contains(&sessions_max) {
            let (first, last) = (self.rtp_ports.start(), self.rtp_ports.end());
            bail!(
                "have --max-sessions {sessions_max}: --rtp-ports {first}-{last} are {pairs} pairs, \
                 one for each side of a session; give 1 to {pairs}, or more ports"
            );
        }
        Ok(media::Config {
            address,
            bound: self.rtp_address,
            rtp_ports: self.rtp_ports.clone(),
            port_quarantine: self.port_quarantine,
            inactivity: self.inactivity,
            recording_max: self.max_recording,
            sessions_max,
            codecs: self.codecs.iter().flat_map(|it| it.of()).copied().collect(),
        })
    }
}

fn lifetime(text: &str) -> anyhow::Result<Duration> {
    let duration = duration(text)?;
    if duration < Duration::from_secs(1) {
        bail!("{text} is less than 1s");
    }
    Ok(duration)
}

fn recording_duration(text: &str) -> anyhow::Result<Duration> {
    let duration = humantime::parse_duration(text)?;
    if duration.is_zero() || duration > RECORDING_MAX {
        bail!("{text} is not from 1s to {}", humantime::format_duration(RECORDING_MAX));
    }
    Ok(duration)
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    let duration = humantime::parse_duration(text)?;
    if duration > DURATION_MAX {
        bail!("{text} is more than {}", humantime::format_duration(DURATION_MAX));
    }
    Ok(duration)
}

fn gather(text: &str) -> anyhow::Result<Duration> {
    let duration = humantime::parse_duration(text)?;
    if duration > GATHER_MAX {
        bail!("{text} is more than {}", humantime::format_duration(GATHER_MAX));
    }
    Ok(duration)
}

/// E.g. 4096, 512KiB, 1GiB.
fn bytes(text: &str) -> anyhow::Result<usize> {
    let digits = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => bail!("{unit:?} is not B, KiB, MiB or GiB"),
    };
    let number: usize = number.parse().context("wanted a number of bytes, e.g. 512MiB")?;
    number.checked_mul(1 << shift).with_context(|| format!("{text} is too much"))
}

fn port_range(text: &str) -> anyhow::Result<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').context("wanted FIRST-LAST, e.g. 20000-29999")?;
    let port = |text: &str| -> anyhow::Result<u16> {
        let port = text.trim().parse::<u16>().ok().filter(|it| *it > 0);
        port.with_context(|| format!("{text:?} is not a port from 1 to 65535"))
    };
    let (first, last) = (port(first)?, port(last)?);
    if port_pairs(&(first..=last)) == 0 {
        bail!("no pair of an even port and the odd one above it from {first} to {last}");
    }
    Ok(first..=last)
}

/// Even ports with the odd ones above them.
fn port_pairs(ports: &RangeInclusive<u16>) -> usize {
    (*ports.start()..*ports.end()).filter(|it| it % 2 == 0).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &[&str]) -> anyhow::Result<media::Config> {
        Args::try_parse_from([&["media-relay"], flags].concat())?.config()
    }

    #[test]
    fn the_manual_says_what_help_says() {
        e2e::manual::check("media-relay", <Args as clap::CommandFactory>::command());
    }

    #[test]
    fn flags_have_the_documented_defaults() {
        let args = Args::parse_from(["media-relay"]);
        assert_eq!(args.common.grpc.to_string(), "127.0.0.1:50052");
        assert_eq!(args.config().unwrap().rtp_ports, 20_000..=29_999);
        assert_eq!(args.audio_memory, 512 << 20);
        assert_eq!(args.config().unwrap().codecs, Codec::ALL);
    }

    #[test]
    fn sessions_are_at_most_as_many_as_port_pairs() {
        let sessions = |flags: &[&str]| config(flags).map(|it| it.sessions_max);
        assert_eq!(sessions(&[]).unwrap(), 5_000);
        assert_eq!(sessions(&["--rtp-ports", "20001-20006"]).unwrap(), 2);
        assert_eq!(sessions(&["--max-sessions", "5000"]).unwrap(), 5_000);
        for wrong in ["0", "5001"] {
            let error = sessions(&["--max-sessions", wrong]).unwrap_err().to_string();
            let wanted = "--rtp-ports 20000-29999 are 5000 pairs, one for each side of a session; \
                          give 1 to 5000, or more ports";
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn codecs_are_taken_in_the_order_of_the_flag() {
        let codecs = config(&["--codecs", "Opus,pcma"]).unwrap().codecs;
        assert_eq!(codecs, [Codec::Opus, Codec::Pcma]);
        let error = config(&["--codecs", "g729"]).unwrap_err().to_string();
        assert!(error.contains("[possible values: pcmu, pcma, g722, opus, l16, gsm]"), "{error}");
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_remedy() {
        let error = |flags: &[&str]| config(flags).unwrap_err().to_string();
        assert!(error(&["--rtp-address", "0.0.0.0"]).contains("give --advertise ADDR too"));
        assert!(error(&["--advertise", "::1"]).contains("one is IPv4, the other IPv6"));
        assert!(error(&["--inactivity", "2d"]).contains("2d is more than 1day"));
        assert!(error(&["--max-recording", "5h"]).contains("5h is not from 1s to 4h"));
        assert!(error(&["--port-quarantine", "999999999y"]).contains("is more than 1day"));
        assert!(error(&["--gather", "21ms"]).contains("21ms is more than 20ms"));
        assert!(error(&["--audio-memory", "5 TB"]).contains("is not B, KiB, MiB or GiB"));
        assert!(error(&["--rtp-ports", "20000"]).contains("wanted FIRST-LAST"));
        assert!(error(&["--rtp-ports", "20001-20002"]).contains("no pair"));
        assert!(error(&["--rtp-ports", "0-20"]).contains("not a port from 1 to 65535"));
    }
}
