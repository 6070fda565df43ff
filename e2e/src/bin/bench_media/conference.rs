//! A conference of fifty who all speak at the same time, of whom each hears the others.

use crate::phones::{Phones, TRAVEL};
use crate::relays::{Format, Ours};
use anyhow::ensure;
use e2e::bench::{Better, Report, Usage};
use std::time::Duration;

const PARTICIPANTS: usize = 50;
const PACKETS_PER_S: f64 = 50.0;
const SETTLE: Duration = Duration::from_millis(1_500);
const SPAN: Duration = Duration::from_secs(5);
/// Of the packets that should come.
const HEARD_MIN: f64 = 0.98;
const FORMATS: [(&str, Format); 2] = [("pcmu", Format::PCMU), ("g722", Format::G722)];

/// Cores that one mix takes.
pub(crate) async fn conference(
    phones: &mut Phones,
    flags: &[String],
    report: &mut Report,
) -> anyhow::Result<()> {
    let media = tempfile::tempdir()?;
    for (name, format) in FORMATS {
        let ours = Ours::start(media.path(), flags).await?;
        phones.send_to(ours.join(PARTICIPANTS, format).await?);
        phones.send_as(format.number);
        let rate = PARTICIPANTS as f64 * PACKETS_PER_S;
        phones.send_for(rate, SETTLE);
        let usage = Usage::of(ours.pid())?;
        let outcome = phones.send_for(rate, SPAN);
        let cores = usage.percent_since()? / 100.0;
        let wanted = (outcome.seconds + TRAVEL.as_secs_f64()) * rate;
        println!("conference in {name}: heard {} of {wanted:.0} packets", outcome.others);
        ensure!(outcome.others as f64 >= HEARD_MIN * wanted, "{name}: the mix has gaps");
        report.compare(
            &format!("conference_50_{name}_cores"),
            cores,
            "cores",
            Better::Lower,
            ("allowed", 1.0),
        );
    }
    phones.send_as(Format::PCMU.number);
    Ok(())
}
