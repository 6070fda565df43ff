//! `cargo xtask COMMAND`: what one does with this repository beside editing it.

mod bench;
mod cargo;
mod debian;
mod demo;
mod images;
mod links;
mod schemas;
mod supply;
mod test;
mod tools;
mod up;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Runs, shows and tests Holdfast on this machine")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts nats-server and the four services on loopback; Ctrl-C stops them.
    ///
    /// Default ports; databases, events, dial plan and media in target/up, kept from run to run.
    Up,
    /// Runs both jobs with phones that are not ours, and says of each step what was seen.
    ///
    /// What the callers heard is in target/demo, beside its source. Fails if a step did not hold.
    Demo,
    /// Formatting, lints, tidiness, all tests, docs, and the demo; the last line counts them.
    Test,
    /// Measures beside a peer or a ceiling, in release; prints a table, writes target/bench/NAME.json.
    ///
    /// The machine should do nothing else meanwhile.
    Bench {
        name: bench::Bench,
        /// Parts of it, by name; all if none. An unknown name lists them.
        parts: Vec<String>,
    },
    /// Builds the four container images in target/images, without a daemon and without a registry.
    Images {
        /// Of debug builds: what tests do.
        #[arg(long)]
        debug: bool,
    },
    /// Licences, duplicates and sources of what we depend on, by deny.toml; writes target/sbom.json.
    Supply,
    /// Builds what Debian does not have (grpcurl, helm, kubeconform, compose) in target/tools.
    Tools,
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Up => up::run(),
        Command::Demo => demo::run(),
        Command::Test => test::run(),
        Command::Bench { name, parts } => bench::run(name, &parts),
        Command::Images { debug } => images::run(debug),
        Command::Supply => supply::run(),
        Command::Tools => tools::run(),
    };
    match done {
        Ok(code) => code,
        Err(e) => {
            eprintln!("failed to {e:#}");
            ExitCode::FAILURE
        }
    }
}
