//! The flags of sip-edge: `--help` is the manual.

use crate::defence::Limits;
use crate::media::HEARD_WITHIN_MAX;
use crate::transport::{Files, Listen};
use anyhow::{Context as _, bail};
use clap::Parser;
use ipnet::IpNet;
use sip::{Algorithm, HostPort, Transport};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where SIP listens if no flag says so.
const DEFAULT_SIP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5060);
/// Longest `--ban`.
const BAN_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Longest `--ended-retention`.
const RETENTION_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);

/// sip-edge: SIP transactions, dialogs, registrations and calls, and the plans that calls run.
#[derive(Parser, Clone, Debug)]
#[command(version, mut_arg("grpc", |arg| arg.default_value("127.0.0.1:50051")))]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: boot::Common,

    /// Address and port where SIP listens, by UDP and by TCP; port 0 takes a free one. Default:
    /// 127.0.0.1:5060, if there is no --listen.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) sip: Option<SocketAddr>,

    /// Host and port for Contact and Via of --sip, where peers reach us. Default: the --sip address;
    /// without a port, the port of --sip.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) advertise: Option<HostPort>,

    /// One more place where SIP listens: `udp:`, `tcp:` or `tls:`, address and port (IPv6 in
    /// brackets), and behind `;advertise=` where its peers reach it, e.g.
    /// `tls:0.0.0.0:5061;advertise=sip.example.com`. May be given many times.
    #[arg(long, value_name = "TRANSPORT:ADDR:PORT[;advertise=HOST[:PORT]]", value_parser = Listen::parse)]
    pub(crate) listen: Vec<Listen>,

    /// Certificate chain for TLS, as PEM, ours first. Read again at SIGHUP.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert, as PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Authorities, as PEM, that sign the certificates of those whom we call by TLS. Default: those
    /// of this system.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_ca: Option<PathBuf>,

    /// Database in which the table `call_records` gets a row for each call that has ended: `sqlite:FILE`,
    /// `postgres://USER@HOST/DATABASE` or `mysql://USER@HOST/DATABASE` (MariaDB). While it is away, records
    /// wait on NATS for as long as that keeps events. Give all sip-edges the same. Default: no table.
    #[arg(long, value_name = "URL", env = "HOLDFAST_CDR_DATABASE_URL", hide_env_values = true)]
    pub(crate) cdr_database_url: Option<String>,

    /// Name of this sip-edge: in Call.edge, and the owner of its sessions at media-relay. It must be
    /// the same after a restart, and different for each sip-edge.
    #[arg(long, value_name = "NAME", default_value = "edge", value_parser = edge_name)]
    pub(crate) edge_name: String,

    /// Where other sip-edges reach the gRPC of this one, to ask about its calls, if not at --grpc, e.g.
    /// `http://10.0.0.7:50051`.
    #[arg(long, value_name = "URL")]
    pub(crate) advertise_grpc: Option<String>,

    /// gRPC of media-relay, as all sip-edges reach it: one that takes over our calls goes on with it.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50052")]
    pub(crate) media_relay: String,

    /// gRPC of scheduler.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50053")]
    pub(crate) scheduler: String,

    /// gRPC of queue-svc.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50054")]
    pub(crate) queue_svc: String,

    /// Routes and call plans of inbound calls: YAML or JSON, the JSON mapping of
    /// sip_edge.v1.DialPlan. Default: one route, URIs of queues to their queues.
    #[arg(long, value_name = "FILE")]
    pub(crate) dial_plan: Option<PathBuf>,

    /// Name server for SIP host names (NAPTR, SRV, addresses). May be given many times. Default:
    /// those of this system.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) dns: Vec<SocketAddr>,

    /// A user who may register, with the password for digest. May be given many times.
    #[arg(long, value_name = "NAME:PASSWORD", value_parser = credentials)]
    pub(crate) user: Vec<(String, String)>,

    /// More users: a file with a NAME:PASSWORD on each line; lines that begin with # are comments.
    #[arg(long, value_name = "FILE")]
    pub(crate) users: Option<PathBuf>,

    /// Realm of digest authentication.
    #[arg(long, value_name = "REALM", default_value = "holdfast")]
    pub(crate) realm: String,

    /// What registering phones may prove their password with: `md5`, `sha-256`, or both, the
    /// strongest first (`sha-256,md5`, RFC 8760). All phones know MD5; many (baresip 1.0, for one)
    /// give up when they are asked for anything else beside it, in whatever order.
    #[arg(long, value_name = "ALGORITHMS", default_value = "md5", value_delimiter = ',', value_parser = digest)]
    pub(crate) digest: Vec<Algorithm>,

    /// How long a call that has ended can still be asked for, e.g. `10m`, at most `7d`; at most
    /// 20,000 are kept.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = retention)]
    pub(crate) ended_retention: Duration,

    /// Requests outside of dialogs that one source (an address, or a /64 of IPv6) may send in a
    /// second, and twice as many at once; what is more is discarded.
    #[arg(long, value_name = "REQUESTS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) source_rate: u32,

    /// Live calls at a time from one source; more are refused with 503.
    #[arg(long, value_name = "CALLS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) source_calls: u32,

    /// How long a source is not heard that scans, guesses passwords, or calls what does not exist;
    /// `0s` bans nobody.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = ban)]
    pub(crate) ban: Duration,

    /// A source without limits and bans: an address or a CIDR block, such as a proxy's; instead of
    /// the default, this host. May be given many times.
    #[arg(long, value_name = "ADDR[/LENGTH]", default_values = ["127.0.0.1", "::1"], value_parser = block)]
    pub(crate) trust: Vec<IpNet>,

    /// How long an agent of a queue who has answered may take to be heard: until the first packet comes
    /// from the phone, the caller goes on hearing music. If none comes, the agent counts as not
    /// reachable, and the caller keeps the place. At most 2500ms; 0s connects at once, unheard.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = heard_within)]
    pub(crate) agent_heard_within: Duration,

    /// Live calls at a time; more are refused with 503, or RESOURCE_EXHAUSTED.
    #[arg(long, value_name = "CALLS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_calls: u32,
}

impl Args {
    /// Where SIP listens: `--sip` first.
    pub(crate) fn listeners(&self) -> Vec<Listen> {
        let default = || self.listen.is_empty().then_some(DEFAULT_SIP);
        let sip = self.sip.or_else(default).map(|addr| {
            let transports = vec![Transport::Udp, Transport::Tcp];
            Listen { transports, addr, advertise: self.advertise.clone() }
        });
        sip.into_iter().chain(self.listen.clone()).collect()
    }

    /// What every source may do, but for the trusted and `trunks`.
    pub(crate) fn limits(&self, trunks: impl IntoIterator<Item = IpNet>) -> Limits {
        let trusted = self.trust.iter().copied().chain(trunks);
        let (rate_per_s, ban) = (self.source_rate, self.ban);
        Limits { rate_per_s, ban, trusted: trusted.collect() }
    }

    /// The files of TLS, if there are any.
    pub(crate) fn tls_files(&self) -> Option<Files> {
        let (cert, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        Some(Files { cert, key, ca: self.tls_ca.clone() })
    }

    /// All users: those of `--user`, and those of the file of `--users`.
    ///
    /// # Errors
    /// If the file cannot be read or a line is no `NAME:PASSWORD`, or a name is given twice.
    pub(crate) fn all_users(&self) -> anyhow::Result<HashMap<String, String>> {
        let mut given = self.user.clone();
        if let Some(file) = &self.users {
            given.extend(read_users(file)?);
        }
        let mut users = HashMap::new();
        for (name, password) in given {
            if users.insert(name.clone(), password).is_some() {
                bail!("read users: {name:?} is given twice");
            }
        }
        Ok(users)
    }
}

fn read_users(file: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("read --users {}", file.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#')
    });
    lines
        .map(|(index, line)| {
            credentials(line.trim()).map_err(|e| {
                anyhow::anyhow!("read --users {}, line {}: {e}", file.display(), index + 1)
            })
        })
        .collect()
}

fn credentials(text: &str) -> Result<(String, String), String> {
    let (name, password) = text.split_once(':').unwrap_or((text, ""));
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.!~*'()&=+$,".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) || password.is_empty() {
        // The value may be a password: it is not repeated.
        return Err("wanted NAME:PASSWORD, the name 1 to 64 characters of a SIP user".to_owned());
    }
    Ok((name.to_owned(), password.to_owned()))
}

fn digest(name: &str) -> Result<Algorithm, String> {
    match name {
        "sha-256" => Ok(Algorithm::Sha256),
        "md5" => Ok(Algorithm::Md5),
        _ => Err("wanted sha-256 or md5".to_owned()),
    }
}

fn retention(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(retention) if retention <= RETENTION_MAX => Ok(retention),
        Ok(_) => Err("wanted at most 7d".to_owned()),
        Err(e) => Err(format!("{e}; wanted e.g. 10m, at most 7d")),
    }
}

fn ban(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(ban) if ban <= BAN_MAX => Ok(ban),
        Ok(_) => Err("wanted at most 7d".to_owned()),
        Err(e) => Err(format!("{e}; wanted e.g. 5m, at most 7d")),
    }
}

fn heard_within(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(within) if within <= HEARD_WITHIN_MAX => Ok(within),
        Ok(_) => Err("wanted at most 2500ms".to_owned()),
        Err(e) => Err(format!("{e}; wanted e.g. 2s, at most 2500ms")),
    }
}

fn block(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    let block = address.or_else(|_| text.parse());
    block.map_err(|_| "wanted an address or a CIDR block, e.g. 10.0.0.0/8".to_owned())
}

fn edge_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.is_empty() || text.len() > 64 || !text.chars().all(plain) {
        return Err("wanted 1 to 64 of [A-Za-z0-9_.-]".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_says_what_help_says() {
        e2e::manual::check("sip-edge", <Args as clap::CommandFactory>::command());
    }

    #[test]
    fn users_come_from_flags_and_a_file_and_none_comes_twice() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users");
        let check = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let file = file.to_str().unwrap();
            let args = ["sip-edge", "--user", "1000:a:b", "--users", file];
            Args::try_parse_from(args).unwrap().all_users().map_err(|e| format!("{e:#}"))
        };
        let users = check("# agents\n\n 1001:x \n").unwrap();
        assert_eq!(users["1000"], "a:b");
        assert_eq!(users["1001"], "x");
        assert!(check("1001:x\nsecret").unwrap_err().ends_with("of a SIP user"));
        assert!(!check("1001:x\nsecret").unwrap_err().contains("secret"));
        assert_eq!(check("1000:x").unwrap_err(), "read users: \"1000\" is given twice");
    }

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
        let args = Args::try_parse_from(["sip-edge"]).unwrap();
        assert_eq!(args.common.grpc.port(), 50_051);
        assert_eq!(args.listeners()[0].addr, DEFAULT_SIP);
    }

    #[test]
    fn listeners_are_those_of_both_flags_and_the_default_only_without_them() {
        let listeners = |flags: &[&str]| {
            let args = Args::try_parse_from([&["sip-edge"], flags].concat()).unwrap();
            args.listeners().iter().map(|it| it.addr.to_string()).collect::<Vec<_>>().join(" ")
        };
        let (tcp, tls) = ("tcp:127.0.0.1:1", "tls:[::1]:2;advertise=a");
        assert_eq!(listeners(&[]), "127.0.0.1:5060");
        assert_eq!(listeners(&["--listen", tcp, "--listen", tls]), "127.0.0.1:1 [::1]:2");
        assert_eq!(
            listeners(&["--listen", tcp, "--sip", "127.0.0.1:3"]),
            "127.0.0.1:3 127.0.0.1:1"
        );
        let error = Args::try_parse_from(["sip-edge", "--tls-key", "k"]).unwrap_err();
        assert!(error.to_string().contains("--tls-cert"), "{error}");
    }
}
