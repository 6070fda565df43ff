//! Where an agent is rung: a SIP URI, or a registered user.

use crate::{Malformed, Uri};
use std::sync::Arc;

/// Longest address, in bytes.
const ADDRESS_MAX: usize = 255;
/// Longest user name in an address, in bytes.
const USER_MAX: usize = 64;

/// A SIP URI, or `user/NAME` for a registered user; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(Arc<str>);

/// What of an address counts when it is compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AddressKey {
    User(String),
    Uri(Uri),
}

impl Address {
    /// `field` is named in the error.
    ///
    /// # Errors
    /// [`Malformed`] if it is neither, or longer than 255 bytes.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, Malformed> {
        if key(text).is_none() {
            let wanted = "`sip:USER@HOST` of at most 255 bytes, or `user/NAME` with 1 to 64 of [A-Za-z0-9_.+-]";
            return Err(Malformed::new(field, text, wanted));
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn key(&self) -> AddressKey {
        key(&self.0).expect("it was parsed")
    }
}

impl AddressKey {
    /// Whom `remote`, the far end of a leg, may be: somebody with this very address, or the
    /// registered user of that name.
    pub(crate) fn of_remote(remote: &str) -> impl Iterator<Item = Self> {
        let exact = key(remote);
        let user = match &exact {
            Some(Self::Uri(uri)) => uri.user().map(|user| Self::User(user.to_owned())),
            _ => None,
        };
        exact.into_iter().chain(user)
    }
}

fn key(text: &str) -> Option<AddressKey> {
    let named = |c: char| c.is_ascii_alphanumeric() || "_.+-".contains(c);
    match text.strip_prefix("user/") {
        Some(name) => {
            let valid = (1..=USER_MAX).contains(&name.len()) && name.chars().all(named);
            valid.then(|| AddressKey::User(name.to_owned()))
        }
        None if text.len() <= ADDRESS_MAX => Uri::parse("address", text).ok().map(AddressKey::Uri),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_sip_uri_or_a_user() {
        for good in ["sip:1001@10.0.0.5:5062;transport=tcp", "sips:a@b.example", "user/1001"] {
            assert_eq!(Address::parse("agent", good).unwrap().as_str(), good);
        }
        let long = format!("sip:{}@b", "a".repeat(300));
        for bad in ["", "1001", "user/", "user/a b", "sip:", "tel:+491", "sip:a@b\r\nX: y", &long] {
            Address::parse("agent", bad).unwrap_err();
        }
    }

    #[test]
    fn the_far_end_of_a_leg_is_known_by_its_address_or_as_a_user() {
        let known = |address: &str, remote: &str| {
            let key = Address::parse("agent", address).unwrap().key();
            AddressKey::of_remote(remote).any(|it| it == key)
        };
        assert!(known("user/1001", "user/1001"));
        assert!(known("user/1001", "sip:1001@holdfast.example"));
        assert!(known("sip:1001@10.0.0.5", "SIP:1001@10.0.0.5:5060;transport=udp"));
        assert!(!known("sip:1001@10.0.0.5", "sip:1001@10.0.0.6"));
        assert!(!known("user/1001", "sip:1002@holdfast.example"));
        assert!(!known("user/1001", "not an address"));
    }
}
