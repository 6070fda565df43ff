//! Our answer to a digest challenge (RFC 7616 §3.4 and RFC 8760, as RFC 3261 §22 uses them).

use crate::digest::{Algorithm, strip_scheme};
use crate::param::{self, Params};
use std::fmt;

/// What we prove who we are with; the password is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// One challenge that we can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    algorithm: Option<Algorithm>,
    /// It offers `auth`; else it is one of RFC 2069.
    has_qop: bool,
    /// Our password was right, the nonce too old.
    pub(crate) is_stale: bool,
}

impl Challenge {
    /// The strongest one that can be answered, of all values of WWW-Authenticate or
    /// Proxy-Authenticate: SHA-256 before MD5, each with `auth` or without `qop`.
    pub(crate) fn choose<'a>(values: impl Iterator<Item = &'a str>) -> Option<Self> {
        let known = values.filter_map(Self::parse);
        known.max_by_key(|it| it.algorithm == Some(Algorithm::Sha256))
    }

    fn parse(value: &str) -> Option<Self> {
        let fields: Vec<_> = param::split(strip_scheme(value)?, b',').collect();
        let get = |name| fields.iter().find_map(|it| Params(it).get(name)).map(param::unquote);
        let algorithm = match get("algorithm") {
            None => None,
            Some(name) if name.eq_ignore_ascii_case("MD5") => Some(Algorithm::Md5),
            Some(name) if name.eq_ignore_ascii_case("SHA-256") => Some(Algorithm::Sha256),
            Some(_) => return None,
        };
        let qop = get("qop");
        let offers_auth = |qop: &str| qop.split(',').any(|it| it.trim() == "auth");
        if qop.as_deref().is_some_and(|qop| !offers_auth(qop)) {
            return None;
        }
        Some(Self {
            realm: get("realm")?,
            nonce: get("nonce")?,
            opaque: get("opaque"),
            algorithm,
            has_qop: qop.is_some(),
            is_stale: get("stale").is_some_and(|it| it.eq_ignore_ascii_case("true")),
        })
    }

    /// Value of Authorization or Proxy-Authorization: the first use of the nonce. `cnonce` must be
    /// unguessable.
    pub(crate) fn answer(
        &self,
        credentials: &Credentials,
        method: &str,
        uri: &str,
        cnonce: &str,
    ) -> String {
        let algorithm = self.algorithm.unwrap_or(Algorithm::Md5);
        let Credentials { user, password } = credentials;
        let (realm, nonce) = (&self.realm, &self.nonce);
        let a1 = algorithm.hash(&format!("{user}:{realm}:{password}"));
        let a2 = algorithm.hash(&format!("{method}:{uri}"));
        let response = match self.has_qop {
            true => algorithm.hash(&format!("{a1}:{nonce}:00000001:{cnonce}:auth:{a2}")),
            false => algorithm.hash(&format!("{a1}:{nonce}:{a2}")),
        };
        let quote = |text: &str| param::quote(text);
        let mut value = format!(
            "Digest username={}, realm={}, nonce={}, uri={}, response=\"{response}\"",
            quote(user),
            quote(realm),
            quote(nonce),
            quote(uri),
        );
        if let Some(algorithm) = self.algorithm {
            value += &format!(", algorithm={}", algorithm.name());
        }
        if let Some(opaque) = &self.opaque {
            value += &format!(", opaque={}", quote(opaque));
        }
        if self.has_qop {
            value += &format!(", qop=auth, nc=00000001, cnonce=\"{cnonce}\"");
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_those_of_rfc_7616_section_3_9_1_and_rfc_2069() {
        let credentials =
            Credentials { user: "Mufasa".to_owned(), password: "Circle of Life".to_owned() };
        let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
        let challenge = |more: &str| {
            let value = format!("Digest realm=\"http-auth@example.org\", nonce=\"{nonce}\"{more}");
            Challenge::choose([value.as_str()].into_iter()).unwrap()
        };
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        for (more, wanted) in [
            (", qop=\"auth, auth-int\", algorithm=MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            (
                ", qop=auth, algorithm=SHA-256",
                "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            ),
        ] {
            let answer = challenge(more).answer(&credentials, "GET", "/dir/index.html", cnonce);
            assert!(answer.contains(&format!("response=\"{wanted}\"")), "{answer}");
            assert!(answer.contains("qop=auth, nc=00000001"), "{answer}");
        }
        let old = challenge(", opaque=\"o\"").answer(&credentials, "GET", "/", cnonce);
        assert!(old.contains("opaque=\"o\"") && !old.contains("qop") && !old.contains("algorithm"));
    }

    #[test]
    fn the_strongest_challenge_that_can_be_answered_is_chosen() {
        let md5 = "Digest realm=\"r\", nonce=\"m\", qop=\"auth\"";
        let sha = "Digest realm=\"r\", nonce=\"s\", qop=\"auth\", algorithm=SHA-256, stale=TRUE";
        let sess = "Digest realm=\"r\", nonce=\"x\", algorithm=MD5-sess";
        let int = "Digest realm=\"r\", nonce=\"i\", qop=\"auth-int\"";
        let choose = |values: &[&'static str]| Challenge::choose(values.iter().copied());
        let chosen = choose(&[md5, sha, sess, int]).unwrap();
        assert_eq!((chosen.nonce.as_str(), chosen.is_stale), ("s", true));
        assert_eq!(choose(&[sess, md5]).unwrap().nonce, "m");
        assert_eq!(choose(&[sess, int, "Basic realm=\"r\""]), None);
    }

    #[test]
    fn the_password_is_not_in_the_debug_text() {
        let credentials = Credentials { user: "u".to_owned(), password: "geheim".to_owned() };
        assert!(!format!("{credentials:?}").contains("geheim"));
    }
}
