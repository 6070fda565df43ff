//! The life of a process: start, serve, drain, end.

use crate::credentials::Credentials;
use crate::otlp::Exporter;
use crate::{Common, Login, Metric, Nats, grpc, logs, metric, trace};
use anyhow::{Context as _, anyhow, bail};
use metrics_exporter_prometheus::PrometheusBuilder;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tracing::{error, info, warn};

/// How long open gRPC streams (an operator's `Watch`) may delay the exit once drained.
const STREAM_GRACE: Duration = Duration::from_secs(1);

/// How long NATS may take to confirm the last events once drained; longer than one attempt.
const LAST_EVENTS_LIMIT: Duration = Duration::from_secs(3);

/// Buckets of every histogram whose name ends in `_seconds`.
const SECONDS_BUCKETS: [f64; 12] =
    [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];

/// Runs `start` on a runtime until it ends and turns its error, if any, into one line on stderr and
/// an exit code other than 0. A panic anywhere takes the process down.
pub fn run<F>(name: &'static str, common: &Common, start: impl FnOnce(Service) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    die_of_panics();
    let runtime = match tokio::runtime::Runtime::new().context("start the runtime") {
        Ok(runtime) => runtime,
        Err(e) => return failed(name, &e),
    };
    let ended = runtime.block_on(async {
        let service = Service::start(name, common)?;
        start(service).await
    });
    runtime.shutdown_background(); // A blocked task must not hold up the exit.
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => failed(name, &e),
    }
}

/// The one line that an operator sees when a service does not start, or stops by itself.
fn failed(name: &str, e: &anyhow::Error) -> ExitCode {
    let reason = format!("{e:#}"); // Some libraries draw pictures below their message.
    let reason: Vec<&str> = reason.lines().map(str::trim).collect();
    eprintln!("{name}: failed to {}", reason.join(" "));
    ExitCode::FAILURE
}

/// A task that dies must not leave a half-dead process behind: print the panic, then abort.
fn die_of_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        eprintln!("a task panicked: ending the process");
        std::process::abort();
    }));
}

/// A process that is starting up: what its `main` binds, connects and spawns with.
pub struct Service {
    name: &'static str,
    common: Common,
    died: mpsc::Sender<anyhow::Error>,
    deaths: mpsc::Receiver<anyhow::Error>,
    draining: watch::Sender<bool>,
    /// Events that NATS has not confirmed yet.
    unpublished: watch::Sender<usize>,
    stop: Stop,
}

impl Service {
    fn start(name: &'static str, common: &Common) -> anyhow::Result<Self> {
        logs::start(common)?;
        Credentials::read(common)?.adopt();
        if let Some(addr) = common.metrics {
            serve_metrics(addr)?;
        }
        if let Some(url) = &common.otlp_endpoint {
            trace::export_to(Exporter::start(name, url)?);
        }
        metrics::gauge!("holdfast_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        let (died, deaths) = mpsc::channel(1);
        let stop = Stop::listen()?;
        Ok(Self {
            name,
            common: common.clone(),
            died,
            deaths,
            draining: watch::Sender::new(false),
            unpublished: watch::Sender::new(0),
            stop,
        })
    }

    /// Puts a service's own metrics on the page of `--metrics`, with their help.
    pub fn describe(&self, metrics: &[Metric]) {
        metric::describe(metrics);
    }

    /// Binds the gRPC port.
    ///
    /// # Errors
    /// If it is taken, or not an address of this machine.
    pub async fn bind_grpc(&self) -> anyhow::Result<TcpListener> {
        let addr = self.common.grpc;
        TcpListener::bind(addr).await.with_context(|| format!("bind --grpc {addr}"))
    }

    /// Connects to NATS and makes sure that the stream of events exists.
    ///
    /// # Errors
    /// If NATS does not answer, does not let us in, or has no JetStream.
    pub async fn connect_nats(&self) -> anyhow::Result<Nats> {
        let mut nats = Nats::connect(self.name, &Login::read(&self.common)?).await?;
        nats.unpublished = self.unpublished.clone();
        Ok(nats)
    }

    /// Spawns a task without which the process cannot do its work: its error, or its end, ends the
    /// process. It is dropped when the process has drained.
    pub fn spawn_vital(
        &self,
        what: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let died = self.died.clone();
        tokio::spawn(async move {
            let error = match task.await {
                Ok(()) => anyhow!("keep {what} running: it has ended"),
                Err(e) => e.context(format!("keep {what} running")),
            };
            let _ = died.send(error).await; // Nobody listens once the process is ending.
        });
    }

    /// Turns true when the process begins to drain.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Serves `routes` with health (for each of `names` and for ""), and reflection, until the first
    /// SIGTERM or SIGINT; then until `drained` completes, but no longer than `--drain`, and NATS has
    /// the last events; or until the second signal.
    ///
    /// # Errors
    /// If the server fails, or a task of [`Service::spawn_vital`] dies.
    pub async fn serve(
        self,
        listener: TcpListener,
        names: &[&'static str],
        routes: Routes,
        drained: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let (health, health_service) = tonic_health::server::health_reporter();
        if let Some(addr) = self.common.grpc_health {
            let bound = TcpListener::bind(addr).await;
            let bound = bound.with_context(|| format!("bind --grpc-health {addr}"))?;
            info!(health = %bound.local_addr().context("read the port of --grpc-health")?, "listening");
            self.spawn_vital("health", grpc::serve_health(bound, health_service.clone()));
        }
        let Self { name, common, mut deaths, draining, unpublished, mut stop, died: _died } = self;
        for name in names {
            health.set_service_status(name, ServingStatus::Serving).await;
        }
        let grpc = listener.local_addr().context("read the gRPC port")?;
        let (drained_tx, drained_rx) = oneshot::channel();
        let until_drained = async {
            info!(name, version = env!("CARGO_PKG_VERSION"), %grpc, "serving");
            stop.signal().await;
            let _ = draining.send(true); // There may be nobody who wants to know.
            for name in names.iter().chain(&[""]) {
                health.set_service_status(name, ServingStatus::NotServing).await;
            }
            info!(limit = ?common.drain, "draining");
            let ended = async {
                match tokio::time::timeout(common.drain, drained).await {
                    Ok(()) => info!("drained"),
                    Err(_) => warn!("drain timed out: ending what is active"),
                }
                last_events(unpublished.subscribe()).await;
                trace::flush().await;
            };
            tokio::select! {
                () = ended => (),
                () = stop.signal() => warn!("second signal: ending what is active"),
            }
            let _ = drained_tx.send(()); // Nobody listens if the server has failed already.
        };
        let serving = grpc::server(health_service, routes, common.reflection)?
            .serve_with_incoming_shutdown(grpc::incoming(listener), until_drained);
        tokio::select! {
            served = serving => served.context("serve gRPC"),
            () = after(drained_rx, STREAM_GRACE) => Ok(()), // tonic waits for every open stream.
            Some(death) = deaths.recv() => {
                error!("failed to {death:#}");
                Err(death)
            }
        }
    }
}

/// Waits until NATS has confirmed every event, no longer than [`LAST_EVENTS_LIMIT`].
async fn last_events(mut unpublished: watch::Receiver<usize>) {
    let published = unpublished.wait_for(|count| *count == 0);
    if tokio::time::timeout(LAST_EVENTS_LIMIT, published).await.is_err() {
        warn!(events = *unpublished.borrow(), "ending without having published the last events");
    }
}

/// SIGTERM and SIGINT, listened to from the start, so that none is lost while starting up.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("listen for SIGINT")?,
        })
    }

    async fn signal(&mut self) {
        tokio::select! { _ = self.terminate.recv() => (), _ = self.interrupt.recv() => () }
    }
}

fn serve_metrics(addr: SocketAddr) -> anyhow::Result<()> {
    if let Err(e) = std::net::TcpListener::bind(addr) {
        bail!("bind --metrics {addr}: {e}"); // The exporter would say it without the address.
    }
    PrometheusBuilder::new()
        .with_http_listener(addr)
        .set_buckets_for_metric(
            metrics_exporter_prometheus::Matcher::Suffix("_seconds".to_owned()),
            &SECONDS_BUCKETS,
        )
        .context("set metric buckets")?
        .install()
        .with_context(|| format!("serve --metrics {addr}"))
}

/// Completes `grace` after `event`; never, if `event` never happens.
async fn after(event: oneshot::Receiver<()>, grace: Duration) {
    match event.await {
        Ok(()) => tokio::time::sleep(grace).await,
        Err(_) => std::future::pending().await,
    }
}
