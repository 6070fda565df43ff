//! Scanners from one address, callers from another: the callers do not notice.

use anyhow::Context as _;
use e2e::{Process, QUEUE_USER, Scenario, Service, Sipp, Stack, Tally, USERS};
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

/// Where sipvicious is, whatever its flags say; by default, sip-edge trusts it.
const SCANNER: &str = "127.0.0.1";
const TRUSTED: &str = "127.0.0.9";
const CALLERS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const CALLS: u32 = 400;
const CALLS_PER_SECOND: u32 = 20;
const STAY_MS: u32 = 500;
/// How long a scan may take: it gives up when nobody answers any more.
const SCAN_LIMIT: Duration = Duration::from_secs(120);
/// Passwords that are tried before the right one.
const GUESSES: u32 = 3_000;
/// What sip-edge may grow by: its calls, but nothing for each of the scanner's messages.
const GROWTH_MAX_KIB: u64 = 32 * 1_024;

#[tokio::test(flavor = "multi_thread")]
async fn callers_do_not_notice_a_scanner_and_it_finds_nothing() -> anyhow::Result<()> {
    let stack = Stack::start_with(&["--trust", TRUSTED])?;
    stack.create_queue().await?;
    let warm_up = Scenario::caller(stack.sip(), QUEUE_USER, STAY_MS).from(CALLERS);
    let warm_up = Sipp::start(&warm_up.repeat(CALLS / 4, CALLS_PER_SECOND), None)?;
    tokio::task::spawn_blocking(|| warm_up.finish_without_failure()).await??;
    let before = resident_kib(&stack)?;

    let callers = Scenario::caller(stack.sip(), QUEUE_USER, STAY_MS).from(CALLERS);
    let callers = Sipp::start(&callers.repeat(CALLS, CALLS_PER_SECOND), None)?;
    let scanned = scan(&stack)?;
    let cracked = crack(&stack)?;
    let tally = tokio::task::spawn_blocking(|| callers.finish()).await??;

    assert_eq!(tally, Tally { successful: CALLS, failed: 0 });
    let (user, password) = USERS[0];
    assert!(!scanned.contains(user), "svwar has found a user:\n{scanned}");
    assert!(!cracked.contains(password), "svcrack has found a password:\n{cracked}");
    let output = stack.output(Service::SipEdge);
    let bans = output.lines().filter(|line| line.contains("banned a source"));
    let bans: Vec<_> = bans.collect();
    assert!(!bans.is_empty() && bans.iter().all(|line| line.contains(SCANNER)), "{bans:?}");
    let grown = resident_kib(&stack)?.saturating_sub(before);
    assert!(grown < GROWTH_MAX_KIB, "sip-edge has grown by {grown} KiB");
    stack.wait_clean().await?;
    stack.stop()
}

/// What svwar says that it has found, of extensions that exist and others.
fn scan(stack: &Stack) -> anyhow::Result<String> {
    let mut command = Command::new("svwar");
    command.args(["--force", "-e900-1100"]);
    command.args(["-p", &stack.sip().port().to_string(), "--maximumtime", "5", "127.0.0.1"]);
    run("svwar", &mut command)
}

/// What svcrack says that it has found, when the right password is the last that it would try.
fn crack(stack: &Stack) -> anyhow::Result<String> {
    let (user, password) = USERS[0];
    let words = (0..GUESSES).map(|guess| format!("guess{guess}\n")).collect::<String>();
    let file = stack.folder().join("passwords");
    std::fs::write(&file, words + password + "\n").context("write the passwords")?;
    let mut command = Command::new("svcrack");
    command.args(["-u", user, "-d"]).arg(file);
    command.args(["-p", &stack.sip().port().to_string(), "--maximumtime", "5", "127.0.0.1"]);
    run("svcrack", &mut command)
}

fn run(name: &str, command: &mut Command) -> anyhow::Result<String> {
    let mut process = Process::spawn(name, command)?;
    process.wait(SCAN_LIMIT)?;
    Ok(process.output())
}

fn resident_kib(stack: &Stack) -> anyhow::Result<u64> {
    let pid = stack.pid(Service::SipEdge).context("find sip-edge")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|it| it.split_whitespace().next()).context("read VmRSS")?;
    Ok(kib.parse()?)
}
