//! The last resort against processes left behind: a small shell that outlives us for a moment.
//!
//! It reads the process ids of our children from a pipe that only we hold. When the pipe closes,
//! because we ended in whatever way (also by SIGKILL, where no destructor runs), it kills those that
//! are still on its list.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{LazyLock, Mutex};

/// `+PID` begins to watch a process, `-PID` stops it, because it was waited for.
const SCRIPT: &str = r#"
    list=" "
    while read -r line; do
        pid=${line#?}
        case $line in
            +*) list="$list$pid " ;;
            -*) case $list in *" $pid "*) list="${list%% $pid *} ${list#* $pid }" ;; esac ;;
        esac
    done
    for pid in $list; do kill -9 "$pid"; done 2>/dev/null
"#;

static REAPER: LazyLock<Mutex<Option<ChildStdin>>> = LazyLock::new(|| {
    let shell = Command::new("sh")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0) // Ctrl-C is for us; the reaper acts when we are gone.
        .spawn();
    Mutex::new(shell.ok().and_then(|mut shell| shell.stdin.take()))
});

/// Kills `child` once this process is gone, unless [`forget`] is called before.
pub(crate) fn watch(child: &Child) {
    tell('+', child.id());
}

/// To be called before `pid` can be given to another process, that is before it is waited for.
pub(crate) fn forget(pid: u32) {
    tell('-', pid);
}

fn tell(sign: char, pid: u32) {
    let mut reaper = REAPER.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(pipe) = reaper.as_mut() {
        let _ = writeln!(pipe, "{sign}{pid}"); // Without a reaper, dropping still kills.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_watched_processes_are_killed_when_the_pipe_closes() {
        let sleeper = || Command::new("sleep").arg("60").spawn().unwrap();
        let (mut kept, mut left) = (sleeper(), sleeper());
        let mut shell =
            Command::new("sh").args(["-c", SCRIPT]).stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = shell.stdin.take().unwrap();
        writeln!(pipe, "+{}\n+{}\n-{}", kept.id(), left.id(), kept.id()).unwrap();
        drop(pipe);
        assert!(shell.wait().unwrap().success());
        assert!(!left.wait().unwrap().success());
        assert!(kept.try_wait().unwrap().is_none(), "the forgotten one was killed too");
        kept.kill().unwrap();
        kept.wait().unwrap();
    }
}
