//! Parsing an INVITE and reading the headers that every request must have, beside rsip.

use crate::invite::invite;
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use e2e::bench::{Better, Percentiles, Report};
use rsip::prelude::*;
use sip::{Envelope, Message, Name, NameAddr};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Both take turns, so that whatever disturbs the machine disturbs both.
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(300);
/// Between two looks at the clock.
const BATCH: u32 = 100;

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    let message = Bytes::from(invite(1));
    ensure!((1_150..1_300).contains(&message.len()), "an INVITE of {} bytes", message.len());
    ensure!(ours(&message) == theirs(&message)?, "both read the same");
    let (mut our_rates, mut their_rates) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        our_rates.push(per_second(|| drop(black_box(ours(black_box(&message))))));
        their_rates.push(per_second(|| drop(black_box(theirs(black_box(&message))))));
    }
    let median = |rates| Percentiles::new(rates).at(50.0);
    let (ours, theirs) = (median(our_rates), median(their_rates));
    report.compare("parse_and_headers_per_s", ours, "1/s", Better::Higher, ("rsip", theirs));
    Ok(())
}

/// Call-ID, CSeq, tag of From, host of the Contact, and Max-Forwards.
type Read = (String, u32, String, String, u32);

fn ours(message: &Bytes) -> Option<Read> {
    let Message::Request(request) = Message::parse(message.clone()).ok()? else { return None };
    let envelope = Envelope::of_request(&request).ok()?;
    black_box((&envelope.via, &envelope.to));
    let contact = NameAddr::parse(request.headers.get(Name::Contact)?)?;
    let contact = sip::SipUri::parse(contact.uri).ok()?;
    Some((
        envelope.call_id.to_owned(),
        envelope.cseq,
        envelope.from.tag()?.to_owned(),
        contact.host.to_string(),
        request.headers.get(Name::MaxForwards)?.parse().ok()?,
    ))
}

fn theirs(message: &Bytes) -> anyhow::Result<Option<Read>> {
    let request = rsip::Request::try_from(message.as_ref()).context("read it with rsip")?;
    let from = request.from_header()?.typed()?;
    let contact = request.contact_header()?.typed()?;
    black_box((request.via_header()?.typed()?, request.to_header()?.typed()?));
    let tag = from.tag().context("find the tag")?.value().to_owned();
    Ok(Some((
        request.call_id_header()?.value().to_owned(),
        request.cseq_header()?.typed()?.seq,
        tag,
        contact.uri.host_with_port.to_string(),
        request.max_forwards_header()?.num()?,
    )))
}

fn per_second(mut once: impl FnMut()) -> f64 {
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed() < ROUND {
        (0..BATCH).for_each(|_| once());
        count += BATCH;
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}
