//! The flags of the scheduler.

use boot::Common;
use clap::Parser;
use std::collections::HashMap;
use std::time::Duration;

/// Does something to a call at a time, once, and tells what became of it.
///
/// A task is on disk before the reply to `Schedule`. After a restart all pending tasks are armed
/// again, and those that are overdue fire at once, in the order of their deadlines. On SIGTERM the
/// scheduler begins nothing more, finishes what it is firing, and ends; the rest is on disk.
#[derive(Parser, Clone, Debug)]
#[command(name = "scheduler", version, mut_arg("grpc", |arg| arg.default_value("127.0.0.1:50053")))]
pub(crate) struct Args {
    /// Where tasks are kept: `sqlite:FILE`, made if there is none, for one scheduler at a time; or
    /// `postgres://USER@HOST/DATABASE`, for as many replicas as you like; with
    /// `?sslmode=verify-full`, and `&sslrootcert=FILE` if need be, by TLS.
    #[arg(
        long,
        value_name = "URL",
        default_value = "sqlite:scheduler.db",
        env = "HOLDFAST_DATABASE_URL",
        hide_env_values = true
    )]
    pub(crate) database_url: String,

    /// gRPC of a sip-edge, which brings about what tasks ask for: `URL`, or `NAME=URL` with its
    /// --edge-name. Repeatable; tasks that name no edge go to the first. It may start later.
    #[arg(long, value_name = "[NAME=]URL", default_value = "http://127.0.0.1:50051",
          value_parser = EdgeAddress::parse)]
    pub(crate) sip_edge: Vec<EdgeAddress>,

    /// How many effects a second one sip-edge is asked for at most, those with the earliest time
    /// first; the rest is late. What is published is not bounded by this.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 2_000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) edge_rate: u32,

    /// How far ahead tasks are kept in memory, about 100 bytes each; later ones are only on disk,
    /// e.g. `10m`, `1h`.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = horizon)]
    pub(crate) horizon: Duration,

    /// How many tasks that have not ended there may be; more are refused with RESOURCE_EXHAUSTED. As
    /// many ended ones are kept at most.
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub(crate) max_tasks: u32,

    /// How many tasks that have not ended one call may have; more are refused with RESOURCE_EXHAUSTED.
    #[arg(long, value_name = "COUNT", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_tasks_per_call: u32,

    /// How many tasks that have not ended one tenant may have: `COUNT` for each tenant that is not
    /// named, `NAME=COUNT` for one that is. Repeatable; more are refused with RESOURCE_EXHAUSTED. With
    /// several replicas the tasks of the others are known a second late. Default: --max-tasks.
    #[arg(long, value_name = "[NAME=]COUNT", value_parser = Quota::parse)]
    pub(crate) tenant_quota: Vec<Quota>,

    /// Where other replicas reach the gRPC of this one, if not at --grpc, e.g. `http://10.0.0.7:50053`.
    #[arg(long, value_name = "URL")]
    pub(crate) advertise_grpc: Option<String>,

    /// How long ended tasks can be asked about, and idempotency keys are remembered, e.g. `30m`, `1d`.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    pub(crate) retention: Duration,

    #[command(flatten)]
    pub(crate) common: Common,
}

/// Most edges that one scheduler knows.
pub(crate) const EDGES_MAX: usize = 64;

/// Where a sip-edge is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EdgeAddress {
    /// Its --edge-name; empty: not said.
    pub(crate) name: String,
    pub(crate) url: String,
}

impl EdgeAddress {
    fn parse(flag: &str) -> Result<Self, String> {
        let (name, url) = match flag.split_once('=') {
            Some(("", _)) => return Err("the name before `=` is empty".to_owned()),
            Some((name, url)) if !name.contains("://") => (name, url),
            _ => ("", flag),
        };
        Ok(Self { name: name.to_owned(), url: url.to_owned() })
    }
}

/// How many tasks a tenant may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    /// `None`: each that is not named.
    pub(crate) tenant: Option<String>,
    pub(crate) count: u32,
}

impl Quota {
    fn parse(flag: &str) -> Result<Self, String> {
        let (tenant, count) = match flag.rsplit_once('=') {
            Some((tenant, count)) => (Some(tenant.to_owned()), count),
            None => (None, flag),
        };
        let count = count.parse().map_err(|e| format!("{count:?}: {e}"))?;
        Ok(Self { tenant, count })
    }
}

impl Args {
    /// How many tasks a tenant that is not named may have, and those that are.
    pub(crate) fn tenant_quotas(&self) -> (u32, HashMap<String, u32>) {
        let others = self.tenant_quota.iter().rfind(|quota| quota.tenant.is_none());
        let named = |Quota { tenant, count }: &Quota| Some((tenant.clone()?, *count));
        let named = self.tenant_quota.iter().filter_map(named).collect();
        (others.map_or(self.max_tasks, |quota| quota.count), named)
    }
}

/// At least 10 s: what comes nearer than the horizon is read four times within it.
fn horizon(text: &str) -> Result<Duration, String> {
    let horizon = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    let allowed = Duration::from_secs(10)..=Duration::from_secs(400 * 86_400);
    match allowed.contains(&horizon) {
        true => Ok(horizon),
        false => Err("wanted 10s to 400d".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_manual_says_what_help_says() {
        e2e::manual::check("scheduler", Args::command());
    }

    #[test]
    fn the_flags_are_well_formed_and_have_their_defaults() {
        Args::command().debug_assert();
        let args = Args::parse_from(["scheduler"]);
        assert_eq!(args.common.grpc.to_string(), "127.0.0.1:50053");
        assert_eq!(args.retention, Duration::from_secs(3600));
        assert!(Args::try_parse_from(["scheduler", "--max-tasks", "0"]).is_err());
    }

    #[test]
    fn an_edge_has_a_name_only_if_one_is_given() {
        let edge = |name: &str, url: &str| EdgeAddress { name: name.into(), url: url.into() };
        let args = Args::parse_from(["scheduler"]);
        assert_eq!(args.sip_edge, [edge("", "http://127.0.0.1:50051")]);
        let flags = ["scheduler", "--sip-edge", "http://a:1/?x=y", "--sip-edge", "b=http://b:2"];
        let args = Args::parse_from(flags);
        assert_eq!(args.sip_edge, [edge("", "http://a:1/?x=y"), edge("b", "http://b:2")]);
        assert!(Args::try_parse_from(["scheduler", "--sip-edge", "=http://a:1"]).is_err());
    }

    #[test]
    fn the_horizon_is_10_s_to_400_days() {
        assert_eq!(horizon("10m"), Ok(Duration::from_secs(600)));
        assert!(horizon("9s").is_err() && horizon("401d").is_err() && horizon("-1").is_err());
    }

    #[test]
    fn a_tenant_has_the_quota_of_its_name_or_else_that_of_all() {
        let args = Args::parse_from(["scheduler", "--max-tasks", "9"]);
        assert_eq!(args.tenant_quotas(), (9, HashMap::new()));
        let flags = ["scheduler", "--tenant-quota", "5", "--tenant-quota", "a=b=7"];
        let quotas = Args::parse_from(flags).tenant_quotas();
        assert_eq!(quotas, (5, HashMap::from([("a=b".to_owned(), 7)])));
        for bad in ["", "a=", "a=-1", "x"] {
            assert!(Args::try_parse_from(["scheduler", "--tenant-quota", bad]).is_err(), "{bad}");
        }
    }
}
