//! Agents over gRPC: made, logged in, rung for whoever comes, and the same after a crash.

use crate::edge::Seen;
use crate::world::{World, refused};
use proto::queue::v1::*;
use proto::sip_edge::v1::{CallState, RingOutcome};
use tonic::Code;

pub(crate) fn agent(name: &str) -> Agent {
    Agent {
        name: name.into(),
        address: format!("user/{name}"),
        queues: vec![Membership { queue: "abc".into(), ..Membership::default() }],
        ..Agent::default()
    }
}

impl World {
    pub(crate) async fn add(&mut self, agent: Agent) {
        let name = agent.name.clone();
        let request = CreateAgentRequest { agent: Some(agent) };
        self.client.create_agent(request).await.unwrap();
        self.say(&name, Presence::Login).await;
    }

    pub(crate) async fn say(&mut self, name: &str, presence: Presence) -> Agent {
        let presence = presence.into();
        let request =
            SetPresenceRequest { name: name.into(), presence, ..SetPresenceRequest::default() };
        self.client.set_presence(request).await.unwrap().into_inner()
    }

    pub(crate) async fn agent(&mut self, name: &str) -> Agent {
        let request = GetAgentRequest { name: name.into() };
        self.client.get_agent(request).await.unwrap().into_inner()
    }
}

#[tokio::test]
async fn agent_is_rung_for_who_comes_and_each_step_is_told_with_its_reason() {
    let mut world = World::with_queue(0).await;
    world.add(agent("1001")).await;
    world.join("a").await;
    let Seen::Ring { call_id, assignment_id, target } = world.edge.next().await else {
        panic!("no agent rang")
    };
    assert_eq!((call_id.as_str(), target.as_str()), ("a", "user/1001"));
    assert_eq!(world.agent("1001").await.state(), AgentState::Ringing);
    world.edge.end_ring(&assignment_id, RingOutcome::Connected, 200);
    for event in [
        "AGENT 1001 IDLE: logged in",
        "JOINED a at 1 of 1: caller was answered",
        "RESERVED a at 1 of 0: agent 1001: longest idle",
        "AGENT 1001 RINGING: agent 1001: longest idle",
        "CONNECTED a at 0 of 0: agent answered",
        "AGENT 1001 BUSY: took the caller",
    ] {
        assert_eq!(world.event_text().await, event);
    }
    world.publish_end("a").await;
    assert_eq!(world.event_text().await, "AGENT 1001 IDLE: call ended: NORMAL_CLEARING");
    let statistics = world.client.get_statistics(GetStatisticsRequest::default()).await.unwrap();
    let statistics = statistics.into_inner();
    let queue = &statistics.queues[0];
    assert_eq!((queue.joined, queue.handled, queue.abandoned, queue.service_level), (1, 1, 0, 1.0));
    assert_eq!((queue.agents_logged_in, queue.agents_idle), (1, 1));
    let agent = &statistics.agents[0];
    assert_eq!((agent.rung, agent.handled, agent.missed), (1, 1, 0));
}

#[tokio::test]
async fn all_agents_are_rung_together_and_the_one_who_answers_talks() {
    let mut world = World::with_queue(0).await;
    let request = GetQueueRequest { name: "abc".into() };
    let mut queue = world.client.get_queue(request).await.unwrap().into_inner();
    queue.set_strategy(Strategy::RingAll);
    world.client.update_queue(UpdateQueueRequest { queue: Some(queue) }).await.unwrap();
    world.add(agent("1")).await;
    world.add(agent("2")).await;
    world.join("a").await;
    let Seen::Ring { assignment_id, target, .. } = world.edge.next().await else {
        panic!("no agent rang")
    };
    assert_eq!(target, "user/1 user/2");
    world.edge.answer_ring(&assignment_id, "user/2");
    while world.agent("2").await.state() != AgentState::Busy {
        world.event().await;
    }
    assert_eq!(world.agent("1").await.state(), AgentState::Idle);
}

#[tokio::test]
async fn agents_and_what_they_have_said_are_there_after_a_crash() {
    let mut world = World::with_queue(0).await;
    world.add(agent("1001")).await;
    world.add(Agent { wrap_up_ms: 3_600_000, ..agent("1002") }).await;
    world.say("1002", Presence::Pause).await;
    world.join("a").await;
    let (_, ringing) = world.edge.next_ring().await;
    world.join("b").await;
    world.restart().await;
    // Who rang goes on ringing, and who paused is not rung for the next one.
    assert_eq!(world.edge.next_ring().await, ("a".into(), ringing.clone()));
    assert_eq!(world.agent("1002").await.paused, "by the agent");
    world.edge.end_ring(&ringing, RingOutcome::Connected, 200);
    // What others have heard of is on disk.
    while world.event().await.r#type() != QueueEventType::Connected {}
    world.edge.call("a", CallState::Connected);
    world.restart().await;
    assert_eq!(world.agent("1001").await.state(), AgentState::Busy);
    assert_eq!(world.list("abc").await, "1 b IN_QUEUE");
    world.publish_end("a").await;
    let next = loop {
        let (call_id, assignment_id) = world.edge.next_ring().await;
        if assignment_id != ringing {
            break call_id; // The first one may have been asked for again before it was known.
        }
    };
    assert_eq!(next, "b");
}

#[tokio::test]
async fn agent_on_a_call_that_sip_edge_tells_of_is_not_rung() {
    let mut world = World::with_queue(0).await;
    world.add(agent("1001")).await;
    world.publish_talk("z", &["sip:99@elsewhere", "user/1001"]).await;
    while world.agent("1001").await.state() != AgentState::Busy {
        world.event().await;
    }
    world.join("a").await;
    world.publish_end("z").await;
    let (call_id, _) = world.edge.next_ring().await;
    assert_eq!(call_id, "a");
    assert_eq!(world.list("abc").await, "1 a LEAVING");
}

#[tokio::test]
async fn what_cannot_be_an_agent_is_refused_and_says_why() {
    let mut world = World::with_queue(0).await;
    world.add(agent("1001")).await;
    let mut create = async |agent: Agent| {
        world.client.create_agent(CreateAgentRequest { agent: Some(agent) }).await
    };
    refused(create(agent("1001")).await, Code::AlreadyExists, "1001");
    let taken = Agent { address: "user/1001".into(), ..agent("1002") };
    refused(create(taken).await, Code::AlreadyExists, "agent 1001");
    refused(create(agent("a b")).await, Code::InvalidArgument, "name");
    let address = Agent { address: "1001".into(), ..agent("1002") };
    refused(create(address).await, Code::InvalidArgument, "address");
    let unknown = Membership { queue: "nothing".into(), ..Membership::default() };
    let elsewhere = Agent { queues: vec![unknown], ..agent("1002") };
    refused(create(elsewhere).await, Code::NotFound, "nothing");
    let request = UpdateAgentRequest { agent: Some(agent("1003")) };
    refused(world.client.update_agent(request).await, Code::NotFound, "1003");
    let request = SetPresenceRequest { name: "1001".into(), ..SetPresenceRequest::default() };
    refused(world.client.set_presence(request).await, Code::InvalidArgument, "LOGIN");
    let address = "sip:1001@phone.example".into();
    let presence = Presence::Logout.into();
    let request = SetPresenceRequest { address, presence, ..SetPresenceRequest::default() };
    assert!(!world.client.set_presence(request).await.unwrap().into_inner().logged_in);
    let request = DeleteAgentRequest { name: "1001".into() };
    world.client.delete_agent(request.clone()).await.unwrap();
    refused(world.client.delete_agent(request).await, Code::NotFound, "1001");
}
