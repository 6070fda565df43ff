//! What the user agent must know before its first message.

use crate::{Advertised, Algorithm};
use std::collections::HashMap;
use std::time::Duration;

/// Settings of one [`UserAgent`](crate::UserAgent). [`Config::new`] gives every default.
#[derive(Clone, Debug)]
pub struct Config {
    /// Host and port in our Contact and Via, for each listener: where peers reach us.
    pub advertised: Advertised,
    /// Server and User-Agent header value.
    pub user_agent: String,
    /// Digest realm.
    pub realm: String,
    /// Name → password, for digest. A user in here owns the address-of-record of the same name.
    pub users: HashMap<String, String>,
    /// What users may prove their password with, in the order of the challenges (RFC 8760). Many
    /// phones give up when they see one that they do not know, wherever it stands, and all know MD5.
    pub digest: Vec<Algorithm>,
    /// Legs at once; above it a new INVITE is answered 503 with Retry-After.
    pub max_dialogs: usize,
    /// Transactions at once, both roles; above it a new request is answered 503 statelessly. The
    /// last eighth is kept for calls that stand, so that they can be ended in a flood.
    pub max_transactions: usize,
    /// Bytes of the requests that have transactions, with the same rule. What is kept of a request
    /// (itself, its keys, its response) takes some four times its size.
    pub max_transaction_bytes: usize,
    /// Contacts of one user; above it REGISTER is answered 403.
    pub max_bindings_per_user: usize,
    /// Value of Retry-After in 503, in seconds.
    pub retry_after_s: u32,
    /// How long a digest nonce is good; afterwards 401 with `stale=true`.
    pub nonce_life: Duration,
    /// Session interval that we ask for (RFC 4028); `None`: only what peers ask for.
    pub session_interval: Option<Duration>,
    /// Peers that ask for a shorter session interval are refused with 422; 90 s at least.
    pub min_session_interval: Duration,
    /// Round-trip time estimate (RFC 3261 §17.1.1.1), 500 ms.
    pub t1: Duration,
    /// Longest retransmission interval for non-INVITE requests and 2xx, 4 s.
    pub t2: Duration,
    /// Longest time a message stays in the network, 5 s.
    pub t4: Duration,
}

impl Config {
    /// The defaults of RFC 3261 Table 4 and the limits of docs/RFC.md, for what is advertised.
    pub fn new(advertised: impl Into<Advertised>) -> Self {
        Self {
            advertised: advertised.into(),
            user_agent: concat!("Holdfast/", env!("CARGO_PKG_VERSION")).to_owned(),
            realm: "holdfast".to_owned(),
            users: HashMap::new(),
            digest: vec![Algorithm::Md5],
            max_dialogs: 10_000,
            max_transactions: 100_000,
            max_transaction_bytes: 128 * 1024 * 1024,
            max_bindings_per_user: 10,
            retry_after_s: 5,
            nonce_life: Duration::from_secs(300),
            session_interval: Some(Duration::from_secs(1_800)),
            min_session_interval: Duration::from_secs(90),
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
        }
    }
}
