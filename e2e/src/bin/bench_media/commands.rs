//! How many commands of the rtpproxy protocol are done in a second, kind by kind.

use crate::phones::Phones;
use crate::relays::Ours;
use crate::rtpproxy::{Client, WINDOW};
use anyhow::ensure;
use e2e::audio::{Codec, Reference, tune};
use e2e::bench::{Better, Report, Usage};
use std::time::{Duration, Instant};

/// Sessions of a round, with four ports each; of each kind there is a command for each of them.
const SESSIONS: usize = 5_000;
const ROUNDS: usize = 3;
/// A raw file, as mohqueue has them.
const MUSIC_MS: u32 = 5_000;
/// What is wanted of each kind.
const WANTED_PER_S: f64 = 10_000.0;

/// Commands of one kind, and how long they took.
struct Kind {
    letter: char,
    done: usize,
    took: Duration,
}

impl Kind {
    /// Has all of `lines` done, each of which must succeed.
    fn ask(&mut self, client: &mut Client, lines: Vec<String>) -> anyhow::Result<()> {
        let started = Instant::now();
        let replies = client.ask(&lines)?;
        self.took += started.elapsed();
        self.done += lines.len();
        let refused = lines.iter().zip(&replies).find(|(_, it)| it.starts_with('E'));
        ensure!(refused.is_none(), "do a command: {refused:?}");
        Ok(())
    }
}

/// As fast as they are answered, [`WINDOW`] under way: the relay has one processor, the client the
/// other.
pub(crate) async fn commands(flags: &[String], report: &mut Report) -> anyhow::Result<()> {
    let media = tempfile::tempdir()?;
    let music = Codec::Pcmu.encode(&Reference::new(&tune(1, MUSIC_MS)).into_samples());
    std::fs::write(media.path().join("music.0"), music)?;
    let ours = Ours::start(media.path(), flags).await?;
    let mut client = ours.rtpproxy()?;
    let kind = |letter| Kind { letter, done: 0, took: Duration::ZERO };
    let mut kinds = ['V', 'U', 'L', 'Q', 'P', 'S', 'D'].map(kind);
    let all = |line: &dyn Fn(usize) -> String| (0..SESSIONS).map(line).collect::<Vec<_>>();
    let (relay, own) = (Usage::of(ours.pid())?, Usage::of(std::process::id())?);
    for _ in 0..ROUNDS {
        let [v, u, l, q, p, s, d] = &mut kinds;
        v.ask(&mut client, all(&|_| "V".to_owned()))?;
        u.ask(&mut client, all(&|it| place('U', it, 2 * it, "a;1")))?;
        l.ask(&mut client, all(&|it| place('L', it, 2 * it + 1, "a;1 b;1")))?;
        q.ask(&mut client, all(&|it| format!("Q call-{it} a;1 b;1")))?;
        // A few at a time: what is asked for here is commands, not music.
        for first in (0..SESSIONS).step_by(WINDOW) {
            let some = first..(first + WINDOW).min(SESSIONS);
            let play = |it| format!("P-1 call-{it} music session a;1 b;1");
            p.ask(&mut client, some.clone().map(play).collect())?;
            s.ask(&mut client, some.map(|it| format!("S call-{it} a;1 b;1")).collect())?;
        }
        d.ask(&mut client, all(&|it| format!("D call-{it} a b")))?;
    }
    let percent = [relay.percent_since()?, own.percent_since()?];
    println!("commands: {:.0} % of a core in the relay, {:.0} % here", percent[0], percent[1]);
    for Kind { letter, done, took } in kinds {
        let name = format!("rtpproxy_{}_per_s", letter.to_ascii_lowercase());
        let value = done as f64 / took.as_secs_f64();
        report.compare(&name, value, "commands/s", Better::Higher, ("wanted", WANTED_PER_S));
    }
    Ok(())
}

/// `U` or `L` of a phone.
pub(crate) fn place(letter: char, session: usize, phone: usize, tags: &str) -> String {
    let at = Phones::address(phone);
    format!("{letter}c0,101 call-{session} {} {} {tags}", at.ip(), at.port())
}
