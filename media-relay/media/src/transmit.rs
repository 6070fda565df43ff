//! Datagrams that wait to be sent, in one buffer that is used again and again.

use std::net::SocketAddr;
use std::time::Instant;

/// A datagram to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit<'a> {
    /// Our port that it leaves from.
    pub from: u16,
    pub to: SocketAddr,
    pub bytes: &'a [u8],
    /// When it should leave, if it was planned: music, prompts, mixes.
    pub due: Option<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct Transmits {
    queue: Vec<Queued>,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Queued {
    from: u16,
    to: SocketAddr,
    due: Option<Instant>,
    start: usize,
    end: usize,
}

impl Transmits {
    /// Queues what `write` appends to the buffer it gets; nothing if it fails.
    pub(crate) fn push<E>(
        &mut self,
        from: u16,
        to: SocketAddr,
        due: Option<Instant>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        write(&mut self.bytes).inspect_err(|_| self.bytes.truncate(start))?;
        self.queue.push(Queued { from, to, due, start, end: self.bytes.len() });
        Ok(())
    }

    /// Queues a datagram as it came.
    pub(crate) fn push_copy(&mut self, from: u16, to: SocketAddr, bytes: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.queue.push(Queued { from, to, due: None, start, end: self.bytes.len() });
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Transmit<'_>> + Clone {
        self.queue.iter().map(|&Queued { from, to, due, start, end }| Transmit {
            from,
            to,
            due,
            bytes: &self.bytes[start..end],
        })
    }

    /// Keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.bytes.clear();
    }
}
