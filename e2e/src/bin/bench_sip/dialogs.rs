//! What a dialog takes that stands and is idle, in a process that has nothing else.

use crate::core::Core;
use crate::invite::invite;
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use e2e::bench::{Report, resident_bytes};
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

const DIALOGS: usize = 100_000;
/// No transaction outlives this: 64·T1, and T4 for those that absorb.
const SETTLED: Duration = Duration::from_secs(40);

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("find this program")?;
    let output = Command::new(own).args(["hold", &DIALOGS.to_string()]).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "hold dialogs: {}", String::from_utf8_lossy(&output.stderr));
    let bytes: f64 = said.trim().parse().with_context(|| format!("read {said:?}"))?;
    report.add("bytes_per_idle_dialog", bytes, "B");
    Ok(())
}

/// Prints the bytes of resident memory for each of `count` dialogs, an allocator's slack included.
pub(crate) fn hold(count: usize) -> anyhow::Result<()> {
    let (us, phone): (SocketAddr, SocketAddr) =
        ("198.51.100.1:5060".parse()?, "203.0.113.10:5060".parse()?);
    let mut core = Core::new(us, count);
    let before = resident_bytes(std::process::id())?;
    let mut now = Instant::now();
    for nth in 0..count {
        now += Duration::from_millis(1);
        let invite = invite(nth);
        core.receive(now, phone, invite.clone().into());
        let mut answer = None;
        while let Some((_, bytes)) = core.poll_sent(now) {
            answer = Some(bytes);
        }
        let answer = answer.context("be answered")?;
        core.receive(now, phone, ack(&invite, &answer)?);
        while let Some(at) = core.ua.poll_timeout().filter(|at| *at <= now) {
            core.ua.handle_timeout(at.max(now));
        }
        while core.poll_sent(now).is_some() {}
    }
    let end = now + SETTLED;
    while let Some(at) = core.ua.poll_timeout().filter(|at| *at <= end) {
        core.ua.handle_timeout(at);
        while core.poll_sent(at).is_some() {}
    }
    ensure!(core.ua.dialogs() == count, "hold {count} dialogs: {} stand", core.ua.dialogs());
    ensure!(core.ua.transactions() == 0, "{} transactions are left", core.ua.transactions());
    let after = resident_bytes(std::process::id())?;
    println!("{}", after.saturating_sub(before) as f64 / count as f64);
    Ok(())
}

/// The ACK of the 200 that `answer` is.
fn ack(invite: &str, answer: &Bytes) -> anyhow::Result<Bytes> {
    let answer = std::str::from_utf8(answer)?;
    ensure!(answer.starts_with("SIP/2.0 200"), "be answered 200, not {answer}");
    let line = |text: &str, name: &str| -> anyhow::Result<String> {
        let found = text.lines().find(|line| line.starts_with(name));
        Ok(found.with_context(|| format!("find {name}"))?.to_owned())
    };
    let via = line(invite, "Via")?.replace("branch=z9hG4bK", "branch=z9hG4bKack");
    let contact = line(answer, "Contact")?;
    let target = contact.split(['<', '>']).nth(1).context("find a target")?;
    let [from, to, call_id] = ["From", "To", "Call-ID"].map(|name| line(answer, name));
    let (from, to, call_id) = (from?, to?, call_id?);
    let ack = format!(
        "ACK {target} SIP/2.0\r\n{via}\r\nMax-Forwards: 70\r\n{from}\r\n{to}\r\n{call_id}\r\n\
         CSeq: 102 ACK\r\nContent-Length: 0\r\n\r\n"
    );
    Ok(ack.into())
}
