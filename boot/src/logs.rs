//! Logs on stderr: for people on a terminal, JSON for machines.

use crate::{Common, LogFormat};
use anyhow::Context as _;
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// Starts logging. Standard output stays free for what a subcommand prints.
pub(crate) fn start(common: &Common) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&common.log).with_context(|| {
        format!("read --log {:?} (wanted e.g. `info,sip_edge=debug`)", common.log)
    })?;
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match common.log_format {
        LogFormat::Human => builder.with_ansi(terminal).init(),
        LogFormat::Auto if terminal => builder.init(),
        LogFormat::Auto | LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
