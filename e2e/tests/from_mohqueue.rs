//! `docs/from-mohqueue.md` with Debian's Kamailio: its first configuration is one that Kamailio reads, its
//! second one sends calls to a stack on Kamailio's own tables, and every line for a shell does what the
//! page says.

use anyhow::Context as _;
use e2e::audio::{Codec, Reference, Wav, tune};
use e2e::document::{self, Step};
use e2e::kamailio::{self, QueueRow};
use e2e::{Account, Baresip, Kamailio, QUEUE, QUEUE_USER, Stack, free_port};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// How long a phone listens, and how much of it must be the source.
const LISTENING: Duration = Duration::from_millis(2_500);
const SPAN_MIN_MS: u64 = 1_500;
const LIKENESS_MIN: f64 = 0.98;
const LIMIT: Duration = Duration::from_secs(20);

fn phone(user: &str, proxy: SocketAddr, voice: &Wav) -> anyhow::Result<Baresip> {
    Baresip::start(&Account { user, registrar: proxy, password: None, codec: "pcma", voice })
}

/// Kamailio's tables, and mohqueue's music in their folder.
fn prepare(folder: &Path, uri: String, music: &Wav) -> anyhow::Result<()> {
    let mohdir = folder.join("media/MOH");
    std::fs::create_dir_all(&mohdir)?;
    let raw = Codec::Pcma.encode(&Reference::new(music).into_samples());
    std::fs::write(mohdir.join("test.pcm.8"), raw)?;
    let database = folder.join("queue.db");
    kamailio::create_tables(&database)?;
    QueueRow { name: QUEUE, uri, mohdir: Some(&mohdir), mohfile: "test.pcm" }.insert(&database)
}

fn assert_heard(who: &str, source: &Wav, heard: &[f32]) {
    let span = Reference::new(source).longest_span(heard);
    let is_it = span.correlation >= LIKENESS_MIN && span.duration_ms() >= SPAN_MIN_MS;
    assert!(is_it, "{who}: {span:?} of {} samples", heard.len());
}

/// The last id of a call in what was printed.
fn call_id(value: &Value) -> Option<String> {
    match value {
        Value::Object(fields) => match fields.get("callId") {
            Some(Value::String(id)) => Some(id.clone()),
            _ => fields.values().filter_map(call_id).next_back(),
        },
        Value::Array(values) => values.iter().filter_map(call_id).next_back(),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_brings_a_kamailio_over() -> anyhow::Result<()> {
    let steps = document::read("docs/from-mohqueue.md")?;
    let sip = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let (music, caller_s, agent_s) = (tune(1, 1_000), tune(2, 2_000), tune(3, 2_000));
    let queue_uri = format!("sip:{QUEUE_USER}@{sip}");
    let stack = Stack::start_prepared(&[], |folder| prepare(folder, queue_uri, &music))?;
    let mut agent = phone("1001", sip, &agent_s)?;
    let agent_at = agent.uri().rsplit('@').next().context("no address")?.to_owned();
    let here = |text: &str| {
        let database = stack.folder().join("queue.db").display().to_string();
        let mohdir = stack.folder().join("media/MOH").display().to_string();
        let text = document::with_ports(text, stack.ports());
        text.replace("192.0.2.10:5060", &sip.to_string())
            .replace("192.0.2.20:5060", &stack.sip().to_string())
            .replace("192.0.2.31:5060", &agent_at)
            .replace("/etc/kamailio/kamailio.sqlite", &database)
            .replace("/var/kamailio/MOH", &mohdir)
    };
    let configurations = steps.iter().filter_map(|step| match step {
        Step::Block(language, text) if language == "kamailio" => Some(here(text)),
        _ => None,
    });
    let configurations: Vec<String> = configurations.collect();
    let [before, after] = &configurations[..] else {
        anyhow::bail!("wanted two configurations, got {}", configurations.len())
    };
    Kamailio::check(before)?;
    let kamailio = Kamailio::start_by(after, sip)?;
    let mut caller = phone("caller", sip, &caller_s)?;

    let mut last_call = String::new();
    for step in &steps {
        match step {
            Step::Block(..) => (),
            Step::Shell(script) => {
                let printed = script.run(here, &[("CALL_ID", &last_call)])?;
                last_call = printed.iter().filter_map(call_id).next_back().unwrap_or(last_call);
            }
            Step::Phone(action) => match action.as_str() {
                "the caller calls 1008" => {
                    caller.dial(&kamailio.uri(QUEUE_USER))?;
                    stack.wait_waiting(1).await?;
                }
                "the agent hangs up" => {
                    agent.wait_answered()?;
                    assert!(agent.wait_closed(LISTENING).is_err(), "hung up while talking");
                    agent.hang_up()?;
                    caller.wait_closed(LIMIT)?;
                }
                "the caller waits again" => drop(stack.wait_waiting(1).await?),
                "the caller is hung up" => caller.wait_closed(LIMIT)?,
                other => anyhow::bail!("this test does not know how to do {other:?}"),
            },
        }
    }
    stack.wait_clean().await?;

    // What is left of the functions in the configuration itself.
    caller.dial(&kamailio.uri("help"))?;
    stack.wait_waiting(1).await?;
    let count = kamailio.ask("count")?;
    assert!(count.starts_with("SIP/2.0 200 1\r\n"), "{count}");
    assert!(caller.wait_closed(LISTENING).is_err(), "hung up in the queue");
    let next = kamailio.ask("next")?;
    assert!(next.starts_with("SIP/2.0 200 "), "{next}");
    agent.wait_answered()?;
    stack.wait_waiting(0).await?;
    caller.hang_up()?;
    agent.wait_closed(LIMIT)?;
    stack.wait_clean().await?;
    agent.stop()?;
    caller.stop()?;
    assert_heard("the agent, at the caller", &agent_s, &caller.heard(0)?);
    assert_heard("the caller, at the agent", &caller_s, &agent.heard(0)?);
    assert_heard("music of mohqueue's file", &music, &caller.heard_last()?);
    stack.stop()
}
