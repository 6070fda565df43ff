//! Where clients find us: `udp:ADDR:PORT`, `tcp:ADDR:PORT`, `unix:PATH`, `cunix:PATH`.

use anyhow::{Context as _, bail};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// Datagrams, each with a cookie.
    Udp(SocketAddr),
    /// A connection for many commands, a line each.
    Tcp(SocketAddr),
    /// The same; or, if not `lasting`, a connection for each command.
    Unix { path: PathBuf, lasting: bool },
}

impl FromStr for Listen {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let wanted = "wanted udp:ADDR:PORT, tcp:ADDR:PORT, unix:PATH or cunix:PATH";
        let (scheme, rest) = text.split_once(':').context(wanted)?;
        let address = || rest.parse::<SocketAddr>().context(wanted);
        match scheme {
            "udp" | "udp6" => match address()? {
                it if it.ip().is_unspecified() => bail!(
                    "udp:{it} would answer from whatever address the route has, which clients do \
                     not take; give each address with a flag of its own"
                ),
                it => Ok(Self::Udp(it)),
            },
            "tcp" | "tcp6" => Ok(Self::Tcp(address()?)),
            "unix" | "cunix" if !rest.is_empty() => {
                Ok(Self::Unix { path: rest.into(), lasting: scheme == "cunix" })
            }
            _ => bail!(wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_transport_is_read_and_others_are_refused() {
        let udp = Listen::Udp("127.0.0.1:22222".parse().unwrap());
        assert_eq!("udp:127.0.0.1:22222".parse::<Listen>().unwrap(), udp);
        let unix = Listen::Unix { path: "/run/r.sock".into(), lasting: false };
        assert_eq!("unix:/run/r.sock".parse::<Listen>().unwrap(), unix);
        assert!("tcp:[::1]:5".parse::<Listen>().is_ok());
        for wrong in ["udp:0.0.0.0:22222", "udp:22222", "unix:", "sctp:127.0.0.1:1", "", "tcp:a:1"]
        {
            assert!(wrong.parse::<Listen>().is_err(), "{wrong}");
        }
    }
}
