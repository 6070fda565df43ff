//! INVITE, 180, 200, ACK, BYE: what a call costs the core and a UDP socket, behind SIPp.

use crate::core::Core;
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use e2e::bench::{Report, Usage};
use e2e::{Process, Scenario, Sipp, Tally, free_port};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

const CALLS: u32 = 20_000;
const CALLS_PER_SECOND: u32 = 1_000;
const READY: &str = "serving";
const READY_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at the timers while nothing comes: far finer than SIP's shortest, T1 of 500 ms.
const TICK: Duration = Duration::from_millis(5);

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    let port = free_port()?;
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    let server = Process::spawn("bench-sip", command.args(["serve", &port.to_string()]))?;
    server.wait_for("that it serves", READY_LIMIT, |line| line.contains(READY).then_some(()))?;
    let usage = Usage::of(server.pid())?;
    let us = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let callers = Scenario::built_in_uac(us, "service", 0).repeat(CALLS, CALLS_PER_SECOND);
    let tally = Sipp::start(&callers, None)?.finish()?;
    let cpu = usage.cpu_since()?;
    ensure!(tally == Tally { successful: CALLS, failed: 0 }, "serve all calls: {tally:?}");
    report.add("uas_cpu_us_per_call", cpu.as_secs_f64() * 1e6 / f64::from(CALLS), "µs");
    Ok(())
}

/// Serves on a port of 127.0.0.1 until it is killed.
pub(crate) fn serve(port: u16) -> anyhow::Result<()> {
    let us = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let socket = UdpSocket::bind(us).context("bind a UDP port")?;
    socket.set_read_timeout(Some(TICK)).context("set a timeout")?;
    println!("{READY}");
    let mut core = Core::new(us, 1_000_000);
    let mut datagram = vec![0; 65_536];
    loop {
        let now = Instant::now();
        core.ua.handle_timeout(now);
        while let Some((peer, bytes)) = core.poll_sent(now) {
            socket.send_to(&bytes, peer).context("send")?;
        }
        match socket.recv_from(&mut datagram) {
            Ok((length, source)) => {
                let bytes = Bytes::copy_from_slice(&datagram[..length]);
                core.receive(Instant::now(), source, bytes);
            }
            Err(e) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&e.kind()) => (),
            Err(e) => return Err(e).context("receive"),
        }
    }
}
