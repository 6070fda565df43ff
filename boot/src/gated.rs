//! Connections that write only while this process may act: what it has buffered when that right ends,
//! here or while it stands still, is never sent.

use hyper_util::rt::TokioIo;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::Uri;
use tower_service::Service;

/// The period in which this process may act now, if it may. A connection is of the period in which it
/// was made: it breaks with the next thing that it would write in another one, or in none.
pub type Gate = Arc<dyn Fn() -> Option<u32> + Send + Sync>;

/// Makes such connections.
#[derive(Clone)]
pub(crate) struct Connector(pub(crate) Gate);

pub(crate) struct Gated {
    stream: TcpStream,
    period: u32,
    gate: Gate,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Gated>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Gated>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let gate = self.0.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
            let port = uri.port_u16().unwrap_or_default();
            Gated::connect(gate, host, port).await.map(TokioIo::new)
        })
    }
}

fn over() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "this process may not act at present")
}

impl Gated {
    /// # Errors
    /// If the gate is closed, or nobody listens there.
    pub(crate) async fn connect(gate: Gate, host: &str, port: u16) -> io::Result<Self> {
        let period = gate().ok_or_else(over)?;
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, period, gate })
    }

    pub(crate) fn period(&self) -> u32 {
        self.period
    }

    fn check(&self) -> io::Result<()> {
        if (self.gate)() == Some(self.period) { Ok(()) } else { Err(over()) }
    }
}

impl AsyncRead for Gated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Gated {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// A connection in period 1, its other end, and what sets the period; 0 is none.
    async fn connected() -> (Gated, TcpStream, Arc<AtomicU32>, Connector) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let period = Arc::new(AtomicU32::new(1));
        let of_gate = period.clone();
        let gate = move || Some(of_gate.load(Relaxed)).filter(|period| *period > 0);
        let mut connector = Connector(Arc::new(gate));
        let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let ours = connector.call(uri).await.unwrap().into_inner();
        (ours, listener.accept().await.unwrap().0, period, connector)
    }

    #[tokio::test]
    async fn nothing_is_written_outside_of_the_period_in_which_the_connection_was_made() {
        for later in [0, 2] {
            let (mut ours, mut theirs, period, _) = connected().await;
            ours.write_all(b"may").await.unwrap();
            period.store(later, Relaxed);
            let error = ours.write_all(b"may not").await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
            let slices = [IoSlice::new(b"nor so")];
            ours.write_vectored(&slices).await.unwrap_err();
            drop(ours);
            let mut come = Vec::new();
            theirs.read_to_end(&mut come).await.unwrap();
            assert_eq!(come, b"may");
        }
    }

    #[tokio::test]
    async fn no_connection_is_made_outside_of_every_period() {
        let (.., period, mut connector) = connected().await;
        period.store(0, Relaxed);
        let made = connector.call("http://127.0.0.1:1".parse().unwrap()).await;
        assert_eq!(made.err().unwrap().kind(), io::ErrorKind::ConnectionAborted);
    }
}
