//! Debian's Kamailio with its own rtpproxy and mohqueue modules, and our relay in rtpproxy's place.

use e2e::audio::{Codec, Reference, Wav, tune};
use e2e::{Account, Baresip, Kamailio, Process, binary};
use proto::media_relay::v1::QueryRequest;
use proto::media_relay::v1::media_relay_client::MediaRelayClient;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tonic::transport::Endpoint;

const READY_LIMIT: Duration = Duration::from_secs(20);
/// How long a phone listens, over several seams of the loop, and how much of it must be the source.
const LISTENING: Duration = Duration::from_millis(3_500);
const SPAN_MIN_MS: u64 = 2_500;
const LIKENESS_MIN: f64 = 0.98;

struct Relay {
    process: Process,
    grpc: String,
    rtpproxy: SocketAddr,
}

impl Relay {
    fn start(media: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(binary("media-relay")?);
        command.args(["--grpc", "127.0.0.1:0", "--drain", "1s", "--media-dir"]).arg(media);
        command.args(["--rtpproxy-listen", "udp:127.0.0.1:0"]).args(flags);
        let process = Process::spawn("media-relay", &mut command)?;
        let rtpproxy = process.wait_for("where its rtpproxy protocol is", READY_LIMIT, |line| {
            line.split_once("Ok(")?.1.split_once(')')?.0.parse().ok()
        })?;
        let grpc = process.wait_for("that it serves", READY_LIMIT, |line| {
            let serving = line.contains("\"serving\"").then_some(line)?;
            Some(serving.split_once("\"grpc\":\"")?.1.split_once('"')?.0.to_owned())
        })?;
        Ok(Self { process, grpc, rtpproxy })
    }

    async fn sessions(&self) -> anyhow::Result<u32> {
        let channel = Endpoint::from_shared(format!("http://{}", self.grpc))?.connect().await?;
        let mut client = MediaRelayClient::new(channel);
        Ok(client.query(QueryRequest::default()).await?.into_inner().total)
    }
}

fn phone(user: &str, proxy: SocketAddr, voice: &Wav) -> anyhow::Result<Baresip> {
    let account = Account { user, registrar: proxy, password: None, codec: "pcma", voice };
    Baresip::start(&account)
}

fn assert_heard(who: &str, source: &Wav, heard: &[f32]) {
    let span = Reference::new(source).longest_span(heard);
    println!("{who}: {:.4} over {} ms", span.correlation, span.duration_ms());
    assert!(
        span.correlation >= LIKENESS_MIN && span.duration_ms() >= SPAN_MIN_MS,
        "{who}: {span:?} of {} samples",
        heard.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_of_mohqueue_hears_music_is_referred_to_an_agent_and_leaves() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    let (music, caller_s, agent_s) = (tune(1, 1_000), tune(2, 2_000), tune(3, 2_000));
    let raw = Codec::Pcma.encode(&Reference::new(&music).into_samples());
    std::fs::write(folder.path().join("test.pcm.8"), raw)?;
    music.write(&folder.path().join("wav.pcm.8"))?;
    let relay = Relay::start(folder.path(), &["--moh-repair"])?;
    let nobody = "127.0.0.1:9".parse()?;
    let mut agent = phone("agent", nobody, &agent_s)?;
    let agent_at = agent.uri().rsplit('@').next().unwrap_or_default().parse()?;
    let queues = [("abc", "test.pcm"), ("wav", "wav.pcm")];
    let kamailio = Kamailio::start(relay.rtpproxy, folder.path(), &queues, agent_at)?;

    let mut caller = phone("caller", kamailio.sip(), &caller_s)?;
    caller.dial(&kamailio.uri("wav"))?;
    kamailio.wait_callers("wav", 1)?;
    assert!(caller.wait_closed(LISTENING).is_err(), "hung up in the queue");
    caller.hang_up()?;
    kamailio.wait_callers("wav", 0)?;
    assert_eq!(relay.sessions().await?, 0, "the caller left");

    caller.dial(&kamailio.uri("abc"))?;
    kamailio.wait_callers("abc", 1)?;
    assert!(caller.wait_closed(LISTENING).is_err(), "hung up in the queue");
    kamailio.retrieve()?;
    agent.wait_answered()?;
    kamailio.wait_callers("abc", 0)?;
    assert!(agent.wait_closed(LISTENING).is_err(), "hung up while talking");
    assert_eq!(relay.sessions().await?, 1, "only the talk is left");
    agent.hang_up()?;
    caller.stop()?;
    agent.stop()?;
    assert_eq!(relay.sessions().await?, 0, "\n{}\n{}", kamailio.output(), relay.process.output());

    assert_heard("music from a WAV in its place", &music, &caller.heard(0)?);
    assert_heard("music from raw PCMA", &music, &caller.heard(1)?);
    assert_heard("the agent, at the caller", &agent_s, &caller.heard(2)?);
    assert_heard("the caller, at the agent", &caller_s, &agent.heard(0)?);
    Ok(())
}
