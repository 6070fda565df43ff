//! Trunks: carriers and other systems that we exchange calls with, as the dial plan has them.

use crate::locate::Wanted;
use crate::plan::Invalid;
use crate::target::SipUri;
use anyhow::{Context as _, bail};
use ipnet::IpNet;
use proto::sip_edge::v1 as wire;
use sip::{Credentials, HostPort};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

/// Trunks of a dial plan.
const TRUNKS_MAX: usize = 1_000;
/// Sources, and prefixes, of one.
const ENTRIES_MAX: usize = 1_000;
/// Seconds that a registration asks for: least, default, most.
const EXPIRES_S: [u32; 3] = [60, 3_600, 86_400];
/// Longest file with a password.
const SECRET_BYTES_MAX: u64 = 4_096;

#[derive(Debug)]
pub(crate) struct Trunk {
    pub(crate) name: String,
    /// The registrar, and where calls go: `sip:` and what follows the user part.
    uri: SipUri,
    wanted: Wanted,
    user: Option<String>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) register: bool,
    pub(crate) expires_s: u32,
    sources: Vec<IpNet>,
    prefixes: Vec<String>,
}

/// All of a dial plan.
#[derive(Debug, Default)]
pub(crate) struct Trunks(Vec<Arc<Trunk>>);

impl Trunks {
    /// `folder` is where relative paths of secrets begin.
    ///
    /// # Errors
    /// Which trunk and field, and what is wanted.
    pub(crate) fn read(wire: &[wire::Trunk], folder: &Path) -> anyhow::Result<Self> {
        if wire.len() > TRUNKS_MAX {
            let wanted = format!("at most {TRUNKS_MAX}");
            return Err(Invalid::new("trunks", wire.len(), wanted).into());
        }
        let mut trunks: Vec<Arc<Trunk>> = Vec::with_capacity(wire.len());
        for trunk in wire {
            let read = Trunk::read(trunk, folder);
            let read = read.with_context(|| format!("trunk {:?}", trunk.name))?;
            if trunks.iter().any(|it| it.name == read.name) {
                bail!("trunk {:?}: got the name twice, wanted one of its own", read.name);
            }
            trunks.push(Arc::new(read));
        }
        Ok(Self(trunks))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Trunk>> {
        self.0.iter()
    }

    pub(crate) fn named(&self, name: &str) -> Option<Arc<Trunk>> {
        self.0.iter().find(|it| it.name == name).cloned()
    }

    /// The one with the longest prefix of this number; the first of those that have the same.
    pub(crate) fn for_number(&self, number: &str) -> Option<Arc<Trunk>> {
        let longest = |trunk: &Trunk| {
            let fits = trunk.prefixes.iter().filter(|it| number.starts_with(it.as_str()));
            fits.map(String::len).max()
        };
        let fits = self.0.iter().rev().filter_map(|it| Some((longest(it)?, it)));
        fits.max_by_key(|(len, _)| *len).map(|(_, trunk)| trunk.clone())
    }

    /// The one that is at this host and port.
    pub(crate) fn at(&self, host_port: &HostPort) -> Option<Arc<Trunk>> {
        self.0.iter().find(|it| it.uri.host_port.is_same(host_port)).cloned()
    }

    /// Where the calls of trunks come from.
    pub(crate) fn sources(&self) -> impl Iterator<Item = IpNet> {
        self.0.iter().flat_map(|it| it.sources.iter().copied())
    }
}

impl Trunk {
    fn read(wire: &wire::Trunk, folder: &Path) -> anyhow::Result<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if wire.name.is_empty() || wire.name.len() > 64 || !wire.name.chars().all(plain) {
            return Err(Invalid::new("name", &wire.name, "1 to 64 of [A-Za-z0-9_.-]").into());
        }
        let wanted = "`sip:HOST[:PORT][;transport=udp|tcp|tls]`";
        let uri = SipUri::parse(&wire.uri).filter(|uri| uri.user.is_none());
        let uri = uri.ok_or_else(|| Invalid::new("uri", &wire.uri, wanted))?;
        let user = Some(wire.user.clone()).filter(|it| !it.is_empty());
        let is_user = |user: &String| SipUri::parse(&format!("sip:{user}@h")).is_some();
        if user.as_ref().is_some_and(|user| !is_user(user) || user.contains([':', '@'])) {
            return Err(Invalid::new("user", &wire.user, "the user part of a SIP URI").into());
        }
        if wire.register && user.is_none() {
            return Err(Invalid::new("user", "nothing", "a user, to register as it").into());
        }
        let expires_s = if wire.expires_s == 0 { EXPIRES_S[1] } else { wire.expires_s };
        if !(EXPIRES_S[0]..=EXPIRES_S[2]).contains(&expires_s) {
            return Err(Invalid::new("expires_s", expires_s, "60 to 86400").into());
        }
        let prefix = |it: &String| !it.is_empty() && it.len() <= 64 && is_user(it);
        if let Some(bad) = wire.prefixes.iter().find(|it| !prefix(it)) {
            return Err(Invalid::new("prefixes", bad, "how numbers begin, e.g. `+49`").into());
        }
        for (field, entries) in [("sources", &wire.sources), ("prefixes", &wire.prefixes)] {
            if entries.len() > ENTRIES_MAX {
                let wanted = format!("at most {ENTRIES_MAX}");
                return Err(Invalid::new(field, entries.len(), wanted).into());
            }
        }
        let password = match wire.secret_file.as_str() {
            "" => None,
            file => {
                Some(secret(&folder.join(file)).with_context(|| format!("secret_file: {file}"))?)
            }
        };
        let credentials = user.clone().zip(password);
        let HostPort { host, port } = uri.host_port.clone();
        Ok(Self {
            name: wire.name.clone(),
            wanted: Wanted { host, port, transport: uri.transport },
            uri,
            user,
            credentials: credentials.map(|(user, password)| Credentials { user, password }),
            register: wire.register,
            expires_s,
            sources: wire.sources.iter().map(|it| block(it)).collect::<Result<_, _>>()?,
            prefixes: wire.prefixes.clone(),
        })
    }

    /// Where it is served.
    pub(crate) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// The registrar.
    pub(crate) fn uri(&self) -> &str {
        &self.uri.text
    }

    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The request URI of a call to `number`.
    pub(crate) fn uri_of(&self, number: &str) -> String {
        let place = self.uri.text.get("sip:".len()..).unwrap_or_default();
        format!("sip:{number}@{place}")
    }

    /// Whom the trunk knows us as; From of what goes through it.
    pub(crate) fn record(&self) -> Option<String> {
        let user = self.user.as_ref()?;
        Some(format!("sip:{user}@{}", self.uri.host_port))
    }

    /// Whether its calls come from there.
    pub(crate) fn has_source(&self, ip: IpAddr) -> bool {
        self.sources.iter().any(|block| block.contains(&ip))
    }
}

/// The first line of a file.
fn secret(file: &Path) -> anyhow::Result<String> {
    let length = std::fs::metadata(file).context("read it")?.len();
    if length > SECRET_BYTES_MAX {
        bail!("got {length} bytes, wanted a password on its first line");
    }
    let text = std::fs::read_to_string(file).context("read it")?;
    match text.lines().next().map(str::trim).filter(|it| !it.is_empty()) {
        Some(secret) => Ok(secret.to_owned()),
        None => bail!("got nothing, wanted a password on its first line"),
    }
}

/// An address or a CIDR block.
pub(crate) fn block(text: &str) -> Result<IpNet, Invalid> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address
        .or_else(|_| text.parse())
        .map_err(|_| Invalid::new("source", text, "an address or a CIDR block, e.g. `10.0.0.0/8`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_of_a_number_decides() {
        let trunk = |name: &str, prefixes: &[&str]| wire::Trunk {
            name: name.to_owned(),
            uri: format!("sip:{name}.example;transport=tls"),
            user: "us".to_owned(),
            prefixes: prefixes.iter().map(|it| (*it).to_owned()).collect(),
            ..wire::Trunk::default()
        };
        let trunks = [trunk("a", &["+4", "0"]), trunk("b", &["+49", "+1"]), trunk("c", &["+49"])];
        let trunks = Trunks::read(&trunks, Path::new(".")).unwrap();
        let chosen = |number: &str| trunks.for_number(number).map(|it| it.name.clone());
        let wanted = |name: &str| Some(name.to_owned());
        assert_eq!(chosen("+4930"), wanted("b"));
        assert_eq!(chosen("+44"), wanted("a"));
        assert_eq!(chosen("123"), None);
        let trunk = trunks.named("a").unwrap();
        assert_eq!(trunk.uri_of("+49"), "sip:+49@a.example;transport=tls");
        assert_eq!(trunk.record().as_deref(), Some("sip:us@a.example"));
        let at = trunks.at(&HostPort::new("C.example", 5060));
        assert_eq!(at.map(|it| it.name.clone()), wanted("c"));
    }

    #[test]
    fn an_error_names_trunk_and_field_and_never_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("empty"), "\n").unwrap();
        std::fs::write(folder.path().join("good"), " geheim \nmore").unwrap();
        let good = wire::Trunk {
            name: "t".to_owned(),
            uri: "sip:carrier.example".to_owned(),
            user: "us".to_owned(),
            secret_file: "good".to_owned(),
            ..wire::Trunk::default()
        };
        let read = |trunk: wire::Trunk| {
            let trunks = Trunks::read(&[trunk], folder.path());
            trunks.map(|trunks| format!("{trunks:?}")).map_err(|e| format!("{e:#}"))
        };
        let debug = read(good.clone()).unwrap();
        assert!(debug.contains("Credentials") && !debug.contains("geheim"), "{debug}");
        let text = |it: &str| it.to_owned();
        for (trunk, expected) in [
            (wire::Trunk { name: text("a b"), ..good.clone() }, "trunk \"a b\": name: got"),
            (wire::Trunk { uri: text("sip:u@h"), ..good.clone() }, "trunk \"t\": uri: got"),
            (wire::Trunk { user: text("a@b"), ..good.clone() }, "trunk \"t\": user: got"),
            (
                wire::Trunk { user: text(""), register: true, ..good.clone() },
                "trunk \"t\": user: got \"nothing\"",
            ),
            (wire::Trunk { expires_s: 59, ..good.clone() }, "trunk \"t\": expires_s: got"),
            (wire::Trunk { sources: vec![text("x")], ..good.clone() }, "trunk \"t\": source: got"),
            (
                wire::Trunk { prefixes: vec![text("")], ..good.clone() },
                "trunk \"t\": prefixes: got",
            ),
            (
                wire::Trunk { secret_file: text("empty"), ..good.clone() },
                "trunk \"t\": secret_file: empty: got nothing, wanted a password",
            ),
            (
                wire::Trunk { secret_file: text("none"), ..good.clone() },
                "trunk \"t\": secret_file: none: read it: ",
            ),
        ] {
            let error = read(trunk).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
