//! Relaying: packets per second of processor time, the load at which loss begins, added delay.

use crate::phones::{Outcome, Phones};
use crate::relays::{Ceiling, Ours, Ports, Rtpengine};
use e2e::bench::{Better, Report, Usage};
use std::time::Duration;

const WARM_UP: Duration = Duration::from_millis(1_000);
const SPAN: Duration = Duration::from_secs(3);
/// Each is measured so often, in turn with the others: of a shared machine one span says little.
const ROUNDS: usize = 3;
const MARGIN_ROUNDS: usize = 5;
/// Sessions, and packets per second of all of them: 1,000 phones' worth of 50 each way. 5,000 would
/// be 500,000, which no process reaches here, so that they send a fifth of that.
const LOADS: [(usize, f64); 2] = [(1_000, 100_000.0), (5_000, 100_000.0)];
/// Ports of a two-way session.
const PORTS_EACH: usize = 4;
/// The search for the load at which packets are lost.
const SEARCH_SESSIONS: usize = 1_000;
const SEARCH_FROM: f64 = 60_000.0;
const SEARCH_STEP: f64 = 15_000.0;
const SEARCH_TO: f64 = 300_000.0;
const SEARCH_SPAN: Duration = Duration::from_secs(2);
/// Lost of all, above which a load is too much: a hiccup of a shared machine is not the relay's.
const LOSS_MAX: f64 = 0.0005;
/// The phones themselves do not keep up below this share of what they should send.
const OFFERED_MIN: f64 = 0.97;
/// Of the ceiling's last load without loss, where ours must not lose either.
const MARGIN: f64 = 0.9;

/// What a relay did at one load.
struct Measured {
    outcome: Outcome,
    cpu: Duration,
}

impl Measured {
    fn packets_per_cpu_s(&self) -> f64 {
        self.outcome.received as f64 / self.cpu.as_secs_f64()
    }

    /// Prints it; returns packets per second of processor time.
    fn print(&self, name: &str, sessions: usize) -> f64 {
        let it = &self.outcome;
        println!(
            "{name:>12} {sessions:>6} sessions {:>8.0}/s  {:>8.0} packets/CPU-s  {:>5.1} % CPU  \
             lost {:>6} of {}  p50 {:.2} p99 {:.2} max {:.1} ms",
            it.rate(),
            self.packets_per_cpu_s(),
            100.0 * self.cpu.as_secs_f64() / it.seconds,
            it.lost(),
            it.sent,
            it.quantile_ms(0.5),
            it.quantile_ms(0.99),
            it.quantile_ms(1.0),
        );
        self.packets_per_cpu_s()
    }

    fn lost_percent(&self) -> f64 {
        100.0 * self.outcome.lost() as f64 / self.outcome.sent as f64
    }
}

fn measure(phones: &mut Phones, pid: u32, rate: f64) -> anyhow::Result<Measured> {
    phones.send_for(rate, WARM_UP);
    let usage = Usage::of(pid)?;
    let outcome = phones.send_for(rate, SPAN);
    Ok(Measured { outcome, cpu: usage.cpu_since()? })
}

/// How sessions of ours are set up, and packets moved.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Grpc,
    Rtpproxy,
    /// By gRPC, on the packet path that needs no privileges.
    Plain,
}

impl Way {
    const ALL: [Self; 3] = [Self::Grpc, Self::Rtpproxy, Self::Plain];

    fn name(self) -> &'static str {
        match self {
            Self::Grpc => "media-relay",
            Self::Rtpproxy => "by rtpproxy",
            Self::Plain => "plain",
        }
    }

    async fn measure(
        self,
        phones: &mut Phones,
        flags: &[String],
        sessions: usize,
        rate: f64,
    ) -> anyhow::Result<f64> {
        let media = tempfile::tempdir()?;
        let plain = ["--packet-path".to_owned(), "plain".to_owned()];
        let ours = match self {
            Self::Plain => Ours::start(media.path(), &plain).await?,
            Self::Grpc | Self::Rtpproxy => Ours::start(media.path(), flags).await?,
        };
        phones.send_to(match self {
            Self::Rtpproxy => ours.rtpproxy()?.connect(sessions)?,
            Self::Grpc | Self::Plain => ours.connect(sessions).await?,
        });
        let measured = measure(phones, ours.pid(), rate)?;
        println!("{:>12} packet path {}", "", ours.packet_path());
        Ok(measured.print(self.name(), sessions))
    }
}

/// Packets per second of processor time at equal loads, of all three; of ours also with sessions that
/// were set up by the rtpproxy protocol, and on the path that needs no privileges.
pub(crate) async fn efficiency(
    phones: &mut Phones,
    flags: &[String],
    ports: Ports,
    report: &mut Report,
) -> anyhow::Result<()> {
    for (sessions, rate) in LOADS {
        let ours_sessions = sessions.min(ports.ours / PORTS_EACH);
        let peer_sessions = sessions.min(ports.peer / PORTS_EACH);
        let [mut of_ceiling, mut of_peer] = [Vec::new(), Vec::new()];
        let mut of_ours = Way::ALL.map(|_| Vec::new());
        for _ in 0..ROUNDS {
            let ceiling = Ceiling::start()?;
            phones.send_to(ceiling.connect(sessions));
            let measured = measure(phones, ceiling.pid(), rate)?;
            drop(ceiling);
            of_ceiling.push(measured.print("ceiling", sessions));
            for (way, figures) in Way::ALL.into_iter().zip(&mut of_ours) {
                let sessions = if way == Way::Plain { peer_sessions } else { ours_sessions };
                figures.push(way.measure(phones, flags, sessions, rate).await?);
            }
            let mut peer = Rtpengine::start()?;
            phones.send_to(peer.connect(peer_sessions)?);
            let measured = measure(phones, peer.pid(), rate)?;
            drop(peer);
            of_peer.push(measured.print("rtpengine", peer_sessions));
        }
        let suffix = if sessions == LOADS[0].0 { String::new() } else { format!("_{sessions}") };
        let [ours, by_rtpproxy, plain] = of_ours.map(median);
        let (peer, ceiling) = (("rtpengine", median(of_peer)), ("forwarder", median(of_ceiling)));
        for (name, value, peer) in [
            ("relay_vs_rtpengine", ours, peer),
            ("relay_vs_ceiling", ours, ceiling),
            ("relay_by_rtpproxy", by_rtpproxy, ("gRPC", ours)),
            ("relay_plain_vs_rtpengine", plain, peer),
            ("relay_plain_vs_ceiling", plain, ceiling),
        ] {
            let name = format!("{name}{suffix}");
            report.compare(&name, value, "packets/CPU-s", Better::Higher, peer);
        }
    }
    Ok(())
}

/// The middle one; of an even number, the greater of the two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The highest load without loss, of the ceiling, of ours and of rtpengine; and what ours adds at
/// 0.9 of the ceiling's.
pub(crate) async fn loss(
    phones: &mut Phones,
    flags: &[String],
    report: &mut Report,
) -> anyhow::Result<()> {
    let media = tempfile::tempdir()?;
    let ceiling = Ceiling::start()?;
    let to_ceiling = ceiling.connect(SEARCH_SESSIONS);
    phones.send_to(to_ceiling.iter().copied());
    let ceiling_rate = search(phones, "ceiling");
    let margin = ceiling_rate * MARGIN;
    let ours = Ours::start(media.path(), flags).await?;
    let to_ours = ours.connect(SEARCH_SESSIONS).await?;
    let [mut ceiling_there, mut ours_there] = [Vec::new(), Vec::new()];
    for _ in 0..MARGIN_ROUNDS {
        phones.send_to(to_ceiling.iter().copied());
        let measured = measure(phones, ceiling.pid(), margin)?;
        measured.print("ceiling", SEARCH_SESSIONS);
        ceiling_there.push(measured);
        phones.send_to(to_ours.iter().copied());
        let measured = measure(phones, ours.pid(), margin)?;
        measured.print("media-relay", SEARCH_SESSIONS);
        ours_there.push(measured);
    }
    drop(ceiling);
    let ours_rate = search(phones, "media-relay");
    drop(ours);
    let mut peer = Rtpengine::start()?;
    phones.send_to(peer.connect(SEARCH_SESSIONS)?);
    let peer_rate = search(phones, "rtpengine");
    report.compare(
        "relay_lossless_rate",
        ours_rate,
        "packets/s",
        Better::Higher,
        ("forwarder", ceiling_rate),
    );
    report.compare(
        "relay_lossless_vs_rtpengine",
        ours_rate,
        "packets/s",
        Better::Higher,
        ("rtpengine", peer_rate),
    );
    let middle = |all: &[Measured], of: fn(&Measured) -> f64| median(all.iter().map(of).collect());
    let lost = |all| middle(all, Measured::lost_percent);
    let (ours_lost, ceiling_lost) = (lost(&ours_there), lost(&ceiling_there));
    report.compare(
        "relay_loss_at_0_9_percent",
        ours_lost,
        "%",
        Better::Lower,
        ("forwarder", ceiling_lost),
    );
    let p99 = |all| middle(all, |it| it.outcome.quantile_ms(0.99));
    let (ours_p99, ceiling_p99) = (p99(&ours_there), p99(&ceiling_there));
    report.compare("relay_added_p99_ms", ours_p99, "ms", Better::Lower, ("forwarder", ceiling_p99));
    Ok(())
}

/// The last load of the steps at which less than [`LOSS_MAX`] is lost; a step is tried twice.
fn search(phones: &mut Phones, name: &str) -> f64 {
    let mut lossless = 0.0;
    let mut rate = SEARCH_FROM;
    while rate <= SEARCH_TO {
        let passes = (0..2).any(|_| {
            let outcome = phones.talk(rate, SEARCH_SPAN / 4, SEARCH_SPAN);
            let lost = outcome.lost() as f64 / outcome.sent as f64;
            let offered = outcome.rate() / rate;
            println!(
                "{name:>12} {rate:>8.0}/s: lost {:.3} %, offered {:.0} %, p99 {:.2} ms",
                100.0 * lost,
                100.0 * offered,
                outcome.quantile_ms(0.99)
            );
            lost <= LOSS_MAX && offered >= OFFERED_MIN
        });
        if !passes {
            break;
        }
        lossless = rate;
        rate += SEARCH_STEP;
    }
    lossless
}
