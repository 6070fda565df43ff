//! Music: how many listeners fill one core, how even it sounds at half of that, what one costs in
//! memory; and how many sessions are set up per second of processor time.

use crate::phones::{Outcome, Phones};
use crate::relays::{Ours, Ports, Rtpengine};
use anyhow::Context as _;
use e2e::audio::tune;
use e2e::bench::{Better, Report, Usage, resident_bytes};
use std::path::Path;
use std::time::Duration;

/// Listeners are added in such steps until a core is full.
const OUR_STEP: usize = 1_000;
const OUR_MAX: usize = 12_000;
const PEER_STEP: usize = 200;
const PEER_MAX: usize = 1_600;
/// Ports of a listener.
const PORTS_EACH: usize = 2;
const SETTLE: Duration = Duration::from_millis(1_500);
const SPAN: Duration = Duration::from_secs(3);
/// More than this of a core's time is a full core.
const FULL: f64 = 0.98;
/// Packets that must come; those of a frame may be on their way when a span ends.
const HEARD_MIN: f64 = 0.995;
const MUSIC_MS: u32 = 20_000;
/// Sessions that are set up, two sides each.
const SETUPS: usize = 2_000;

/// A number of listeners and what it took.
struct Step {
    listeners: usize,
    cores: f64,
    heard: Outcome,
}

impl Step {
    fn measure(
        phones: &mut Phones,
        name: &str,
        pid: u32,
        listeners: usize,
    ) -> anyhow::Result<Self> {
        phones.listen(listeners, SETTLE);
        let usage = Usage::of(pid)?;
        let heard = phones.listen(listeners, SPAN);
        let used = usage.cpu_since()?.as_secs_f64();
        let step = Self { listeners, cores: used / heard.seconds, heard };
        println!(
            "{name:>12} {listeners:>6} listeners {:>5.1} % CPU  heard {:.2} %  deviation p50 {:.2} \
             p99 {:.2} max {:.1} ms",
            100.0 * step.cores,
            100.0 * step.heard.received as f64 / step.heard.sent as f64,
            step.heard.quantile_ms(0.5),
            step.heard.quantile_ms(0.99),
            step.heard.quantile_ms(1.0),
        );
        Ok(step)
    }

    fn holds(&self) -> bool {
        self.cores < FULL && self.heard.received as f64 >= HEARD_MIN * self.heard.sent as f64
    }
}

/// The most listeners of steps that hold; between the last that does and the first that does not by
/// processor time, if both heard everything.
fn capacity(steps: &[Step]) -> f64 {
    let held = steps.iter().take_while(|it| it.holds()).last();
    held.map_or(0.0, |it| it.listeners as f64)
}

fn write_music(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder.join("moh"))?;
    tune(1, MUSIC_MS).write(&folder.join("moh/music.wav"))
}

pub(crate) async fn listeners(
    phones: &mut Phones,
    flags: &[String],
    ports: Ports,
    report: &mut Report,
) -> anyhow::Result<()> {
    let media = tempfile::tempdir()?;
    let ours_max = OUR_MAX.min(ports.ours / PORTS_EACH);
    write_music(media.path())?;
    let ours = Ours::start(media.path(), flags).await?;
    ours.play(0, 1, "moh/music.wav").await?; // The audio itself is shared.
    phones.listen(1, SETTLE);
    let mut steps: Vec<Step> = Vec::new();
    let mut listeners = 1;
    // After each step: what one listener more costs, not what the first packets and calls need.
    let mut resident: Vec<f64> = Vec::new();
    while listeners < ours_max && steps.last().is_none_or(Step::holds) {
        let more = listeners.next_multiple_of(OUR_STEP).max(listeners + OUR_STEP / 2);
        let more = more.min(ours_max);
        ours.play(listeners, more, "moh/music.wav").await?;
        listeners = more;
        let mut step = Step::measure(phones, "media-relay", ours.pid(), listeners)?;
        resident.push(resident_bytes(ours.pid())? as f64);
        if !step.holds() {
            step = Step::measure(phones, "media-relay", ours.pid(), listeners)?; // A hiccup?
        }
        steps.push(step);
    }
    drop(ours);
    phones.forget();
    let mut peer = Rtpengine::start()?;
    let mut peer_steps: Vec<Step> = Vec::new();
    let mut playing = 0;
    while playing < PEER_MAX && peer_steps.last().is_none_or(Step::holds) {
        peer.play(playing, playing + PEER_STEP, &media.path().join("moh/music.wav"))?;
        playing += PEER_STEP;
        let mut step = Step::measure(phones, "rtpengine", peer.pid(), playing)?;
        if !step.holds() {
            step = Step::measure(phones, "rtpengine", peer.pid(), playing)?;
        }
        peer_steps.push(step);
    }
    let (ours_max, peer_max) = (capacity(&steps), capacity(&peer_steps));
    report.compare(
        "moh_listeners_per_core",
        ours_max,
        "listeners",
        Better::Higher,
        ("rtpengine", peer_max),
    );
    let half = |steps: &[Step], max: f64| {
        let half = steps.iter().position(|it| it.listeners as f64 * 2.0 >= max);
        half.context("find who hears half of the most")
    };
    let (ours_half, peer_half) = (half(&steps, ours_max)?, half(&peer_steps, peer_max)?);
    let p99 = |step: &Step| step.heard.quantile_ms(0.99);
    let (ours_p99, peer_p99) = (p99(&steps[ours_half]), p99(&peer_steps[peer_half]));
    report.compare("moh_jitter_p99_ms", ours_p99, "ms", Better::Lower, ("rtpengine", peer_p99));
    // There too: what waits to be sent when a core is full is not a listener's.
    if ours_half > 0 {
        let more = steps[ours_half].listeners - steps[0].listeners;
        let bytes_each = (resident[ours_half] - resident[0]) / more as f64;
        report.add("moh_bytes_per_listener", bytes_each, "bytes");
    }
    Ok(())
}

/// Two-way sessions per second of processor time: Offer, Offer, Answer and Connect of ours, offer
/// and answer of rtpengine; U and L of ours.
pub(crate) async fn setup(flags: &[String], report: &mut Report) -> anyhow::Result<()> {
    let media = tempfile::tempdir()?;
    let ours = Ours::start(media.path(), flags).await?;
    ours.connect(SETUPS).await?; // The first ones also warm the process up.
    ours.delete(SETUPS).await?;
    let usage = Usage::of(ours.pid())?;
    ours.connect(SETUPS).await?;
    let ours_each = usage.cpu_since()?.as_secs_f64() / SETUPS as f64;
    ours.delete(SETUPS).await?;
    let mut client = ours.rtpproxy()?;
    client.connect(SETUPS)?;
    client.delete(SETUPS)?;
    let usage = Usage::of(ours.pid())?;
    client.connect(SETUPS)?;
    let by_rtpproxy_each = usage.cpu_since()?.as_secs_f64() / SETUPS as f64;
    drop(ours);
    let mut peer = Rtpengine::start()?;
    let usage = Usage::of(peer.pid())?;
    peer.connect(SETUPS)?;
    let peer_each = usage.cpu_since()?.as_secs_f64() / SETUPS as f64;
    println!("a two-way session: {:.0} µs, rtpengine {:.0} µs", ours_each * 1e6, peer_each * 1e6);
    let peer = ("rtpengine", 1.0 / peer_each);
    report.compare("setup_per_cpu_s", 1.0 / ours_each, "sessions/CPU-s", Better::Higher, peer);
    let by_rtpproxy = 1.0 / by_rtpproxy_each;
    let grpc = ("gRPC", 1.0 / ours_each);
    let (name, unit) = ("setup_by_rtpproxy_per_cpu_s", "sessions/CPU-s");
    report.compare(name, by_rtpproxy, unit, Better::Higher, grpc);
    // Each side has an offer and an answer of its own.
    report.add("setup_offer_answer_per_cpu_s", 2.0 / ours_each, "exchanges/CPU-s");
    Ok(())
}
