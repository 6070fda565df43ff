//! From the host in a SIP URI to the places where it is served, in the order in which they are
//! tried (RFC 3263 §4, RFC 2782).

use anyhow::Context as _;
use futures::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::rdata::{NAPTR, SRV};
use hickory_resolver::proto::rr::{RData, RecordType};
use sip::Transport;
use std::net::SocketAddr;
use std::time::Duration;

/// How long all lookups for one URI may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one name server may take before it is asked again, or another is.
const QUERY_TIMEOUT: Duration = Duration::from_secs(1);
/// Places that one URI leads to, and records of one answer that are looked at.
const PLACES_MAX: usize = 16;
/// Answers that are kept for as long as they say.
const CACHED_MAX: u64 = 4_096;

/// One place that serves a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) transport: Transport,
    pub(crate) addr: SocketAddr,
}

/// What a URI says about where it is served.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    pub(crate) transport: Option<Transport>,
}

/// Asks name servers; cheap to clone.
#[derive(Clone)]
pub(crate) struct Locator {
    resolver: TokioResolver,
    /// What our listeners speak.
    spoken: Vec<Transport>,
}

impl Locator {
    /// With these name servers, or those of the system if there are none.
    ///
    /// # Errors
    /// `/etc/resolv.conf` cannot be read.
    pub(crate) fn new(servers: &[SocketAddr], spoken: Vec<Transport>) -> anyhow::Result<Self> {
        let runtime = TokioRuntimeProvider::default();
        let mut builder = match servers {
            [] => TokioResolver::builder(runtime).context("read the system's name servers")?,
            servers => {
                let servers = servers.iter().map(|server| {
                    let mut config = NameServerConfig::udp_and_tcp(server.ip());
                    config.connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].into();
                    config.connections.iter_mut().for_each(|it| it.port = server.port());
                    config
                });
                let config = ResolverConfig::from_name_servers(servers.collect());
                TokioResolver::builder_with_config(config, runtime)
            }
        };
        let options = builder.options_mut();
        (options.timeout, options.cache_size) = (QUERY_TIMEOUT, CACHED_MAX);
        let resolver = builder.build().context("begin to ask name servers")?;
        Ok(Self { resolver, spoken })
    }

    /// The places in the order in which they are tried; none if there are none, or nobody tells
    /// within 3 s.
    pub(crate) async fn locate(&self, wanted: &Wanted) -> Vec<Place> {
        let found = tokio::time::timeout(LOOKUP_TIMEOUT, self.places(wanted)).await;
        let mut places = found.unwrap_or_default();
        places.truncate(PLACES_MAX);
        places
    }

    async fn places(&self, wanted: &Wanted) -> Vec<Place> {
        let Wanted { host, port, transport } = wanted;
        let transport_or_udp = transport.unwrap_or(Transport::Udp);
        if let Some(port) = port {
            return self.addresses(host, *port, transport_or_udp).await;
        }
        let services = match transport {
            Some(transport) => vec![(*transport, service(*transport, host))],
            None => self.services(host).await,
        };
        let found = services.iter().map(|(transport, name)| self.served(*transport, name));
        let places: Vec<_> = join_all(found).await.concat();
        match places.is_empty() {
            true => {
                let port = transport_or_udp.default_port();
                self.addresses(host, port, transport_or_udp).await
            }
            false => places,
        }
    }

    /// By which transports the host wants to be reached, and the names of their SRV records
    /// (RFC 3263 §4.1); by those that we speak of UDP and TCP, if it does not say.
    async fn services(&self, host: &str) -> Vec<(Transport, String)> {
        let mut records: Vec<NAPTR> = self
            .lookup(host, RecordType::NAPTR, |data| match data {
                RData::NAPTR(record) => Some(record.clone()),
                _ => None,
            })
            .await;
        records.retain(|record| record.flags.eq_ignore_ascii_case(b"s"));
        records.sort_by_key(|record| (record.order, record.preference));
        let named = records.iter().filter_map(|record| {
            let transport = transport(&record.services)?;
            Some((transport, record.replacement.to_ascii()))
        });
        let named: Vec<_> = named.filter(|(it, _)| self.spoken.contains(it)).collect();
        if !named.is_empty() {
            return named;
        }
        let usual = [Transport::Udp, Transport::Tcp].into_iter();
        let usual = usual.filter(|it| self.spoken.contains(it));
        usual.map(|transport| (transport, service(transport, host))).collect()
    }

    /// The places of one SRV name.
    async fn served(&self, transport: Transport, name: &str) -> Vec<Place> {
        let records: Vec<SRV> = self
            .lookup(name, RecordType::SRV, |data| match data {
                RData::SRV(record) => Some(record.clone()),
                _ => None,
            })
            .await;
        let offered = records.into_iter().filter(|record| !record.target.is_root());
        let ordered = in_order(offered.collect(), |below| rand::random_range(0..below));
        let targets = ordered.iter().map(|it| (it.target.to_ascii(), it.port));
        let targets: Vec<_> = targets.collect();
        let found = targets.iter().map(|(host, port)| self.addresses(host, *port, transport));
        join_all(found).await.concat()
    }

    async fn addresses(&self, host: &str, port: u16, transport: Transport) -> Vec<Place> {
        match self.resolver.lookup_ip(host).await {
            Ok(found) => {
                let place = |ip| Place { transport, addr: SocketAddr::new(ip, port) };
                let mut places: Vec<_> = found.iter().take(PLACES_MAX).map(place).collect();
                places.sort_by_key(|place| place.addr.is_ipv6()); // More networks carry IPv4.
                places
            }
            Err(error) => {
                tracing::debug!(%error, host, "failed to look up an address");
                Vec::new()
            }
        }
    }

    async fn lookup<T>(
        &self,
        name: &str,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Vec<T> {
        match self.resolver.lookup(name, kind).await {
            Ok(found) => {
                found.answers().iter().filter_map(|it| read(&it.data)).take(PLACES_MAX).collect()
            }
            Err(error) => {
                tracing::debug!(%error, name, %kind, "failed to look up");
                Vec::new()
            }
        }
    }
}

/// The name of a host's SRV records for a transport (RFC 3263 §4.1).
fn service(transport: Transport, host: &str) -> String {
    match transport {
        Transport::Udp => format!("_sip._udp.{host}"),
        Transport::Tcp => format!("_sip._tcp.{host}"),
        Transport::Tls => format!("_sips._tcp.{host}"),
    }
}

/// The transport of a NAPTR service that we speak.
fn transport(service: &[u8]) -> Option<Transport> {
    let services = [
        (&b"SIP+D2U"[..], Transport::Udp),
        (b"SIP+D2T", Transport::Tcp),
        (b"SIPS+D2T", Transport::Tls),
    ];
    let found = services.into_iter().find(|(name, _)| service.eq_ignore_ascii_case(name));
    found.map(|(_, transport)| transport)
}

/// By priority; those of one priority at random, by weight (RFC 2782). `draw` gives a number below
/// its argument.
fn in_order(mut records: Vec<SRV>, mut draw: impl FnMut(u32) -> u32) -> Vec<SRV> {
    records.sort_by_key(|record| (record.priority, record.weight)); // Weight 0 first.
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(first) = records.first() {
        let priority = first.priority;
        let same = records.iter().take_while(|it| it.priority == priority);
        let weights: Vec<u32> = same.map(|it| u32::from(it.weight)).collect();
        let mut left = draw(weights.iter().sum::<u32>() + 1);
        let chosen = weights.iter().position(|weight| {
            let is_it = left <= *weight;
            left = left.saturating_sub(*weight);
            is_it
        });
        ordered.push(records.remove(chosen.unwrap_or_default()));
    }
    ordered
}

#[cfg(test)]
mod tests;
