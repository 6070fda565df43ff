//! Bindings of addresses-of-record (RFC 3261 §10.3). Time is Unix seconds from the caller.

use crate::header::{Headers, Name};
use crate::name_addr::NameAddr;
use crate::peer::Peer;
use crate::uri::{SipUri, is_uri};
use crate::user_agent::{Contact, Registration};
use crate::via::DEFAULT_PORT;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Shortest binding in seconds, but for 0, which removes it; below it 423.
pub(crate) const MIN_EXPIRES_S: u64 = 60;
/// Longest binding, and the default, in seconds; what asks for more gets this.
pub(crate) const MAX_EXPIRES_S: u64 = 3600;

/// What a REGISTER asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// No Contact: tell the bindings.
    Fetch,
    /// `Contact: *` with `Expires: 0`.
    RemoveAll,
    /// Contact URI and seconds; 0 removes it.
    Update(Vec<(String, u64)>),
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
                updates.push((contact.uri.to_owned(), expires_s));
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
}

/// Who sent a REGISTER: order among those of one Call-ID is by CSeq.
pub(crate) struct Sender<'a> {
    pub(crate) peer: Peer,
    pub(crate) call_id: &'a str,
    pub(crate) cseq: u32,
}

pub(crate) struct Registrar {
    max_bindings_per_user: usize,
    /// Newest binding first; users without bindings are not in here.
    users: BTreeMap<String, Vec<Binding>>,
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
        let mut bindings = self.users.get(user).cloned().unwrap_or_default();
        bindings.retain(|binding| binding.contact.expires_unix_s > wall_unix_s);
        let old = |it: &Binding| it.call_id == sender.call_id && it.cseq >= sender.cseq;
        let is_late = bindings.iter().any(old);
        match order {
            Order::Fetch => (),
            Order::RemoveAll | Order::Update(_) if is_late => return Err(Refusal::OutOfOrder),
            Order::RemoveAll => bindings.clear(),
            Order::Update(updates) => {
                for (uri, expires_s) in updates {
                    bindings.retain(|it| it.contact.uri != uri);
                    if expires_s > 0 {
                        let expires_unix_s = wall_unix_s + expires_s;
                        let contact = Contact { uri, peer: sender.peer, expires_unix_s };
                        let call_id = sender.call_id.to_owned();
                        bindings.insert(0, Binding { contact, call_id, cseq: sender.cseq });
                    }
                    if bindings.len() > self.max_bindings_per_user {
                        return Err(Refusal::TooMany);
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
    /// at the port it came from. Where the Contact names that very address, somebody listens.
    pub(crate) fn forget_connection(&mut self, peer: Peer) {
        self.users.retain(|_, bindings| {
            bindings.retain(|it| it.contact.peer != peer || is_at(&it.contact.uri, peer.addr));
            !bindings.is_empty()
        });
    }

    /// As [`Registrar::lookup`], whole.
    pub(crate) fn bindings(&self, wall_unix_s: u64, user: &str) -> Vec<Binding> {
        let bindings = self.users.get(user).into_iter().flatten();
        bindings.filter(|it| it.contact.expires_unix_s > wall_unix_s).cloned().collect()
    }

    /// Takes over a binding of another registrar of this record, or its removal (it expires at 0);
    /// false if that changes nothing.
    pub(crate) fn adopt(&mut self, wall_unix_s: u64, user: &str, binding: Binding) -> bool {
        let mut bindings = self.bindings(wall_unix_s, user);
        let is_same = |it: &Binding| it.contact.uri == binding.contact.uri;
        let known = bindings.iter().find(|it| is_same(it)).map(|it| it.contact.expires_unix_s);
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
            let older = |it: &Binding| it.contact.expires_unix_s <= expires_unix_s;
            let at = bindings.iter().position(older).unwrap_or(bindings.len());
            bindings.insert(at, binding);
        }
        match bindings.is_empty() {
            true => self.users.remove(user),
            false => self.users.insert(user.to_owned(), bindings),
        };
        true
    }

    /// Bindings of `user`, newest first.
    pub(crate) fn lookup(&self, wall_unix_s: u64, user: &str) -> Vec<Contact> {
        self.users.get(user).map(|it| live(wall_unix_s, it)).unwrap_or_default()
    }

    pub(crate) fn registrations(&self, wall_unix_s: u64) -> Vec<Registration> {
        let users = self.users.iter().map(|(user, bindings)| Registration {
            user: user.clone(),
            contacts: live(wall_unix_s, bindings),
        });
        users.filter(|registration| !registration.contacts.is_empty()).collect()
    }
}

/// Whether the URI names this address by its number.
fn is_at(uri: &str, addr: SocketAddr) -> bool {
    let host = SipUri::parse(uri).map(|uri| uri.host);
    host.is_ok_and(|it| {
        it.ip() == Some(addr.ip()) && it.port.unwrap_or(DEFAULT_PORT) == addr.port()
    })
}

fn live(wall_unix_s: u64, bindings: &[Binding]) -> Vec<Contact> {
    let contacts = bindings.iter().map(|binding| &binding.contact);
    contacts.filter(|contact| contact.expires_unix_s > wall_unix_s).cloned().collect()
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

    fn apply(registrar: &mut Registrar, wall: u64, cseq: u32, text: &str) -> Result<(), Refusal> {
        let bytes = Bytes::from(text.to_owned());
        let end = bytes.len();
        let headers = Headers::parse(bytes, 0..end).unwrap();
        let addr = "192.0.2.1:5060".parse().unwrap();
        let peer = Peer::new(Transport::Udp, addr);
        registrar.apply(wall, "u", &Sender { peer, call_id: "c", cseq }, Order::read(&headers)?)
    }

    fn uris(registrar: &Registrar, wall: u64) -> Vec<String> {
        registrar.lookup(wall, "u").into_iter().map(|contact| contact.uri).collect()
    }
}
