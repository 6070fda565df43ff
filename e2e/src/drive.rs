//! What operators do, as one call each: the gRPC requests of both jobs, and waiting for what follows.

use crate::{QUEUE, Stack};
use anyhow::{Context as _, bail};
use proto::queue::v1::{CountRequest, ListRequest, RetrieveRequest, RetrieveResponse};
use proto::scheduler::v1 as scheduler;
use proto::scheduler::v1::{Task, TaskState};
use proto::sip_edge::v1::sip_edge_client::SipEdgeClient;
use proto::sip_edge::v1::{
    BridgeRequest, Call, CallState, GetCallRequest, ListCallsRequest, OriginateRequest,
};
use proto::subjects::CALLS_BUCKET;
use std::fmt::Debug;
use std::time::Duration;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// How long what must follow may take.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

impl Stack {
    /// Calls `target` and runs `plan` (the JSON mapping of `CallPlan`); the call, answered.
    pub async fn originate(&self, target: &str, plan: &str) -> anyhow::Result<Call> {
        self.start_originate(target, plan).await?
    }

    /// As [`Stack::originate`], while the test goes on.
    pub fn start_originate(&self, target: &str, plan: &str) -> JoinHandle<anyhow::Result<Call>> {
        start_originate_at(self.sip_edge(), target, plan)
    }

    pub async fn call(&self, call_id: &str) -> anyhow::Result<Call> {
        let request = GetCallRequest { call_id: call_id.into() };
        Ok(self.sip_edge().get_call(request).await.context("get the call")?.into_inner())
    }

    /// Live calls, oldest first.
    pub async fn calls(&self) -> anyhow::Result<Vec<Call>> {
        let listed = self.sip_edge().list_calls(ListCallsRequest::default()).await;
        Ok(listed.context("list calls")?.into_inner().calls)
    }

    /// The call, once it is as `wanted`.
    pub async fn wait_call(
        &self,
        call_id: &str,
        wanted: impl Fn(&Call) -> bool,
    ) -> anyhow::Result<Call> {
        wait(|| self.call(call_id), wanted).await
    }

    pub async fn wait_ended(&self, call_id: &str) -> anyhow::Result<Call> {
        self.wait_call(call_id, |it| it.state() == CallState::Ended).await
    }

    pub async fn task(&self, task_id: &str) -> anyhow::Result<Task> {
        let request = scheduler::GetRequest { task_id: task_id.into() };
        Ok(self.scheduler().get(request).await.context("get the task")?.into_inner())
    }

    /// The task, once it is in `state`.
    pub async fn wait_task(&self, task_id: &str, state: TaskState) -> anyhow::Result<Task> {
        wait(|| self.task(task_id), |it| it.state() == state).await
    }

    /// Gives the oldest caller of [`QUEUE`] to `agent`.
    pub async fn retrieve(
        &self,
        agent: &str,
        ring_timeout_ms: u32,
    ) -> anyhow::Result<RetrieveResponse> {
        self.start_retrieve(agent, ring_timeout_ms).await?
    }

    /// As [`Stack::retrieve`], while the test goes on.
    pub fn start_retrieve(
        &self,
        agent: &str,
        ring_timeout_ms: u32,
    ) -> JoinHandle<anyhow::Result<RetrieveResponse>> {
        let mut client = self.queues();
        let request = RetrieveRequest { queue: QUEUE.into(), agent: agent.into(), ring_timeout_ms };
        tokio::spawn(
            async move { Ok(client.retrieve(request).await.context("retrieve")?.into_inner()) },
        )
    }

    /// Has two calls talk with each other; the one that is left.
    pub fn start_bridge(
        &self,
        call_id: &str,
        other_call_id: &str,
    ) -> JoinHandle<anyhow::Result<Call>> {
        start_bridge_at(self.sip_edge(), call_id, other_call_id)
    }

    /// Call ids in [`QUEUE`], in the order in which they wait.
    pub async fn line(&self) -> anyhow::Result<Vec<String>> {
        let request = ListRequest { queue: QUEUE.into(), ..ListRequest::default() };
        let listed = self.queues().list(request).await.context("list the queue")?;
        Ok(listed.into_inner().callers.into_iter().map(|it| it.call_id).collect())
    }

    /// How many wait in [`QUEUE`].
    pub async fn waiting(&self) -> anyhow::Result<u32> {
        let request = CountRequest { queue: QUEUE.into() };
        Ok(self.queues().count(request).await.context("count the queue")?.into_inner().waiting)
    }

    /// Joining is confirmed a moment after the answer: waits until `count` callers wait.
    pub async fn wait_waiting(&self, count: u32) -> anyhow::Result<u32> {
        wait(|| self.waiting(), |waiting| *waiting == count).await
    }

    /// A call can be gone on with after the loss of its sip-edge as soon as it is kept, a moment after
    /// its answer: waits until each of the present ones is.
    pub async fn wait_kept(&self) -> anyhow::Result<()> {
        let bus = async_nats::connect(format!("127.0.0.1:{}", self.ports().nats)).await?;
        let bucket = async_nats::jetstream::new(bus).get_key_value(CALLS_BUCKET).await?;
        for call in self.calls().await? {
            let entry = || async { Ok(bucket.entry(call.call_id.as_str()).await?) };
            wait(entry, Option::is_some).await?;
        }
        Ok(())
    }
}

/// As [`Stack::start_originate`], asked of this sip-edge.
pub fn start_originate_at(
    mut edge: SipEdgeClient<Channel>,
    target: &str,
    plan: &str,
) -> JoinHandle<anyhow::Result<Call>> {
    let (target, plan) = (target.to_owned(), plan.to_owned());
    tokio::spawn(async move {
        let plan = proto::json::from_json(&plan).context("read the plan")?;
        let request = OriginateRequest { target, plan: Some(plan), ..OriginateRequest::default() };
        let reply = edge.originate(request).await.context("originate")?;
        reply.into_inner().call.context("find the call in the reply")
    })
}

/// As [`Stack::start_bridge`], asked of this sip-edge.
pub fn start_bridge_at(
    mut edge: SipEdgeClient<Channel>,
    call_id: &str,
    other_call_id: &str,
) -> JoinHandle<anyhow::Result<Call>> {
    let request = BridgeRequest {
        call_id: call_id.into(),
        other_call_id: other_call_id.into(),
        ..BridgeRequest::default()
    };
    tokio::spawn(async move {
        let bridged = edge.bridge(request).await.context("bridge")?.into_inner();
        bridged.call.context("find the call that is left")
    })
}

/// The value of `look`, once it is as `wanted`.
///
/// # Errors
/// That of `look`; or after 20 s, with the last value.
async fn wait<T: Debug, F: Future<Output = anyhow::Result<T>>>(
    look: impl Fn() -> F,
    wanted: impl Fn(&T) -> bool,
) -> anyhow::Result<T> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let seen = look().await?;
        if wanted(&seen) {
            return Ok(seen);
        }
        if tokio::time::Instant::now() > deadline {
            bail!("see what was wanted within {PATIENCE:?}; last seen: {seen:#?}");
        }
        tokio::time::sleep(POLL).await;
    }
}
