//! One address for several servers, as a Service of Kubernetes is: each new connection goes to the next of
//! those that are ready.

use anyhow::Context as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

pub struct Front {
    addr: SocketAddr,
    ready: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Front {
    /// Takes connections at `port` as long as the runtime lives.
    ///
    /// # Errors
    /// If the port is taken.
    pub async fn start(port: u16) -> anyhow::Result<Self> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(addr).await.context("bind a front")?;
        let ready = Arc::new(Mutex::new(Vec::new()));
        let servers = ready.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Some(server) = next(&servers) else { continue }; // Nobody is there: it is closed.
                tokio::spawn(join(client, server));
            }
        });
        Ok(Self { addr, ready })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn add(&self, server: SocketAddr) {
        self.ready.lock().expect("nobody panics with it").push(server);
    }

    /// No new connections for `server`; those that it has go on.
    pub fn remove(&self, server: SocketAddr) {
        self.ready.lock().expect("nobody panics with it").retain(|it| *it != server);
    }
}

fn next(servers: &Mutex<Vec<SocketAddr>>) -> Option<SocketAddr> {
    let mut servers = servers.lock().expect("nobody panics with it");
    let first = servers.first().copied()?;
    servers.rotate_left(1);
    Some(first)
}

async fn join(mut client: TcpStream, server: SocketAddr) {
    if let Ok(mut server) = TcpStream::connect(server).await {
        let _ = copy_bidirectional(&mut client, &mut server).await; // Until one ends.
    }
}
