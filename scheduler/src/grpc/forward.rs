//! What another replica has to decide: who that is, and the way there.
//!
//! A request is forwarded once at most. Who gets one that was forwarded and does not own the shard
//! says so, and the first replica looks again. What is done to many tasks says for which shards it
//! was forwarded.

use crate::leases::{Leases, OWNER_WAIT_LIMIT, Owner};
use crate::shard_set::ShardSet;
use boot::Channel;
use proto::scheduler::v1::scheduler_client::SchedulerClient;
use std::collections::HashMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request, Response, Status};

/// In the metadata of a request that another replica has forwarded.
const FORWARDED: &str = "holdfast-forwarded";
/// In the metadata of a request that another replica has forwarded for several shards: which.
const SHARDS: &str = "holdfast-shards";
/// In the metadata of a refusal: nothing was done, because somebody else owns the shard.
const NOT_OWNER: &str = "holdfast-not-owner";
/// How long another replica may take for a request.
const FORWARD_LIMIT: Duration = Duration::from_secs(10);
/// Wait before an owner that did not take a request is looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Longest response of another replica, in bytes: a request that fits the 4 MiB which a server takes,
/// with what is added to each task.
const RESPONSE_MAX_BYTES: usize = 16 << 20;
/// Replicas to which there are connections; more than there are in any deployment.
const CLIENTS_MAX: usize = 64;

pub(crate) type Client = SchedulerClient<Channel>;

/// Why nobody decides.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unrouted {
    #[error("no replica owned shard {shard} for {OWNER_WAIT_LIMIT:?}; nothing was done, try again")]
    NoOwner { shard: u8 },
    #[error("this replica does not own shard {shard}; nothing was done, try again")]
    NotMine { shard: u8 },
}

/// Whether a request came from a client or from another replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    First,
    Forwarded,
}

impl Hop {
    pub(crate) fn of(metadata: &MetadataMap) -> Self {
        if metadata.contains_key(FORWARDED) { Self::Forwarded } else { Self::First }
    }
}

/// Who decides.
pub(crate) enum Route {
    Here,
    /// The replica that answers gRPC at this address.
    There(String, Client),
}

/// The other replicas; cheap to clone.
#[derive(Clone)]
pub(crate) struct Forward {
    leases: Leases,
    clients: Arc<Mutex<HashMap<String, Client>>>,
}

impl Forward {
    pub(crate) fn new(leases: Leases) -> Self {
        Self { leases, clients: Arc::default() }
    }

    /// Who decides about this shard. Waits for an owner, if there is none.
    ///
    /// # Errors
    /// If there is none in time, or the request was forwarded to somebody who is not it.
    pub(crate) async fn route(&self, shard: u8, hop: Hop) -> Result<Route, Unrouted> {
        match (self.leases.wait_for_owner(shard).await, hop) {
            (Owner::Mine, _) => Ok(Route::Here),
            (Owner::At(address), Hop::First) => {
                let client = self.client(&address).ok_or(Unrouted::NoOwner { shard })?;
                Ok(Route::There(address, client))
            }
            (Owner::At(_), Hop::Forwarded) => Err(Unrouted::NotMine { shard }),
            (Owner::Nobody, _) => Err(Unrouted::NoOwner { shard }),
        }
    }

    /// The owners of these shards, each with its own of them.
    ///
    /// # Errors
    /// If one has none in time, or the request was forwarded to somebody who does not own them all.
    pub(crate) async fn routes(
        &self,
        shards: ShardSet,
        hop: Hop,
    ) -> Result<Vec<(Route, ShardSet)>, Unrouted> {
        let mut routes: Vec<(Route, ShardSet)> = Vec::new();
        for shard in shards.iter() {
            let route = self.route(shard, hop).await?;
            match routes.iter_mut().find(|(known, _)| known.is_same(&route)) {
                Some((_, shards)) => shards.insert(shard),
                None => routes.push((route, ShardSet::of([shard]))),
            }
        }
        Ok(routes)
    }

    /// Waits until owners may have changed, but not for long: what is known of them is as old as the
    /// last renewal.
    pub(crate) async fn look_again(&self) {
        let mut changed = self.leases.changed();
        let _ = tokio::time::timeout(LOOK_AGAIN, changed.changed()).await; // Either will do.
    }

    /// Lets the owner of the shard decide: `here` or, by its client, `there`. One that turns out not
    /// to be the owner is looked for again, for [`OWNER_WAIT_LIMIT`].
    pub(crate) async fn decide<T, H, T2>(
        &self,
        (shard, hop): (u8, Hop),
        here: impl Fn() -> H,
        there: impl Fn(Client) -> T2,
    ) -> Result<T, Status>
    where
        H: Future<Output = Result<T, Status>>,
        T2: Future<Output = Result<Response<T>, Status>>,
    {
        let until = Instant::now() + OWNER_WAIT_LIMIT;
        loop {
            let decided = match self.route(shard, hop).await {
                Ok(Route::Here) => here().await,
                Ok(Route::There(_, client)) => {
                    there(client).await.map(Response::into_inner).map_err(of_other)
                }
                Err(unrouted) => Err(unrouted.into()),
            };
            match decided {
                Err(status) if is_not_owner(&status) && hop == Hop::First => {
                    if Instant::now() >= until {
                        return Err(status);
                    }
                    self.look_again().await;
                }
                decided => return decided,
            }
        }
    }

    fn client(&self, address: &str) -> Option<Client> {
        let mut clients = self.clients.lock().expect("never poisoned");
        if let Some(client) = clients.get(address) {
            return Some(client.clone());
        }
        let url = match address.contains("://") {
            true => address.to_owned(),
            false => format!("http://{address}"),
        };
        let client = SchedulerClient::new(boot::channel("--advertise-grpc", &url).ok()?)
            .max_decoding_message_size(RESPONSE_MAX_BYTES);
        if clients.len() >= CLIENTS_MAX {
            clients.clear(); // They come and go with new addresses; the live ones come back.
        }
        clients.insert(address.to_owned(), client.clone());
        Some(client)
    }
}

impl Route {
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Here, Self::Here) => true,
            (Self::There(one, _), Self::There(other, _)) => one == other,
            _ => false,
        }
    }
}

/// The request, for another replica, about these of its shards.
pub(crate) fn forwarded_for<T>(shards: ShardSet, request: T) -> Request<T> {
    let mut request = forwarded(request);
    let shards = MetadataValue::try_from(shards.to_string()).expect("digits and commas");
    request.metadata_mut().insert(SHARDS, shards);
    request
}

/// The shards that a forwarded request is about; `None` if it does not say.
pub(crate) fn forwarded_shards(metadata: &MetadataMap) -> Option<ShardSet> {
    metadata.get(SHARDS)?.to_str().ok().and_then(ShardSet::parse)
}

/// The request, for another replica.
pub(crate) fn forwarded<T>(request: T) -> Request<T> {
    let mut request = Request::new(request);
    request.metadata_mut().insert(FORWARDED, MetadataValue::from_static("1"));
    request.set_timeout(FORWARD_LIMIT);
    request
}

/// Says in a refusal that somebody else is the owner.
pub(crate) fn not_owner(message: String) -> Status {
    let mut status = Status::unavailable(message);
    status.metadata_mut().insert(NOT_OWNER, MetadataValue::from_static("1"));
    status
}

pub(crate) fn is_not_owner(status: &Status) -> bool {
    status.metadata().contains_key(NOT_OWNER)
}

/// The refusal of another replica, as ours. What was lost on the way may have been done.
pub(crate) fn of_other(status: Status) -> Status {
    let mut cause = status.source();
    let lost = cause.is_some();
    while let Some(e) = cause {
        if e.is::<tonic::ConnectError>() {
            return not_owner("the owner does not answer; nothing was done, try again".to_owned());
        }
        cause = e.source();
    }
    match status.code() {
        Code::DeadlineExceeded | Code::Cancelled => Status::unknown(IN_DOUBT),
        _ if lost => Status::unknown(IN_DOUBT),
        _ => status,
    }
}

const IN_DOUBT: &str = "the owner was lost while it decided; whether it was done is not known";
