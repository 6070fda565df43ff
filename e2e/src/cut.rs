//! A connection that can be cut: a TCP relay in front of a server, for what happens to clients whose
//! network fails.

use anyhow::Context as _;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// Bytes that are on their way in one direction at most, beside the kernel's.
const BUFFER_LEN: usize = 64 * 1024;

/// A relay to one server; ends with all its connections when dropped.
pub struct Cut {
    addr: SocketAddr,
    cable: watch::Sender<Cable>,
    /// Taken when dropped.
    runtime: Option<Runtime>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cable {
    /// Nothing gets through, in either direction, and nobody is told.
    cut: bool,
    /// Connections that were made when this was lower are ended.
    reset: u64,
}

impl Cut {
    /// Relays from a free port of 127.0.0.1 to `server`.
    pub fn before(server: SocketAddr) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = listener.context("bind a relay")?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let (cable, seen) = watch::channel(Cable::default());
        // Its own, so that tests may be blocking or not.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("start a relay")?;
        runtime.spawn(async move {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, server, seen.clone()));
            }
        });
        Ok(Self { addr, cable, runtime: Some(runtime) })
    }

    /// Where clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// As if the cable were cut: connections stay and carry nothing, new ones get no answer. What is
    /// sent meanwhile arrives after [`Cut::mend`], as TCP has it.
    pub fn cut(&self) {
        self.cable.send_modify(|cable| cable.cut = true);
    }

    pub fn mend(&self) {
        self.cable.send_modify(|cable| cable.cut = false);
    }

    /// Ends the connections there are, and what they were carrying is lost.
    pub fn reset(&self) {
        self.cable.send_modify(|cable| cable.reset += 1);
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

async fn connection(client: TcpStream, server: SocketAddr, cable: watch::Receiver<Cable>) {
    let (mut resets, made) = (cable.clone(), cable.borrow().reset);
    let relay = async {
        whole(&cable).await;
        let Ok(server) = TcpStream::connect(server).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ((from_client, to_client), (from_server, to_server)) =
            (client.into_split(), server.into_split());
        tokio::select! {
            () = carry(from_client, to_server, &cable) => (),
            () = carry(from_server, to_client, &cable) => (),
        }
    };
    tokio::select! {
        () = relay => (),
        _ = resets.wait_for(|cable| cable.reset > made) => (),
    }
}

/// Until either side ends.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, cable: &watch::Receiver<Cable>) {
    let mut bytes = vec![0; BUFFER_LEN];
    loop {
        whole(cable).await;
        let Ok(len @ 1..) = from.read(&mut bytes).await else { return };
        whole(cable).await;
        if to.write_all(&bytes[..len]).await.is_err() {
            return;
        }
    }
}

/// Waits until the cable is whole; for ever if the relay is gone.
async fn whole(cable: &watch::Receiver<Cable>) {
    if cable.clone().wait_for(|cable| !cable.cut).await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::time::Duration;

    /// Long enough for what would arrive.
    const SILENCE: Duration = Duration::from_millis(100);
    const PATIENCE: Duration = Duration::from_secs(20);

    fn hears(stream: &mut std::net::TcpStream, limit: Duration) -> std::io::Result<u8> {
        let mut byte = [0];
        stream.set_read_timeout(Some(limit))?;
        match stream.read(&mut byte)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(byte[0]),
        }
    }

    #[test]
    fn a_cut_cable_carries_nothing_until_it_is_mended_and_a_reset_ends_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let cut = Cut::before(listener.local_addr().unwrap()).unwrap();
        let mut client = std::net::TcpStream::connect(cut.addr()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[1]).unwrap();
        assert_eq!(hears(&mut server, PATIENCE).unwrap(), 1);

        cut.cut();
        client.write_all(&[2]).unwrap();
        server.write_all(&[3]).unwrap();
        for stream in [&mut server, &mut client] {
            assert_eq!(hears(stream, SILENCE).unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        cut.mend();
        assert_eq!(hears(&mut server, PATIENCE).unwrap(), 2);
        assert_eq!(hears(&mut client, PATIENCE).unwrap(), 3);

        cut.cut();
        client.write_all(&[4]).unwrap();
        cut.reset();
        assert!(hears(&mut client, PATIENCE).is_err());
        assert!(hears(&mut server, PATIENCE).is_err(), "what a reset cut off has arrived");
    }
}
