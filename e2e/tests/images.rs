//! The images of `deploy/Dockerfile`, started as `deploy/compose.yaml` says, take a call and end it.
//!
//! `cargo xtask images --debug` makes them. They run by buildah, which needs neither a daemon nor
//! rights that a sandbox has not: with the file system, the user and the capabilities of the image,
//! but not on a read-only root. NATS is Debian's.

use anyhow::{Context as _, ensure};
use e2e::{NatsServer, Process, Scenario, Sipp, free_ports};
use proto::media_relay::v1::media_relay_client::MediaRelayClient;
use proto::queue::v1::queues_client::QueuesClient;
use proto::scheduler::v1::ScheduleRequest;
use proto::scheduler::v1::scheduler_client::SchedulerClient;
use proto::{media_relay, queue, scheduler};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const SERVICES: [&str; 4] = ["media-relay", "scheduler", "queue-svc", "sip-edge"];
/// Whom the processes are, in each image.
const USER: u32 = 65_532;
/// The ports in compose.yaml: NATS, SIP, gRPC, metrics.
const PORTS: [u16; 10] = [4222, 5060, 50051, 50052, 50053, 50054, 9151, 9152, 9153, 9154];
const READY_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread")]
async fn the_images_of_compose_take_a_call_keep_it_and_end_it_on_time() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::create_dir_all(folder.path().join("media/moh"))?;
    e2e::audio::tune(1, 2_000).write(&folder.path().join("media/moh/music.wav"))?;
    let nats = NatsServer::start()?;
    let ports = Moved::new(&nats)?;
    let compose = compose()?;
    let mut containers = Vec::new();
    for service in SERVICES {
        containers.push(Container::start(
            service,
            &compose["services"][service],
            folder.path(),
            &ports,
        )?);
    }
    for (service, port) in [
        ("sip_edge.v1.SipEdge", 50051),
        ("media_relay.v1.MediaRelay", 50052),
        ("scheduler.v1.Scheduler", 50053),
        ("queue.v1.Queues", 50054),
    ] {
        check_health(service, ports.of(port))?;
    }
    take_a_call(&ports).await?;
    containers.iter_mut().rev().try_for_each(Container::stop)
}

/// SIPp joins a queue and hears its music, until a task hangs up: each of the four has its part.
async fn take_a_call(ports: &Moved) -> anyhow::Result<()> {
    let url = |port| format!("http://127.0.0.1:{}", ports.of(port));
    let mut relay = MediaRelayClient::new(channel(&url(50052))?);
    let mut scheduler = SchedulerClient::new(channel(&url(50053))?);
    let mut queues = QueuesClient::new(channel(&url(50054))?);
    let sip = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.of(5060)));
    let abc = queue::v1::Queue {
        name: "abc".into(),
        uri: format!("sip:1008@{sip}"),
        mohdir: "moh".into(),
        mohfile: "music.wav".into(),
        max_calls: 10,
        ..Default::default()
    };
    queues.create_queue(queue::v1::CreateQueueRequest { queue: Some(abc) }).await?;
    let caller = Sipp::start(&Scenario::caller_is_hung_up(sip, "1008"), None)?;
    let deadline = Instant::now() + READY_LIMIT;
    let mut poll = tokio::time::interval(POLL);
    let list = queue::v1::ListRequest { queue: "abc".into(), ..Default::default() };
    let waiting = loop {
        if let Some(first) = queues.list(list.clone()).await?.into_inner().callers.pop() {
            break first;
        }
        ensure!(Instant::now() < deadline, "nobody waits in abc");
        poll.tick().await;
    };
    let sessions = relay.query(media_relay::v1::QueryRequest::default()).await?.into_inner();
    assert_eq!(sessions.total, 1, "{sessions:?}");
    let request = ScheduleRequest {
        call_id: waiting.call_id,
        action: Some(scheduler::v1::schedule_request::Action::Hangup(Default::default())),
        when: Some(scheduler::v1::schedule_request::When::AfterMs(100)),
        ..Default::default()
    };
    scheduler.schedule(request).await?;
    caller.finish_without_failure()?; // It was sent a BYE.
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        let sessions = relay.query(media_relay::v1::QueryRequest::default()).await?.into_inner();
        if sessions.total == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the session outlives its call: {sessions:?}");
        poll.tick().await;
    }
}

fn channel(url: &str) -> anyhow::Result<tonic::transport::Channel> {
    Ok(tonic::transport::Endpoint::from_shared(url.to_owned())?.connect_lazy())
}

fn check_health(service: &str, port: u16) -> anyhow::Result<()> {
    let mut grpcurl = Command::new(target()?.join("tools/grpcurl"));
    grpcurl.args(["-plaintext", "-d", &format!(r#"{{"service": "{service}"}}"#)]);
    grpcurl.args([&format!("127.0.0.1:{port}"), "grpc.health.v1.Health/Check"]);
    let said = finish(&mut grpcurl)?;
    ensure!(said.contains("\"SERVING\""), "{service}: {said}");
    Ok(())
}

/// `deploy/compose.yaml` as `docker compose` reads it.
fn compose() -> anyhow::Result<Value> {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let mut compose = Command::new(target()?.join("tools/compose"));
    compose.args(["-format", "json", "compose.yaml"]).current_dir(deploy);
    let said = finish(&mut compose)?;
    serde_json::from_str(&said).context("read what compose says")
}

/// A free port for each of compose.yaml.
struct Moved(Vec<(u16, u16)>);

impl Moved {
    fn new(nats: &NatsServer) -> anyhow::Result<Self> {
        let first = free_ports(PORTS.len() as u16)?;
        let mut moved: Vec<_> = PORTS.into_iter().zip(first..).collect();
        let url = nats.url();
        let port = url.rsplit(':').next().context("find the port of NATS")?;
        moved[0].1 = port.parse()?;
        Ok(Self(moved))
    }

    fn of(&self, port: u16) -> u16 {
        self.0.iter().find(|(from, _)| *from == port).expect("it is one of PORTS").1
    }

    fn flag(&self, flag: &str) -> String {
        let moved = self.0.iter().find(|(from, _)| flag.ends_with(&format!(":{from}")));
        let Some((from, to)) = moved else { return flag.to_owned() };
        flag.replace(&format!(":{from}"), &format!(":{to}"))
    }
}

/// A service, in a container that goes with it.
struct Container {
    service: &'static str,
    /// Dropped in this order.
    process: Process,
    _files: Files,
}

/// The file system of a container, by its name.
struct Files(String);

impl Drop for Files {
    fn drop(&mut self) {
        let _ = buildah().map(|mut it| it.args(["rm", &self.0]).output()); // Only disk is lost.
    }
}

impl Container {
    /// As its part of compose.yaml says, with its volumes and folders in `folder`; serves.
    fn start(
        service: &'static str,
        compose: &Value,
        folder: &Path,
        ports: &Moved,
    ) -> anyhow::Result<Self> {
        let image = text(&compose["image"]);
        check_image(service, image)?;
        let files = Files(format!("holdfast-test-{service}-{}", ports.of(5060)));
        finish(buildah()?.args(["from", "--quiet", "--pull=never", "--name", &files.0, image]))?;
        let mut run = buildah()?;
        run.args(["run", "--isolation", "chroot"]);
        for volume in compose["volumes"].as_array().into_iter().flatten() {
            let target = text(&volume["target"]);
            let source = match volume["type"] == "bind" {
                true => {
                    folder.join(Path::new(text(&volume["source"])).file_name().context("a folder")?)
                }
                false => own_volume(&folder.join(text(&volume["source"])))?,
            };
            let read_only = if volume["read_only"] == true { ":ro" } else { "" };
            run.arg("--volume").arg(format!("{}:{target}{read_only}", source.display()));
        }
        run.args([files.0.as_str(), "--", &format!("/usr/bin/{service}")]);
        let flags = compose["command"].as_array().context("find its flags")?;
        run.args(flags.iter().map(|it| ports.flag(text(it))));
        let process = Process::spawn(service, &mut run)?;
        let serving = |line: &str| line.contains("serving").then_some(());
        process.wait_for("that it serves", READY_LIMIT, serving)?;
        Ok(Self { service, process, _files: files })
    }

    /// SIGTERM to the service itself, as an engine does; it ends by itself and well.
    fn stop(&mut self) -> anyhow::Result<()> {
        let pid = innermost(self.process.pid())?;
        let user = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let is_user = user.lines().any(|it| it.starts_with(&format!("Uid:\t{USER}\t{USER}")));
        let is_bare = user.lines().any(|it| it == "CapEff:\t0000000000000000");
        ensure!(is_user && is_bare, "{}:\n{user}", self.service);
        finish(Command::new("kill").args(["-s", "TERM", &pid.to_string()]))?;
        let status = self.process.wait(STOP_LIMIT)?;
        ensure!(
            status.success(),
            "{} ended with {status}: {}",
            self.service,
            self.process.output()
        );
        Ok(())
    }
}

/// With nobody's rights, and with the service as what it runs.
fn check_image(service: &str, image: &str) -> anyhow::Result<()> {
    let said = finish(buildah()?.args(["inspect", "--type", "image", image]))
        .context("find the image: run `cargo xtask images --debug`")?;
    let image: Value = serde_json::from_str(&said)?;
    let config = &image["OCIv1"]["config"];
    assert_eq!(config["User"], format!("{USER}:{USER}"));
    assert_eq!(config["Entrypoint"], serde_json::json!([format!("/usr/bin/{service}")]));
    assert_eq!(config["StopSignal"], "SIGTERM");
    Ok(())
}

/// A folder that is the service's, as a new volume on an image's folder is.
fn own_volume(path: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(path)?;
    chown(path, Some(USER), Some(USER)).context("give a folder away (wants root)")?;
    Ok(path.to_owned())
}

/// The last of a line of only children.
fn innermost(pid: u32) -> anyhow::Result<u32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((_, fields)) = stat.rsplit_once(") ") else { continue }; // Gone meanwhile.
        let parent = fields.split(' ').nth(1).context("read a parent")?;
        parents.push((parent.parse::<u32>()?, pid));
    }
    let mut last = pid;
    while let Some((_, child)) = parents.iter().find(|(parent, _)| *parent == last) {
        last = *child;
    }
    Ok(last)
}

/// With what `cargo xtask images` made.
fn buildah() -> anyhow::Result<Command> {
    let images = target()?.join("images");
    let mut buildah = Command::new("buildah");
    buildah.arg("--root").arg(images.join("store")).arg("--runroot").arg(images.join("run"));
    buildah.args(["--storage-driver", "vfs"]);
    Ok(buildah)
}

fn target() -> anyhow::Result<PathBuf> {
    let built = e2e::binary("sip-edge")?;
    Ok(built.ancestors().nth(2).context("find the target folder")?.to_owned())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("wanted text, got {value}"))
}

fn finish(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {complaint}");
    Ok(String::from_utf8(output.stdout)?)
}
