//! A second sip-edge of a stack, which queue-svc asks about every call, whoever has it.

use crate::stack::{READY_LIMIT, Service, Stack};
use crate::{Process, binary};
use proto::sip_edge::v1::sip_edge_client::SipEdgeClient;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use tonic::transport::{Channel, Endpoint};

/// Where it listens, and the process, if it runs.
pub(crate) struct OtherEdge {
    sip: u16,
    grpc: u16,
    process: Option<Process>,
}

impl OtherEdge {
    /// Its `--edge-name`.
    pub(crate) const NAME: &str = "other";

    pub(crate) fn at(sip: u16, grpc: u16) -> Self {
        Self { sip, grpc, process: None }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }
}

impl Stack {
    /// Starts the second sip-edge, which does not run.
    ///
    /// # Panics
    /// If the stack is one with a single sip-edge.
    pub fn start_other(&mut self) -> anyhow::Result<()> {
        let flags = self.flags(Service::SipEdge);
        let other = self.other.as_mut().expect("a stack with two sip-edges");
        let mut command = Command::new(binary("sip-edge")?);
        let own = [
            ("--sip", format!("127.0.0.1:{}", other.sip)),
            ("--grpc", format!("127.0.0.1:{}", other.grpc)),
            ("--edge-name", OtherEdge::NAME.to_owned()),
        ];
        let replaced = |flag: &str| own.iter().any(|(name, _)| *name == flag);
        let pairs = flags.chunks(2).filter(|pair| !replaced(&pair[0])).flatten();
        command.current_dir(&self.folder).args(pairs);
        command.args(own.iter().flat_map(|(flag, value)| [*flag, value.as_str()]));
        let process = Process::spawn("the other sip-edge", &mut command)?;
        process.wait_for("that it serves", READY_LIMIT, |line| {
            (line.contains("serving") && line.contains("grpc")).then_some(())
        })?;
        other.process = Some(process);
        Ok(())
    }

    /// SIGKILL to the second sip-edge.
    pub fn kill_other(&mut self) {
        if let Some(other) = &mut self.other {
            other.process = None; // Dropping kills.
        }
    }

    /// Where phones send SIP to the second sip-edge.
    ///
    /// # Panics
    /// If the stack is one with a single sip-edge.
    pub fn other_sip(&self) -> SocketAddr {
        let other = self.other.as_ref().expect("a stack with two sip-edges");
        SocketAddr::from((Ipv4Addr::LOCALHOST, other.sip))
    }

    /// The API of the second sip-edge.
    ///
    /// # Panics
    /// If the stack is one with a single sip-edge.
    pub fn other_edge(&self) -> SipEdgeClient<Channel> {
        let url = self.other.as_ref().expect("a stack with two sip-edges").url();
        SipEdgeClient::new(Endpoint::from_shared(url).expect("a URL").connect_lazy())
    }

    /// What the second sip-edge has printed.
    pub fn other_output(&self) -> String {
        let process = self.other.as_ref().and_then(|other| other.process.as_ref());
        process.map(Process::output).unwrap_or_default()
    }
}
