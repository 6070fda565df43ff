//! Digest authentication of those who call us (RFC 7616 and 8760, as RFC 3261 §22 uses it).
//!
//! A nonce carries its own date and a keyed hash, so that challenges cost no memory; only a nonce
//! that was used once with the right password is remembered, for its nonce count.

use crate::param::{self, Params};
use md5::Md5;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Nonces in use at once; above it a new one is called stale.
const MAX_NONCES: usize = 100_000;

/// What an Authorization proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// No Authorization for our realm.
    Absent,
    /// The name of a user who knows the password.
    Valid(String),
    /// Right password, but the nonce is too old or was used before.
    Stale,
    /// Wrong in any other way.
    Wrong,
}

/// What a password is proved with (RFC 7616 §3.3, RFC 8760).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Md5,
    Sha256,
}

impl Algorithm {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Sha256 => "SHA-256",
        }
    }

    pub(crate) fn hash(self, text: &str) -> String {
        match self {
            Algorithm::Md5 => hex(&Md5::digest(text)),
            Algorithm::Sha256 => hex(&Sha256::digest(text)),
        }
    }
}

/// Makes challenges and checks what comes back.
pub(crate) struct Authenticator {
    realm: String,
    users: HashMap<String, String>,
    algorithms: Vec<Algorithm>,
    nonce_life_s: u64,
    secret: String,
    issued: u64,
    /// Nonce → its date and the highest nonce count that was used.
    used: HashMap<String, (u64, u32)>,
}

impl Authenticator {
    pub(crate) fn new(
        realm: String,
        users: HashMap<String, String>,
        algorithms: Vec<Algorithm>,
        nonce_life: Duration,
        secret: [u64; 2],
    ) -> Self {
        let secret = format!("{:016x}{:016x}", secret[0], secret[1]);
        let nonce_life_s = nonce_life.as_secs();
        Self { realm, users, algorithms, nonce_life_s, secret, issued: 0, used: HashMap::new() }
    }

    /// Values of WWW-Authenticate, in the order of the algorithms (RFC 8760 §2.3: strongest first);
    /// one nonce for all.
    pub(crate) fn challenge(&mut self, wall_unix_s: u64, stale: bool) -> Vec<String> {
        self.issued += 1;
        let nonce = self.nonce(wall_unix_s, self.issued);
        let realm = param::quote(&self.realm);
        let stale = if stale { ", stale=true" } else { "" };
        let challenge = |algorithm: &Algorithm| {
            let name = algorithm.name();
            format!(
                "Digest realm={realm}, nonce=\"{nonce}\", algorithm={name}, qop=\"auth\"{stale}"
            )
        };
        self.algorithms.iter().map(challenge).collect()
    }

    /// Date, number and keyed hash of both.
    fn nonce(&self, unix_s: u64, number: u64) -> String {
        let plain = format!("{unix_s:x}.{number:x}");
        let seal = Algorithm::Sha256.hash(&format!("{}:{plain}:{}", self.secret, self.secret));
        format!("{plain}.{}", &seal[..32])
    }

    /// The date of a nonce that is ours.
    fn date(&self, nonce: &str) -> Option<u64> {
        let mut parts = nonce.split('.').map(|part| u64::from_str_radix(part, 16).ok());
        let (unix_s, number) = (parts.next()??, parts.next()??);
        (self.nonce(unix_s, number) == nonce).then_some(unix_s)
    }

    /// Judges the Authorization values of one request.
    pub(crate) fn verify<'a>(
        &mut self,
        wall_unix_s: u64,
        method: &str,
        values: impl Iterator<Item = &'a str>,
    ) -> Proof {
        let mut proof = Proof::Absent;
        for value in values {
            let Some(fields) = strip_scheme(value) else { continue };
            let fields: Fields<'_> = param::split(fields, b',').collect();
            if get(&fields, "realm").as_deref() != Some(self.realm.as_str()) {
                continue;
            }
            proof = self.verify_one(wall_unix_s, method, &fields).unwrap_or(Proof::Wrong);
            if matches!(proof, Proof::Valid(_)) {
                break;
            }
        }
        proof
    }

    /// `None` if a field is missing or no such user exists.
    fn verify_one(&mut self, wall_unix_s: u64, method: &str, fields: &Fields<'_>) -> Option<Proof> {
        let user = get(fields, "username")?;
        let nonce = get(fields, "nonce")?;
        let uri = get(fields, "uri")?;
        let (nc, cnonce) = (get(fields, "nc")?, get(fields, "cnonce")?);
        let count = u32::from_str_radix(&nc, 16).ok().filter(|_| nc.len() == 8)?;
        let algorithm = match get(fields, "algorithm").as_deref() {
            Some(name) if name.eq_ignore_ascii_case("SHA-256") => Algorithm::Sha256,
            Some(name) if name.eq_ignore_ascii_case("MD5") => Algorithm::Md5,
            None => Algorithm::Md5,
            Some(_) => return None,
        };
        if !self.algorithms.contains(&algorithm) {
            return None;
        }
        if get(fields, "qop")? != "auth" {
            return None;
        }
        let password = self.users.get(&user)?;
        let a1 = algorithm.hash(&format!("{user}:{}:{password}", self.realm));
        let a2 = algorithm.hash(&format!("{method}:{uri}"));
        let wanted = algorithm.hash(&format!("{a1}:{nonce}:{nc}:{cnonce}:auth:{a2}"));
        if !same(&wanted, &get(fields, "response")?.to_ascii_lowercase()) {
            return None;
        }
        match self.date(&nonce) {
            Some(date) if self.use_once(wall_unix_s, nonce, date, count) => {
                Some(Proof::Valid(user))
            }
            _ => Some(Proof::Stale),
        }
    }

    /// Whether the nonce is young enough and this count of it is new.
    fn use_once(&mut self, wall_unix_s: u64, nonce: String, date: u64, count: u32) -> bool {
        let life = self.nonce_life_s;
        let young = |date: u64| wall_unix_s.saturating_sub(date) < life;
        if !young(date) {
            return false;
        }
        if self.used.len() >= MAX_NONCES && !self.used.contains_key(&nonce) {
            self.used.retain(|_, (date, _)| young(*date));
            if self.used.len() >= MAX_NONCES {
                return false;
            }
        }
        let (_, highest) = self.used.entry(nonce).or_insert((date, 0));
        let is_new = count > *highest;
        *highest = count.max(*highest);
        is_new
    }
}

type Fields<'a> = Vec<&'a str>;

fn get(fields: &Fields<'_>, name: &str) -> Option<String> {
    fields.iter().find_map(|field| Params(field).get(name)).map(param::unquote)
}

pub(crate) fn strip_scheme(value: &str) -> Option<&str> {
    let (scheme, rest) = value.split_once([' ', '\t'])?;
    scheme.eq_ignore_ascii_case("Digest").then_some(rest)
}

/// Compares in a time that does not depend on where the first difference is.
fn same(a: &str, b: &str) -> bool {
    let difference = a.bytes().zip(b.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    a.len() == b.len() && difference == 0
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // Writing to a String cannot fail.
        text
    })
}

/// The Authorization value that answers a challenge: the other side of this file, for tests.
#[cfg(test)]
pub(crate) fn authorize(
    challenge: &str,
    user: &str,
    password: &str,
    method: &str,
    uri: &str,
    nc: u32,
) -> String {
    let fields: Fields<'_> = param::split(strip_scheme(challenge).unwrap(), b',').collect();
    let field = |name| get(&fields, name).unwrap();
    let (realm, nonce, name) = (field("realm"), field("nonce"), field("algorithm"));
    let algorithm = if name == "MD5" { Algorithm::Md5 } else { Algorithm::Sha256 };
    let a1 = algorithm.hash(&format!("{user}:{realm}:{password}"));
    let a2 = algorithm.hash(&format!("{method}:{uri}"));
    let response = algorithm.hash(&format!("{a1}:{nonce}:{nc:08x}:c0ffee:auth:{a2}"));
    format!(
        "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
         algorithm={name}, qop=auth, nc={nc:08x}, cnonce=\"c0ffee\", response=\"{response}\""
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_rfc_7616_section_3_9_1() {
        let (md5, sha) = (Algorithm::Md5, Algorithm::Sha256);
        for (algorithm, wanted) in [
            (md5, "8ca523f5e9506fed4657c9700eebdbec"),
            (sha, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let a1 = algorithm.hash("Mufasa:http-auth@example.org:Circle of Life");
            let a2 = algorithm.hash("GET:/dir/index.html");
            let (nonce, cnonce) = (
                "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
                "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
            );
            let response = algorithm.hash(&format!("{a1}:{nonce}:00000001:{cnonce}:auth:{a2}"));
            assert_eq!(response, wanted);
        }
    }

    #[test]
    fn right_password_is_valid_by_both_algorithms() {
        for algorithm in [0, 1] {
            let mut auth = authenticator();
            let challenge = auth.challenge(1000, false).remove(algorithm);
            let value = authorize(&challenge, "anna", "secret", "REGISTER", "sip:h", 1);
            let proof = auth.verify(1299, "REGISTER", [value.as_str()].into_iter());
            assert_eq!(proof, Proof::Valid("anna".into()), "{challenge}");
        }
    }

    #[test]
    fn an_algorithm_that_was_not_offered_proves_nothing() {
        let mut auth = authenticator();
        let sha_256 = auth.challenge(1000, false).remove(0);
        let value = authorize(&sha_256, "anna", "secret", "REGISTER", "sip:h", 1);
        auth.algorithms = vec![Algorithm::Md5];
        assert_eq!(auth.challenge(1000, false).len(), 1);
        assert_eq!(auth.verify(1000, "REGISTER", [value.as_str()].into_iter()), Proof::Wrong);
    }

    #[test]
    fn old_or_repeated_or_foreign_nonce_is_stale_and_all_else_wrong() {
        let mut auth = authenticator();
        let challenge = auth.challenge(1000, false).remove(0);
        let mut check = |wall, user: &str, password: &str, method: &str, nc, nonce: &str| {
            let challenge = challenge.replace("nonce=\"", &format!("nonce=\"{nonce}"));
            let value = authorize(&challenge, user, password, "REGISTER", "sip:h", nc);
            auth.verify(wall, method, [value.as_str()].into_iter())
        };
        let valid = Proof::Valid("anna".into());
        assert_eq!(check(1000, "anna", "wrong", "REGISTER", 1, ""), Proof::Wrong);
        assert_eq!(check(1000, "nobody", "secret", "REGISTER", 1, ""), Proof::Wrong);
        assert_eq!(check(1000, "anna", "secret", "INVITE", 1, ""), Proof::Wrong);
        assert_eq!(check(1000, "anna", "secret", "REGISTER", 1, "1"), Proof::Stale);
        assert_eq!(check(1299, "anna", "secret", "REGISTER", 1, ""), valid);
        assert_eq!(check(1299, "anna", "secret", "REGISTER", 1, ""), Proof::Stale);
        assert_eq!(check(1299, "anna", "secret", "REGISTER", 2, ""), valid);
        assert_eq!(check(1300, "anna", "secret", "REGISTER", 3, ""), Proof::Stale);
    }

    fn authenticator() -> Authenticator {
        let users = HashMap::from([("anna".to_owned(), "secret".to_owned())]);
        let algorithms = vec![Algorithm::Sha256, Algorithm::Md5];
        Authenticator::new("holdfast".into(), users, algorithms, Duration::from_secs(300), [1, 2])
    }
}
