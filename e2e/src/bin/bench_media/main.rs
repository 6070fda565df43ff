//! `cargo xtask bench media`: media-relay beside rtpengine in user space and beside the machine's
//! own ceiling, a bare recvmmsg and sendmmsg forwarder without a table, all in one run.
//!
//! Its first word is the report to write. The words after it, up to `--`, choose parts (setup,
//! commands, conference, relay, loss, music; none: all); what follows `--` are more flags for media-relay.
//! `forward ADDR:PORT` is the ceiling itself. The relays run on processor 0, the phones of the
//! benchmark on processor 1; without a second one nothing here means anything.

mod batch;
mod commands;
mod conference;
mod music;
mod ng;
mod phones;
mod relays;
mod rtpproxy;
mod talk;

use anyhow::{Context as _, bail};
use e2e::bench::Report;
use phones::Phones;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::ExitCode;

const PARTS: [&str; 6] = ["setup", "commands", "conference", "relay", "loss", "music"];
/// Sockets of 5,000 sessions and 10,000 listeners, and room.
const FILES_MAX: u64 = 100_000;
/// Kernel buffer of the ceiling: as large as it likes.
const FORWARDER_BUFFER_BYTES: i32 = 16 << 20;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("failed to {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [first, to] = &words[..]
        && first == "forward"
    {
        let socket = UdpSocket::bind("127.0.0.1:0").context("bind")?;
        batch::enlarge(&socket, FORWARDER_BUFFER_BYTES).context("enlarge a buffer")?;
        println!("listening on {}", socket.local_addr()?);
        return batch::forward(&socket, to.parse().context("read ADDR:PORT")?).context("forward");
    }
    let mut words = words.into_iter();
    let path = PathBuf::from(words.next().context("know where to write the report")?);
    let parts: Vec<String> = words.by_ref().take_while(|it| it != "--").collect();
    let flags: Vec<String> = words.collect();
    if let Some(part) = parts.iter().find(|it| !PARTS.contains(&it.as_str())) {
        bail!("measure {part:?}: wanted some of {}", PARTS.join(", "));
    }
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|it| it == part);
    let files = usize::try_from(batch::allow_files(FILES_MAX)).unwrap_or(usize::MAX);
    let ports = relays::Ports::new(files, &flags);
    batch::pin(1).context("have processor 1 for the phones")?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let mut phones = Phones::new()?;
        let mut report = Report::default();
        if wanted("setup") {
            music::setup(&flags, &mut report).await?;
        }
        if wanted("commands") {
            commands::commands(&flags, &mut report).await?;
        }
        if wanted("conference") {
            conference::conference(&mut phones, &flags, &mut report).await?;
        }
        if wanted("relay") {
            talk::efficiency(&mut phones, &flags, ports, &mut report).await?;
        }
        if wanted("loss") {
            talk::loss(&mut phones, &flags, &mut report).await?;
        }
        if wanted("music") {
            music::listeners(&mut phones, &flags, ports, &mut report).await?;
        }
        report.finish(&path)
    })
}
