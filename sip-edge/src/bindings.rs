//! Bindings of users, shared by all replicas and kept over a restart: one entry of a JetStream
//! key-value bucket for each binding, which goes when the binding has run out.
//!
//! Each replica decides from its own registrar; what others have accepted reaches it from the bucket,
//! in the bucket's order. While NATS is away, each goes on with what it knows.

use crate::edge::{Done, Edge, unix_s};
use crate::metrics;
use crate::target::SipUri;
use anyhow::Context as _;
use async_nats::jetstream::{self, kv, stream};
use futures::StreamExt as _;
use proto::subjects::{BINDINGS_BUCKET, BINDINGS_MAX_BYTES};
use serde::{Deserialize, Serialize};
use sip::{Binding, Contact, Instance, Listener, Peer, Transport};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::{debug, warn};

/// Entries that wait for NATS; later ones are dropped, and come again with the next registration.
const UNWRITTEN_MAX: usize = 4_096;
/// Longest entry.
const RECORD_BYTES_MAX: i32 = 16 * 1_024;
/// How long an entry stays that nobody replaces: as long as the longest registration.
const RECORD_AGE_MAX: Duration = Duration::from_secs(3_600);
/// How long NATS may take, and the wait between attempts.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// One binding as it stands in the bucket; `expires_unix_s` 0 says that it was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    user: String,
    uri: String,
    transport: String,
    addr: SocketAddr,
    listener: u8,
    call_id: String,
    cseq: u32,
    /// Absent in what older versions wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<Instance>,
    expires_unix_s: u64,
    /// The process that wrote it.
    writer: String,
}

/// What this process has written, and the way to NATS.
pub(crate) struct Sharing {
    writer: String,
    records: mpsc::Sender<Record>,
    /// By user and contact: when it runs out.
    written: HashMap<String, BTreeMap<String, u64>>,
}

impl Sharing {
    /// What is to be written comes out of the receiver; give it to [`share`].
    pub(crate) fn new() -> (Self, mpsc::Receiver<Record>) {
        let (records, unwritten) = mpsc::channel(UNWRITTEN_MAX);
        (Self { writer: boot::new_id(), records, written: HashMap::new() }, unwritten)
    }
}

impl Edge {
    /// Writes what has changed of a user's bindings.
    pub(crate) fn share_bindings(&mut self, user: &str) {
        let bindings = self.user_agent.bindings(unix_s(), user);
        let sharing = &mut self.sharing;
        let written = sharing.written.remove(user).unwrap_or_default();
        let is_held = |uri: &String| bindings.iter().any(|it| it.contact.uri == *uri);
        let removed = written.iter().filter(|(uri, _)| !is_held(uri));
        let removed: Vec<_> = removed.map(|(uri, _)| removal(user, uri)).collect();
        let is_new =
            |it: &&Binding| written.get(&it.contact.uri) != Some(&it.contact.expires_unix_s);
        let changed: Vec<_> = bindings.iter().filter(is_new).cloned().collect();
        for binding in removed.into_iter().chain(changed) {
            let record = Record::of(user, binding, &sharing.writer);
            if sharing.records.try_send(record).is_err() {
                metrics::binding_unshared();
            }
        }
        let held = bindings.into_iter().map(|it| (it.contact.uri, it.contact.expires_unix_s));
        let held: BTreeMap<_, _> = held.collect();
        if !held.is_empty() {
            sharing.written.insert(user.to_owned(), held);
        }
    }

    /// Takes over what another replica, or this one before its restart, has accepted.
    pub(crate) fn handle_shared(&mut self, record: Record) {
        if record.writer == self.sharing.writer {
            return;
        }
        let user = record.user.clone();
        let advertised = &self.settings.advertised;
        let Some(binding) = record.binding(|peer, liked| advertised.towards(peer, liked)) else {
            return debug!("a binding of another replica cannot be reached from here");
        };
        let (uri, expires_unix_s) = (binding.contact.uri.clone(), binding.contact.expires_unix_s);
        if !self.user_agent.adopt(unix_s(), &user, binding) {
            return;
        }
        let written = self.sharing.written.entry(user).or_default();
        match expires_unix_s {
            0 => drop(written.remove(&uri)),
            _ => drop(written.insert(uri, expires_unix_s)),
        }
    }
}

fn removal(user: &str, uri: &str) -> Binding {
    let addr = SocketAddr::from(([0, 0, 0, 0], 0));
    let peer = Peer::new(Transport::Udp, addr);
    let contact = Contact { uri: uri.to_owned(), peer, expires_unix_s: 0 };
    Binding { contact, call_id: format!("removed {user}"), cseq: 0, instance: None }
}

impl Record {
    fn of(user: &str, binding: Binding, writer: &str) -> Self {
        let Binding { contact, call_id, cseq, instance } = binding;
        let Contact { uri, peer, expires_unix_s } = contact;
        Self {
            user: user.to_owned(),
            uri,
            transport: peer.transport.name().to_owned(),
            addr: peer.addr,
            listener: peer.listener.0,
            call_id,
            cseq,
            instance,
            expires_unix_s,
            writer: writer.to_owned(),
        }
    }

    /// The binding as it can be reached from here: by UDP as it has registered; its connection was
    /// another process's, so that by TCP and TLS only the address in its Contact is left.
    fn binding(self, towards: impl Fn(Peer, Listener) -> Option<Peer>) -> Option<Binding> {
        let transport = Transport::of_parameter(&self.transport)?;
        let uri = SipUri::parse(&self.uri)?;
        let addr = match transport.is_reliable() {
            true => {
                let port = uri.host_port.port.unwrap_or(transport.default_port());
                SocketAddr::new(uri.host_port.ip()?, port)
            }
            false => self.addr,
        };
        let peer = Peer::new(transport, addr);
        let peer = match self.expires_unix_s {
            0 => peer, // Nobody goes there.
            _ => towards(peer, Listener(self.listener))?,
        };
        let contact = Contact { uri: self.uri, peer, expires_unix_s: self.expires_unix_s };
        let Self { call_id, cseq, instance, .. } = self;
        Some(Binding { contact, call_id, cseq, instance })
    }

    /// One for each user and contact, of the letters that a key may have.
    fn key(&self) -> String {
        let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        format!("{}.{}", hex(&self.user), hex(&self.uri))
    }
}

/// Writes what this process has accepted, and tells `done` what all have. Never ends: NATS may go
/// away and come back.
pub(crate) async fn share(
    context: jetstream::Context,
    unwritten: mpsc::Receiver<Record>,
    done: mpsc::Sender<Done>,
) -> anyhow::Result<()> {
    tokio::join!(write(&context, unwritten), read(&context, &done));
    Ok(())
}

async fn write(context: &jetstream::Context, mut unwritten: mpsc::Receiver<Record>) {
    while let Some(record) = unwritten.recv().await {
        while let Err(e) = write_one(context, &record).await {
            debug!("failed to {e:#}");
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }
    std::future::pending().await // The process is ending.
}

async fn write_one(context: &jetstream::Context, record: &Record) -> anyhow::Result<()> {
    let written = async {
        let json = serde_json::to_vec(record).context("write a binding as JSON")?;
        let bucket = bucket(context).await?;
        bucket.put(record.key(), json.into()).await.context("share a binding")
    };
    tokio::time::timeout(WRITE_TIMEOUT, written).await.context("share a binding")??;
    Ok(())
}

async fn read(context: &jetstream::Context, done: &mpsc::Sender<Done>) {
    loop {
        if let Err(e) = read_until_lost(context, done).await {
            debug!("failed to {e:#}");
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

async fn read_until_lost(
    context: &jetstream::Context,
    done: &mpsc::Sender<Done>,
) -> anyhow::Result<()> {
    let mut entries =
        bucket(context).await?.watch_with_history(">").await.context("watch the bindings")?;
    while let Some(entry) = entries.next().await {
        let entry = entry.context("read a binding")?;
        if entry.operation != kv::Operation::Put {
            continue;
        }
        match serde_json::from_slice(&entry.value) {
            Ok(record) => done.send(Done::Shared(record)).await.context("tell of a binding")?,
            Err(e) => warn!("failed to read a binding of another replica: {e}"),
        }
    }
    Ok(())
}

/// The bucket; made if it is not there, as its stream, which every server understands.
async fn bucket(context: &jetstream::Context) -> anyhow::Result<kv::Store> {
    if let Ok(bucket) = context.get_key_value(BINDINGS_BUCKET).await {
        return Ok(bucket);
    }
    let config = stream::Config {
        name: format!("KV_{BINDINGS_BUCKET}"),
        subjects: vec![format!("$KV.{BINDINGS_BUCKET}.>")],
        max_messages_per_subject: 1,
        max_bytes: BINDINGS_MAX_BYTES,
        max_age: RECORD_AGE_MAX,
        max_message_size: RECORD_BYTES_MAX,
        discard: stream::DiscardPolicy::Old,
        allow_rollup: true,
        allow_direct: true,
        ..stream::Config::default()
    };
    context.get_or_create_stream(config).await.context("make the bucket of bindings")?;
    context.get_key_value(BINDINGS_BUCKET).await.context("open the bucket of bindings")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_also_by_a_version_without_instances() {
        let instance = Some(Instance { id: "<urn:uuid:1>".to_owned(), reg_id: Some(1) });
        for instance in [None, instance] {
            let peer = Peer::new(Transport::Udp, "192.0.2.1:40000".parse().unwrap());
            let contact = Contact { uri: "sip:a@h".to_owned(), peer, expires_unix_s: 9 };
            let is_absent = instance.is_none();
            let binding = Binding { contact, call_id: "c".to_owned(), cseq: 1, instance };
            let record = Record::of("anna", binding, "w");
            let json = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&json).unwrap(), record);
            assert_eq!(!json.contains("instance"), is_absent, "{json}");
        }
    }

    #[test]
    fn a_binding_is_reached_as_it_registered_or_where_its_contact_says() {
        let check = |transport, uri: &str| {
            let peer = Peer::new(transport, "192.0.2.1:40000".parse().unwrap());
            let contact = Contact { uri: uri.to_owned(), peer, expires_unix_s: 9 };
            let binding = Binding { contact, call_id: "c".to_owned(), cseq: 1, instance: None };
            let record = Record::of("anna", binding, "w");
            let towards = |peer, listener| Some(Peer { listener, ..peer });
            record.binding(towards).map(|it| it.contact.peer.to_string())
        };
        let expected = |text: &str| Some(text.to_owned());
        assert_eq!(check(Transport::Udp, "sip:a@10.0.0.1"), expected("udp:192.0.2.1:40000"));
        assert_eq!(check(Transport::Tcp, "sip:a@192.0.2.1:5070"), expected("tcp:192.0.2.1:5070"));
        assert_eq!(check(Transport::Tls, "sip:a@192.0.2.1"), expected("tls:192.0.2.1:5061"));
        assert_eq!(check(Transport::Tcp, "sip:a@phone.example"), None);
    }
}
