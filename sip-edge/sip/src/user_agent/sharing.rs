//! Bindings that replicas share: what this one has accepted, and what others have.

use super::UserAgent;
use crate::registrar::Binding;

impl UserAgent {
    /// The bindings of `user` that have not run out, newest first, as others are to know them.
    pub fn bindings(&self, wall_unix_s: u64, user: &str) -> Vec<Binding> {
        self.registrar.bindings(wall_unix_s, user)
    }

    /// Takes over a binding that another replica has accepted, or has removed if it expires at 0.
    /// False if nothing changes: the user is not ours, it has run out, or we know it as well.
    pub fn adopt(&mut self, wall_unix_s: u64, user: &str, binding: Binding) -> bool {
        self.config.users.contains_key(user) && self.registrar.adopt(wall_unix_s, user, binding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Contact, HostPort, Peer, Transport};

    #[test]
    fn a_binding_is_adopted_once_replaced_by_a_later_one_and_removed() {
        let mut ua = agent();
        assert!(!ua.adopt(100, "nobody", binding("sip:a@h", 200)));
        assert!(!ua.adopt(100, "anna", binding("sip:a@h", 100)), "it has run out");
        assert!(ua.adopt(100, "anna", binding("sip:a@h", 200)));
        assert!(!ua.adopt(100, "anna", binding("sip:a@h", 200)), "it is known");
        assert!(!ua.adopt(100, "anna", binding("sip:a@h", 150)), "it is old");
        assert!(ua.adopt(100, "anna", binding("sip:b@h", 300)));
        assert!(ua.adopt(100, "anna", binding("sip:a@h", 400)));
        let uris = |ua: &UserAgent| {
            ua.bindings(100, "anna").into_iter().map(|it| it.contact.uri).collect::<Vec<_>>()
        };
        assert_eq!(uris(&ua), ["sip:a@h", "sip:b@h"]);
        assert!(ua.adopt(100, "anna", binding("sip:a@h", 0)));
        assert!(!ua.adopt(100, "anna", binding("sip:a@h", 0)), "it is gone");
        assert_eq!(uris(&ua), ["sip:b@h"]);
        for number in 0..20 {
            ua.adopt(100, "anna", binding(&format!("sip:{number}@h"), 200));
        }
        assert_eq!(uris(&ua).len(), 10);
    }

    fn binding(uri: &str, expires_unix_s: u64) -> Binding {
        let peer = Peer::new(Transport::Udp, "192.0.2.1:5060".parse().unwrap());
        let contact = Contact { uri: uri.to_owned(), peer, expires_unix_s };
        Binding { contact, call_id: "c".to_owned(), cseq: 1, instance: None }
    }

    fn agent() -> UserAgent {
        let mut config = Config::new(HostPort::new("198.51.100.1", 5060));
        config.users = [("anna".to_owned(), "secret".to_owned())].into();
        UserAgent::new(config, 1)
    }
}
