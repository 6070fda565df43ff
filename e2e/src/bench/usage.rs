//! What a process has cost so far: CPU time and memory, as Linux counts them.

use anyhow::{Context as _, bail};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// A moment in the life of a process, to be compared with a later one.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pid: u32,
    at: Instant,
    cpu: Duration,
}

impl Usage {
    /// What process `pid` has used until now: user and system time of all its threads, to the clock
    /// tick (10 ms). Children count only once they were waited for.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let stat = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let ticks = ticks(&stat).with_context(|| format!("find CPU times in {stat:?}"))?;
        let cpu = Duration::from_secs_f64(ticks as f64 / *TICKS_PER_S);
        Ok(Self { pid, at: Instant::now(), cpu })
    }

    /// CPU time since then.
    pub fn cpu_since(&self) -> anyhow::Result<Duration> {
        Ok(Self::of(self.pid)?.cpu.saturating_sub(self.cpu))
    }

    /// Percent of one core since then.
    pub fn percent_since(&self) -> anyhow::Result<f64> {
        let now = Self::of(self.pid)?;
        let elapsed = now.at - self.at;
        Ok(100.0 * now.cpu.saturating_sub(self.cpu).as_secs_f64() / elapsed.as_secs_f64())
    }
}

/// `_SC_CLK_TCK`.
static TICKS_PER_S: LazyLock<f64> = LazyLock::new(|| {
    let output = Command::new("getconf").arg("CLK_TCK").output().ok();
    let text = output.and_then(|output| String::from_utf8(output.stdout).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(100.0)
});

/// Fields 14 and 15 of proc(5); the name in field 2 may have spaces and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// `VmRSS` of process `pid`: what it has in memory, shared pages included.
///
/// # Errors
/// If there is no such process.
pub fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let Some(kib) = line.and_then(|it| it.trim().strip_suffix(" kB")) else {
        bail!("find VmRSS in {path}");
    };
    Ok(1024 * kib.trim().parse::<u64>().with_context(|| format!("read VmRSS {kib:?}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_memory_are_seen() {
        let (before, pid) = (Usage::of(std::process::id()).unwrap(), std::process::id());
        let resident_before = resident_bytes(pid).unwrap();
        let filled = std::hint::black_box(vec![1_u8; 64 << 20]);
        while before.cpu_since().unwrap() < Duration::from_millis(30) {
            std::hint::black_box(filled.iter().step_by(4096).map(|it| u64::from(*it)).sum::<u64>());
        }
        assert!(before.percent_since().unwrap() > 0.0);
        assert!(resident_bytes(pid).unwrap() >= resident_before + (60 << 20));
    }

    #[test]
    fn a_name_with_brackets_and_spaces_moves_no_field() {
        let stat = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 40 2 0 0 20 0";
        assert_eq!(ticks(stat), Some(42));
    }
}
