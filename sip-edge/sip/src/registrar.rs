//! Bindings of addresses-of-record (RFC 3261 §10.3). Time is Unix seconds from the caller.

use crate::header::{Headers, Name};
use crate::name_addr::NameAddr;
use crate::param::{self, Params};
use crate::peer::Peer;
use crate::uri::{SipUri, is_uri};
use crate::user_agent::{Contact, Registration};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Shortest binding in seconds, but for 0, which removes it; below it 423.
pub(crate) const MIN_EXPIRES_S: u64 = 60;
/// Longest binding, and the default, in seconds; what asks for more gets this.
pub(crate) const MAX_EXPIRES_S: u64 = 3600;

/// Longest instance id; a longer one counts as none.
const MAX_INSTANCE_BYTES: usize = 256;
/// From here on a port was picked by the system that opened a connection (RFC 6335 §6 has 49152,
/// Linux this); below, a phone has chosen to listen at it.
const MIN_EPHEMERAL_PORT: u16 = 32_768;

/// What a REGISTER asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// No Contact: tell the bindings.
    Fetch,
    /// `Contact: *` with `Expires: 0`.
    RemoveAll,
    Update(Vec<Update>),
}

/// One Contact of a REGISTER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Update {
    uri: String,
    instance: Option<Instance>,
    /// 0 removes it.
    expires_s: u64,
}

/// The device behind a contact, and which of its flows it is if it has several (RFC 5626 §4.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// `<urn:uuid:…>`, compared as it is.
    pub id: String,
    pub reg_id: Option<u32>,
}

impl Instance {
    /// Of a Contact.
    pub(crate) fn read(params: Params<'_>) -> Option<Self> {
        let id = params.get("+sip.instance").map(param::unquote);
        let id = id.filter(|id| (1..=MAX_INSTANCE_BYTES).contains(&id.len()))?;
        Some(Self { id, reg_id: params.get("reg-id").and_then(|text| text.parse().ok()) })
    }
}

impl fmt::Display for Instance {
    /// As parameters of a Contact.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ";+sip.instance={}", param::quote(&self.id))?;
        self.reg_id.map_or(Ok(()), |reg_id| write!(f, ";reg-id={reg_id}"))
    }
}

/// Why a REGISTER changed nothing; each variant names its response.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Refusal {
    #[error("Invalid Contact")]
    Contact,
    #[error("Contact * Needs Expires 0 and No Other Contact")]
    Star,
    #[error("Interval Too Brief")]
    TooBrief,
    #[error("Too Many Contacts")]
    TooMany,
    #[error("CSeq Out of Order")]
    OutOfOrder,
}

impl Refusal {
    pub(crate) fn status(&self) -> u16 {
        match self {
            Refusal::Contact | Refusal::Star => 400,
            Refusal::TooBrief => 423,
            Refusal::TooMany => 403,
            Refusal::OutOfOrder => 500,
        }
    }
}

impl Order {
    pub(crate) fn read(headers: &Headers) -> Result<Self, Refusal> {
        let default = headers.get(Name::Expires).and_then(seconds);
        let mut updates = Vec::new();
        let mut star = false;
        for value in headers.all(Name::Contact) {
            if value == "*" {
                star = true;
                continue;
            }
            for contact in NameAddr::list(value) {
                let contact = contact.filter(|it| is_uri(it.uri)).ok_or(Refusal::Contact)?;
                let own = contact.params.get("expires").and_then(seconds);
                let expires_s = own.or(default).unwrap_or(MAX_EXPIRES_S).min(MAX_EXPIRES_S);
                if (1..MIN_EXPIRES_S).contains(&expires_s) {
                    return Err(Refusal::TooBrief);
                }
                let instance = Instance::read(contact.params);
                updates.push(Update { uri: contact.uri.to_owned(), instance, expires_s });
            }
        }
        match (star, updates.is_empty(), default) {
            (true, true, Some(0)) => Ok(Order::RemoveAll),
            (true, ..) => Err(Refusal::Star),
            (false, true, _) => Ok(Order::Fetch),
            (false, false, _) => Ok(Order::Update(updates)),
        }
    }
}

/// A count of seconds; one that is malformed counts as none (RFC 3261 §10.2.1.1).
fn seconds(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// A contact, and the REGISTER that made it: order among those of one Call-ID is by CSeq.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub contact: Contact,
    pub call_id: String,
    pub cseq: u32,
    pub instance: Option<Instance>,
}

/// A binding, and what is known here of the connection that leads to it.
#[derive(Clone, Debug)]
struct Held {
    binding: Binding,
    /// Another registrar has made it, so that the connection may stand there.
    is_adopted: bool,
    /// It has been lost or refused.
    is_lost: bool,
}

impl Held {
    fn is_live(&self, wall_unix_s: u64) -> bool {
        self.binding.contact.expires_unix_s > wall_unix_s
    }
}

/// Who sent a REGISTER: order among those of one Call-ID is by CSeq.
pub(crate) struct Sender<'a> {
    pub(crate) peer: Peer,
    pub(crate) call_id: &'a str,
    pub(crate) cseq: u32,
}

impl Sender<'_> {
    /// Whether the contact takes the place of the binding: it is the same, or the same device has
    /// come again from elsewhere. Two contacts of one REGISTER do not replace each other.
    fn replaces(&self, update: &Update, old: &Binding) -> bool {
        if update.uri == old.contact.uri {
            return true;
        }
        let is_beside = old.call_id == self.call_id && old.cseq == self.cseq;
        if is_beside || update.expires_s == 0 {
            return false;
        }
        match &old.instance {
            Some(instance) => update.instance.as_ref() == Some(instance),
            None => self.has_connected_anew(update, old),
        }
    }

    /// Whether the phone, which has not restarted, puts the port of its connection into Contact, and
    /// this is another connection: nobody can be reached at the port of the earlier one.
    fn has_connected_anew(&self, update: &Update, old: &Binding) -> bool {
        let earlier = old.contact.peer;
        let user = |uri| SipUri::parse(uri).ok().and_then(|uri| uri.user);
        old.call_id == self.call_id
            && earlier.addr != self.peer.addr
            && earlier.addr.ip() == self.peer.addr.ip()
            && user(&old.contact.uri) == user(&update.uri)
            && is_dialled_from(&old.contact.uri, earlier)
            && is_dialled_from(&update.uri, self.peer)
    }
}

pub(crate) struct Registrar {
    max_bindings_per_user: usize,
    /// Newest binding first; users without bindings are not in here.
    users: BTreeMap<String, Vec<Held>>,
}

impl Registrar {
    pub(crate) fn new(max_bindings_per_user: usize) -> Self {
        Self { max_bindings_per_user, users: BTreeMap::new() }
    }

    /// Carries out the whole order or nothing of it (RFC 3261 §10.3, steps 6 and 7).
    pub(crate) fn apply(
        &mut self,
        wall_unix_s: u64,
        user: &str,
        sender: &Sender<'_>,
        order: Order,
    ) -> Result<(), Refusal> {
        let mut bindings = self.held(wall_unix_s, user);
        let old = |it: &Binding| it.call_id == sender.call_id && it.cseq >= sender.cseq;
        let is_late = bindings.iter().any(|it| old(&it.binding));
        match order {
            Order::Fetch => (),
            Order::RemoveAll | Order::Update(_) if is_late => return Err(Refusal::OutOfOrder),
            Order::RemoveAll => bindings.clear(),
            Order::Update(updates) => {
                for update in updates {
                    bindings.retain(|it| !sender.replaces(&update, &it.binding));
                    if update.expires_s > 0 {
                        bindings.insert(0, made(wall_unix_s, sender, update));
                    }
                    if bindings.len() > self.max_bindings_per_user {
                        let is_spare = |it: &Held| it.is_lost && !it.is_adopted;
                        let spare = bindings.iter().rposition(is_spare);
                        bindings.remove(spare.ok_or(Refusal::TooMany)?);
                    }
                }
            }
        }
        match bindings.is_empty() {
            true => self.users.remove(user),
            false => self.users.insert(user.to_owned(), bindings),
        };
        Ok(())
    }

    /// Drops the bindings that were made over a connection that is gone: nobody accepts another one
    /// at the port it came from. Where the Contact names that very address, and the phone has chosen
    /// the port, somebody listens; and a connection that was refused here may stand elsewhere.
    pub(crate) fn forget_connection(&mut self, peer: Peer) {
        self.users.retain(|_, bindings| {
            for it in bindings.iter_mut().filter(|it| it.binding.contact.peer == peer) {
                it.is_lost = true;
            }
            bindings.retain(|it| {
                let Contact { uri, peer: made_over, .. } = &it.binding.contact;
                let is_listening = is_at(uri, peer) && !is_dialled_from(uri, peer);
                *made_over != peer || it.is_adopted || is_listening
            });
            !bindings.is_empty()
        });
    }

    /// Bindings of `user` that have not run out, newest first.
    pub(crate) fn bindings(&self, wall_unix_s: u64, user: &str) -> Vec<Binding> {
        self.held(wall_unix_s, user).into_iter().map(|it| it.binding).collect()
    }

    fn held(&self, wall_unix_s: u64, user: &str) -> Vec<Held> {
        let bindings = self.users.get(user).into_iter().flatten();
        bindings.filter(|it| it.is_live(wall_unix_s)).cloned().collect()
    }

    /// Takes over a binding of another registrar of this record, or its removal (it expires at 0);
    /// false if that changes nothing.
    pub(crate) fn adopt(&mut self, wall_unix_s: u64, user: &str, binding: Binding) -> bool {
        let mut bindings = self.held(wall_unix_s, user);
        let is_same = |it: &Held| are_one(&it.binding, &binding);
        let known = bindings.iter().filter(|it| is_same(it));
        let known = known.map(|it| it.binding.contact.expires_unix_s).max();
        let expires_unix_s = binding.contact.expires_unix_s;
        let is_removal = expires_unix_s == 0;
        let is_news = match known {
            Some(known) => is_removal || expires_unix_s > known,
            None => !is_removal && expires_unix_s > wall_unix_s,
        };
        bindings.retain(|it| !is_same(it));
        if !is_news || (!is_removal && bindings.len() >= self.max_bindings_per_user) {
            return false;
        }
        if !is_removal {
            // Which was made last, the time says at which it runs out.
            let older = |it: &Held| it.binding.contact.expires_unix_s <= expires_unix_s;
            let at = bindings.iter().position(older).unwrap_or(bindings.len());
            bindings.insert(at, Held { binding, is_adopted: true, is_lost: false });
        }
        match bindings.is_empty() {
            true => self.users.remove(user),
            false => self.users.insert(user.to_owned(), bindings),
        };
        true
    }

    /// Contacts of `user`, newest first, behind them those whose connection is gone.
    pub(crate) fn lookup(&self, wall_unix_s: u64, user: &str) -> Vec<Contact> {
        self.users.get(user).map(|it| live(wall_unix_s, it)).unwrap_or_default()
    }

    /// Where the user's device is, as it has registered last, if its connection stands.
    pub(crate) fn lookup_instance(&self, user: &str, id: &str) -> Option<Contact> {
        let is_it = |it: &&Held| it.binding.instance.as_ref().is_some_and(|it| it.id == id);
        let bindings = self.users.get(user).into_iter().flatten().filter(|it| !it.is_lost);
        bindings.filter(is_it).map(|it| it.binding.contact.clone()).next()
    }

    pub(crate) fn registrations(&self, wall_unix_s: u64) -> Vec<Registration> {
        let users = self.users.iter().map(|(user, bindings)| Registration {
            user: user.clone(),
            contacts: live(wall_unix_s, bindings),
        });
        users.filter(|registration| !registration.contacts.is_empty()).collect()
    }
}

/// The binding that a REGISTER makes.
fn made(wall_unix_s: u64, sender: &Sender<'_>, update: Update) -> Held {
    let Update { uri, instance, expires_s } = update;
    let contact = Contact { uri, peer: sender.peer, expires_unix_s: wall_unix_s + expires_s };
    let call_id = sender.call_id.to_owned();
    let binding = Binding { contact, call_id, cseq: sender.cseq, instance };
    Held { binding, is_adopted: false, is_lost: false }
}

/// Whether both are one: by their URI, or as one device that has registered twice.
fn are_one(a: &Binding, b: &Binding) -> bool {
    let is_beside = a.call_id == b.call_id && a.cseq == b.cseq;
    let is_one_device = a.instance.is_some() && a.instance == b.instance;
    a.contact.uri == b.contact.uri || (is_one_device && !is_beside)
}

/// Whether the URI names this address by its number.
fn is_at(uri: &str, peer: Peer) -> bool {
    let host = SipUri::parse(uri).map(|uri| uri.host);
    host.is_ok_and(|it| {
        let port = it.port.unwrap_or(peer.transport.default_port());
        it.ip() == Some(peer.addr.ip()) && port == peer.addr.port()
    })
}

/// Whether the URI names the address that a connection came from, where nobody listens.
fn is_dialled_from(uri: &str, peer: Peer) -> bool {
    let is_ephemeral = peer.addr.port() >= MIN_EPHEMERAL_PORT;
    peer.transport.is_reliable() && is_ephemeral && is_at(uri, peer)
}

fn live(wall_unix_s: u64, bindings: &[Held]) -> Vec<Contact> {
    let mut bindings: Vec<_> = bindings.iter().filter(|it| it.is_live(wall_unix_s)).collect();
    bindings.sort_by_key(|it| it.is_lost);
    bindings.into_iter().map(|it| it.binding.contact.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Transport;
    use bytes::Bytes;

    #[test]
    fn newest_binding_is_first_and_each_expires_on_its_own() {
        let mut registrar = Registrar::new(10);
        apply(&mut registrar, 1000, 1, "Contact: <sip:a@h>;expires=60").unwrap();
        apply(&mut registrar, 1010, 2, "Contact: sip:b@h\r\nExpires: 99999").unwrap();
        assert_eq!(uris(&registrar, 1059), ["sip:b@h", "sip:a@h"]);
        assert_eq!(uris(&registrar, 1060), ["sip:b@h"]);
        assert_eq!(uris(&registrar, 1010 + MAX_EXPIRES_S), [""; 0]);
        assert_eq!(registrar.registrations(1010 + MAX_EXPIRES_S), []);
    }

    #[test]
    fn star_removes_all_but_only_alone_and_with_expires_0() {
        let mut registrar = Registrar::new(10);
        apply(&mut registrar, 0, 1, "Contact: <sip:a@h>, <sip:b@h>").unwrap();
        assert_eq!(apply(&mut registrar, 0, 2, "Contact: *"), Err(Refusal::Star));
        let both = "Contact: *\r\nContact: <sip:a@h>\r\nExpires: 0";
        assert_eq!(apply(&mut registrar, 0, 2, both), Err(Refusal::Star));
        assert_eq!(uris(&registrar, 1).len(), 2);
        apply(&mut registrar, 0, 2, "Contact: *\r\nExpires: 0").unwrap();
        assert_eq!(uris(&registrar, 1), [""; 0]);
    }

    #[test]
    fn expired_bindings_make_room() {
        let mut registrar = Registrar::new(1);
        apply(&mut registrar, 0, 1, "Contact: <sip:a@h>;expires=60").unwrap();
        let full = apply(&mut registrar, 59, 2, "Contact: <sip:b@h>");
        assert_eq!(full, Err(Refusal::TooMany));
        apply(&mut registrar, 60, 3, "Contact: <sip:b@h>").unwrap();
        assert_eq!(uris(&registrar, 60), ["sip:b@h"]);
    }

    #[test]
    fn refused_order_changes_nothing() {
        let mut registrar = Registrar::new(2);
        apply(&mut registrar, 0, 5, "Contact: <sip:a@h>").unwrap();
        for (text, wanted) in [
            ("Contact: <sip:b@h>;expires=59", Refusal::TooBrief),
            ("Contact: <sip:b@h>, <sip:c@h>", Refusal::TooMany),
            ("Contact: <sip:b@h>, nonsense", Refusal::Contact),
        ] {
            assert_eq!(apply(&mut registrar, 1, 6, text), Err(wanted));
        }
        let late = apply(&mut registrar, 1, 5, "Contact: <sip:b@h>, <sip:a@h>;expires=0");
        assert_eq!(late, Err(Refusal::OutOfOrder));
        assert_eq!(uris(&registrar, 1), ["sip:a@h"]);
        apply(&mut registrar, 1, 6, "").unwrap();
        assert_eq!(uris(&registrar, 1), ["sip:a@h"]);
    }

    #[test]
    fn device_that_comes_again_from_elsewhere_replaces_its_binding_of_the_same_flow() {
        let device = |id: u8, reg_id: &str| format!(";+sip.instance=\"<urn:uuid:{id}>\"{reg_id}");
        let mut registrar = Registrar::new(10);
        let mut comes = |call_id, cseq, port, device: &str| {
            register(&mut registrar, call_id, cseq, port, &format!("{}{device}", own(port)));
            ports(&registrar)
        };
        assert_eq!(comes("c", 1, 40001, &device(1, "")), ["40001"]);
        assert_eq!(comes("c", 2, 40002, &device(1, "")), ["40002"]);
        assert_eq!(comes("after a restart", 1, 5062, &device(1, "")), ["5062"]);
        assert_eq!(comes("another", 1, 40003, &device(2, "")), ["40003", "5062"]);
        assert_eq!(comes("flow", 1, 40004, &device(2, ";reg-id=1")), ["40004", "40003", "5062"]);
        let both = comes("flow 2", 1, 40005, &device(2, ";reg-id=2"));
        assert_eq!(both, ["40005", "40004", "40003", "5062"]);
        let again = comes("flow 2", 2, 40006, &device(2, ";reg-id=1"));
        assert_eq!(again, ["40006", "40005", "40003", "5062"]);
    }

    #[test]
    fn contacts_of_one_register_stay_beside_each_other_and_a_removal_is_of_one() {
        let mut registrar = Registrar::new(10);
        for device in ["", ";+sip.instance=\"<urn:uuid:1>\""] {
            for (cseq, port) in [(1, 40001), (2, 40001), (3, 40002)] {
                let both = format!("{}{device}, <sip:a@192.0.2.1:50000>{device}", own(port));
                register(&mut registrar, device, cseq, port, &both);
                assert_eq!(ports(&registrar), ["50000".to_owned(), port.to_string()], "{device}");
            }
            let removal = format!("{}{device};expires=0", own(40001));
            register(&mut registrar, device, 4, 40002, &removal);
            assert_eq!(ports(&registrar), ["50000", "40002"]);
            register(&mut registrar, device, 5, 40002, "Contact: *\r\nExpires: 0");
        }
    }

    #[test]
    fn phone_whose_contact_is_its_connection_has_one_binding_while_it_does_not_restart() {
        let mut registrar = Registrar::new(10);
        for (call_id, cseq, port, wanted) in [
            ("c", 1, 40001, &["40001"][..]),
            ("c", 2, 40002, &["40002"]),
            ("c", 3, 5060, &["5060", "40002"]), // It listens there.
            ("c", 4, 40003, &["40003", "5060"]),
            ("another", 1, 40004, &["40004", "40003", "5060"]),
        ] {
            register(&mut registrar, call_id, cseq, port, &own(port));
            assert_eq!(ports(&registrar), wanted);
        }
        register(&mut registrar, "c", 5, 40005, "Contact: <sip:b@192.0.2.1:40005>");
        assert_eq!(ports(&registrar).len(), 4, "another name");
        register(&mut registrar, "c", 6, 40005, "Contact: <sip:a@192.0.2.1:40006>");
        assert_eq!(ports(&registrar).len(), 5, "not where it comes from");
        register(&mut registrar, "c", 7, 40005, "Contact: <sip:b@192.0.2.1:40005;transport=tcp>");
        assert_eq!(ports(&registrar).len(), 6, "the same connection");
    }

    #[test]
    fn binding_goes_with_the_connection_whose_own_port_is_its_contact() {
        let mut registrar = Registrar::new(10);
        for port in [40001, 40002, 5060] {
            register(&mut registrar, &port.to_string(), 1, port, &own(port));
        }
        registrar.forget_connection(tcp(40001));
        assert_eq!(ports(&registrar), ["5060", "40002"]);
        registrar.forget_connection(tcp(5060)); // It listens there, but the other is surer.
        assert_eq!(ports(&registrar), ["40002", "5060"]);
        registrar.forget_connection(tcp(40002));
        assert_eq!(ports(&registrar), ["5060"]);
        register(&mut registrar, "40002", 2, 40002, &own(40002));
        register(&mut registrar, "5060", 2, 5060, &own(5060));
        assert_eq!(ports(&registrar), ["5060", "40002"]);
    }

    #[test]
    fn binding_that_was_adopted_outlives_a_connection_that_is_refused_here() {
        let mut registrar = Registrar::new(2);
        let contact = |port| Contact {
            uri: format!("sip:a@192.0.2.1:{port};transport=tcp"),
            peer: tcp(port),
            expires_unix_s: 100,
        };
        let instance = Some(Instance { id: "<urn:uuid:1>".to_owned(), reg_id: None });
        let binding = |port, cseq, instance| Binding {
            contact: Contact { expires_unix_s: 100 + u64::from(cseq), ..contact(port) },
            call_id: "c".to_owned(),
            cseq,
            instance,
        };
        assert!(registrar.adopt(0, "u", binding(40001, 1, instance.clone())));
        registrar.forget_connection(tcp(40001));
        assert_eq!(ports(&registrar), ["40001"]);
        assert!(registrar.adopt(0, "u", binding(40002, 2, instance.clone())));
        assert!(!registrar.adopt(0, "u", binding(40001, 1, instance.clone())), "it is old");
        assert_eq!(ports(&registrar), ["40002"]);
        assert!(registrar.adopt(0, "u", binding(40003, 2, instance)), "it stands beside");
        assert_eq!(ports(&registrar).len(), 2);
        registrar.forget_connection(tcp(40003));
        assert_eq!(apply(&mut registrar, 1, 3, "Contact: <sip:b@h>"), Err(Refusal::TooMany));
    }

    #[test]
    fn above_the_limit_the_oldest_binding_whose_connection_is_gone_makes_room() {
        let mut registrar = Registrar::new(3);
        for port in [5060, 5061, 5062] {
            register(&mut registrar, &port.to_string(), 1, port, &own(port));
        }
        assert_eq!(apply(&mut registrar, 1, 1, "Contact: <sip:b@h:9>"), Err(Refusal::TooMany));
        registrar.forget_connection(tcp(5061));
        registrar.forget_connection(tcp(5062));
        apply(&mut registrar, 1, 1, "Contact: <sip:b@h:9>").unwrap();
        assert_eq!(ports(&registrar), ["9", "5060", "5062"]);
        apply(&mut registrar, 1, 2, "Contact: <sip:b@h:8>").unwrap();
        assert_eq!(ports(&registrar), ["8", "9", "5060"]);
        assert_eq!(apply(&mut registrar, 1, 3, "Contact: <sip:b@h:7>"), Err(Refusal::TooMany));
    }

    fn apply(registrar: &mut Registrar, wall: u64, cseq: u32, text: &str) -> Result<(), Refusal> {
        let peer = Peer::new(Transport::Udp, "192.0.2.1:5060".parse().unwrap());
        registrar.apply(wall, "u", &Sender { peer, call_id: "c", cseq }, order(text)?)
    }

    /// By TCP from a port of the phone, at second 1.
    fn register(registrar: &mut Registrar, call_id: &str, cseq: u32, port: u16, text: &str) {
        let sender = Sender { peer: tcp(port), call_id, cseq };
        registrar.apply(1, "u", &sender, order(text).unwrap()).unwrap();
    }

    fn order(text: &str) -> Result<Order, Refusal> {
        let bytes = Bytes::from(text.to_owned());
        let end = bytes.len();
        Order::read(&Headers::parse(bytes, 0..end).unwrap())
    }

    fn tcp(port: u16) -> Peer {
        Peer::new(Transport::Tcp, ([192, 0, 2, 1], port).into())
    }

    /// A Contact that names the connection it comes over.
    fn own(port: u16) -> String {
        format!("Contact: <sip:a@192.0.2.1:{port};transport=tcp>")
    }

    fn ports(registrar: &Registrar) -> Vec<String> {
        let port = |uri: &String| SipUri::parse(uri).unwrap().host.port.unwrap().to_string();
        uris(registrar, 1).iter().map(port).collect()
    }

    fn uris(registrar: &Registrar, wall: u64) -> Vec<String> {
        registrar.lookup(wall, "u").into_iter().map(|contact| contact.uri).collect()
    }
}
