//! Many schedules in one request: those of each owner in one message, and there in one commit.

use super::forward::{Hop, Route, forwarded, is_not_owner, not_owner, of_other};
use super::{Api, task, unwritten};
use crate::commits::New;
use futures::future::{self, BoxFuture};
use proto::scheduler::v1::scheduler_server::Scheduler as _;
use proto::scheduler::v1::{
    self as pb, ScheduleManyRequest, ScheduleRequest, ScheduleResult, schedule_result,
};
use std::collections::HashMap;
use tonic::{Code, Request, Response, Status};

type Scheduled = Result<pb::Task, Status>;

/// The requests that one owner decides about, with their places among all.
struct Part {
    route: Route,
    requests: Vec<(usize, ScheduleRequest, New)>,
}

impl Api {
    /// As many schedules, each owner's in one commit. Those of a call are in one part, in their order.
    ///
    /// # Errors
    /// If they were forwarded, and not all of the shards are ours: nothing was done.
    pub(super) async fn schedule_all(
        &self,
        requests: Vec<ScheduleRequest>,
        hop: Hop,
    ) -> Result<Vec<Scheduled>, Status> {
        let mut results: Vec<Option<Scheduled>> = vec![None; requests.len()];
        let mut parts: Vec<Part> = Vec::new();
        let mut part_of: HashMap<u8, Result<usize, Status>> = HashMap::new();
        for (at, request) in requests.into_iter().enumerate() {
            let new = match self.new_task(request.clone()) {
                Ok(new) => new,
                Err(bad) => {
                    results[at] = Some(Err(bad.into()));
                    continue;
                }
            };
            let shard = new.task.id.shard();
            if let std::collections::hash_map::Entry::Vacant(unknown) = part_of.entry(shard) {
                let route = self.forward.route(shard, hop).await.map_err(Status::from);
                if hop == Hop::Forwarded
                    && let Err(e) = route
                {
                    return Err(e);
                }
                unknown.insert(route.map(|route| part_for(&mut parts, route)));
            }
            match &part_of[&shard] {
                Ok(part) => parts[*part].requests.push((at, request, new)),
                Err(status) => results[at] = Some(Err(status.clone())),
            }
        }
        let parts = parts.into_iter().map(|part| self.schedule_part(part, hop));
        for (at, result) in future::join_all(parts).await.into_iter().flatten() {
            results[at] = Some(result);
        }
        let unanswered = || Err(Status::internal("a result is missing"));
        Ok(results.into_iter().map(|it| it.unwrap_or_else(unanswered)).collect())
    }

    fn schedule_part(&self, part: Part, hop: Hop) -> BoxFuture<'_, Vec<(usize, Scheduled)>> {
        let Part { route, requests } = part;
        Box::pin(async move {
            let (requests, new): (Vec<(usize, ScheduleRequest)>, Vec<New>) =
                requests.into_iter().map(|(at, request, new)| ((at, request), new)).unzip();
            let answers = match route {
                Route::Here => self.schedule_mine(new).await,
                Route::There(_, mut owner) => {
                    let asked = requests.iter().map(|(_, request)| request.clone()).collect();
                    let asked = forwarded(ScheduleManyRequest { requests: asked });
                    match owner.schedule_many(asked).await.map_err(of_other) {
                        Ok(response) => answered(requests.len(), response),
                        Err(status) => vec![Err(status); requests.len()],
                    }
                }
            };
            let (mut results, mut again) = (Vec::with_capacity(answers.len()), Vec::new());
            for ((at, request), answer) in requests.into_iter().zip(answers) {
                match answer {
                    // The owner has changed: each finds its own way.
                    Err(status) if hop == Hop::First && is_not_owner(&status) => {
                        again.push((at, request));
                    }
                    answer => results.push((at, answer)),
                }
            }
            results.extend(self.schedule_each(again).await);
            results
        })
    }

    async fn schedule_mine(&self, new: Vec<New>) -> Vec<Scheduled> {
        let count = new.len();
        match self.commits.schedule_many(new).await {
            Err(e) => vec![Err(unwritten(e)); count],
            Ok(scheduled) => scheduled
                .into_iter()
                .map(|it| match it {
                    Ok(Ok(stored)) => Ok(task(&stored)),
                    Ok(Err(declined)) => Err(declined.into()),
                    Err(e) => Err(unwritten(e)),
                })
                .collect(),
        }
    }

    async fn schedule_each(
        &self,
        requests: Vec<(usize, ScheduleRequest)>,
    ) -> Vec<(usize, Scheduled)> {
        let each = requests.into_iter().map(|(at, request)| async move {
            (at, self.schedule(Request::new(request)).await.map(Response::into_inner))
        });
        future::join_all(each).await
    }
}

/// The place among `parts` of that for this owner.
fn part_for(parts: &mut Vec<Part>, route: Route) -> usize {
    parts.iter().position(|part| part.route.is_same(&route)).unwrap_or_else(|| {
        parts.push(Part { route, requests: Vec::new() });
        parts.len() - 1
    })
}

/// What another replica has said about so many, in their order. Of what it has not done, somebody else
/// may be the owner.
fn answered(count: usize, response: Response<pb::ScheduleManyResponse>) -> Vec<Scheduled> {
    let mut results = response.into_inner().results.into_iter();
    let each = (0..count).map(|_| match results.next() {
        Some(ScheduleResult { result: Some(schedule_result::Result::Task(task)) }) => Ok(*task),
        Some(ScheduleResult { result: Some(schedule_result::Result::Refusal(refusal)) }) => {
            Err(match Code::from(refusal.code) {
                Code::Unavailable => not_owner(refusal.message),
                code => Status::new(code, refusal.message),
            })
        }
        _ => Err(Status::unknown("the owner did not say what became of it")),
    });
    each.collect()
}
