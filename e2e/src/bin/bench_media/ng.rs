//! rtpengine's ng protocol over UDP: a cookie, a space, and a bencoded dictionary.

use anyhow::{Context as _, bail};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// How long rtpengine may take for a command.
const PATIENCE: Duration = Duration::from_secs(5);
const REPLY_BYTES_MAX: usize = 16 * 1_024;

pub(crate) struct Ng {
    socket: UdpSocket,
    cookie: u64,
}

impl Ng {
    pub(crate) fn new(server: SocketAddr) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, cookie: 0 })
    }

    /// Asks for `command`; the reply's value of `wanted`, or nothing if that is empty.
    ///
    /// # Errors
    /// If rtpengine does not say "ok" or "pong".
    pub(crate) fn ask(
        &mut self,
        command: &str,
        pairs: &[(&str, &str)],
        wanted: &str,
    ) -> anyhow::Result<String> {
        self.cookie += 1;
        let cookie = format!("c{} ", self.cookie);
        let mut request = format!("{cookie}d{}{}", string("command"), string(command));
        for (key, value) in pairs {
            request += &string(key);
            request += &string(value);
        }
        request.push('e');
        self.socket.send(request.as_bytes()).context("ask rtpengine")?;
        let mut buffer = vec![0; REPLY_BYTES_MAX];
        let len = self.socket.recv(&mut buffer).with_context(|| format!("wait for {command}"))?;
        let reply = buffer[..len].strip_prefix(cookie.as_bytes()).context("match a reply")?;
        match find(reply, "result").as_deref() {
            Some("ok" | "pong") => (),
            _ => bail!("{command}: {}", String::from_utf8_lossy(reply)),
        }
        match wanted {
            "" => Ok(String::new()),
            _ => find(reply, wanted).with_context(|| format!("find {wanted} in a reply")),
        }
    }
}

fn string(text: &str) -> String {
    format!("{}:{text}", text.len())
}

/// The string of `key` in a flat dictionary.
fn find(dictionary: &[u8], key: &str) -> Option<String> {
    let mut rest = dictionary.strip_prefix(b"d")?;
    while rest.first() != Some(&b'e') {
        let (name, after) = take(rest)?;
        let (value, after) = take(after)?;
        if name == key.as_bytes() {
            return Some(String::from_utf8_lossy(value).into_owned());
        }
        rest = after;
    }
    None
}

/// A string or a number, and what follows it.
fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    if let Some(number) = bytes.strip_prefix(b"i") {
        let end = number.iter().position(|it| *it == b'e')?;
        return Some((&number[..end], &number[end + 1..]));
    }
    let colon = bytes.iter().position(|it| *it == b':')?;
    let len: usize = std::str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
    bytes[colon + 1..].split_at_checked(len)
}
