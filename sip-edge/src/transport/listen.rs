//! What `--listen` says: a transport, an address to bind, and where peers reach it.

use sip::{HostPort, Transport};
use std::net::SocketAddr;

/// One place to listen at, for one transport or for several on the same port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    pub(crate) transports: Vec<Transport>,
    pub(crate) addr: SocketAddr,
    /// Where peers reach it; without a port, at the bound one.
    pub(crate) advertise: Option<HostPort>,
}

impl Listen {
    /// `TRANSPORT:ADDR:PORT[;advertise=HOST[:PORT]]`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wanted = "wanted udp:ADDR:PORT, tcp:ADDR:PORT or tls:ADDR:PORT, and perhaps \
                      ;advertise=HOST[:PORT] behind it";
        let (place, advertise) = match text.split_once(';') {
            Some((place, parameter)) => (place, Some(parameter)),
            None => (text, None),
        };
        let (transport, addr) = place.split_once(':').ok_or(wanted)?;
        let transport = Transport::of_parameter(transport).ok_or(wanted)?;
        let addr = addr.parse().map_err(|e| format!("{addr:?}: {e}; {wanted}"))?;
        let advertise = match advertise.map(|it| it.strip_prefix("advertise=").ok_or(wanted)) {
            Some(host_port) => Some(host_port?.parse().map_err(|e| format!("{e}; {wanted}"))?),
            None => None,
        };
        Ok(Self { transports: vec![transport], addr, advertise })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_has_transport_address_and_perhaps_where_it_is_reached() {
        let listen = Listen::parse("tls:[::]:5061;advertise=sip.example").unwrap();
        assert_eq!(listen.transports, [Transport::Tls]);
        assert_eq!(listen.addr, "[::]:5061".parse().unwrap());
        assert_eq!(listen.advertise, Some(HostPort::new("sip.example", None)));
        assert_eq!(Listen::parse("udp:127.0.0.1:0").unwrap().advertise, None);
        for text in ["", "udp", "udp:", "ws:127.0.0.1:1", "udp:a:1", "udp:127.0.0.1:1;x=y"] {
            let error = Listen::parse(text).unwrap_err();
            assert!(error.contains("wanted udp:ADDR:PORT"), "{text:?}: {error}");
        }
        let error = Listen::parse("udp:127.0.0.1:1;advertise=a:0").unwrap_err();
        assert!(error.starts_with("\"0\" is no port"), "{error}");
    }
}
