//! How this process logs in to NATS: by name and password, or by a token.
//!
//! They come from flags and a file, or stand in the URL, as `nats://NAME:PASSWORD@HOST` or
//! `nats://TOKEN@HOST`. The client library reads them there, but does not use them.

use crate::Common;
use anyhow::{Context as _, ensure};
use async_nats::{ConnectInfo, ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;
use std::fmt;
use std::path::Path;

/// Longest password, in bytes.
const PASSWORD_MAX: usize = 1_024;

/// A server, and what it is shown. Printed, it is the server alone.
#[derive(Clone)]
pub struct Login {
    server: ServerAddr,
    proof: Proof,
}

#[derive(Clone)]
enum Proof {
    None,
    Password { user: String, password: String },
    Token(String),
}

impl Login {
    /// What `--nats-url`, `--nats-user` and `--nats-password-file` say.
    ///
    /// # Errors
    /// If the URL is none, the file cannot be read or has no password, or there are two names. No
    /// message repeats a secret.
    pub fn read(common: &Common) -> anyhow::Result<Self> {
        let login = Self::at(&common.nats_url).context("read --nats-url")?;
        let Some((user, file)) = common.nats_user.as_ref().zip(common.nats_password_file.as_ref())
        else {
            return Ok(login);
        };
        ensure!(
            matches!(login.proof, Proof::None),
            "read --nats-url: got a name or token in it beside --nats-user, wanted one of them"
        );
        let password = password(file)
            .with_context(|| format!("read --nats-password-file {}", file.display()))?;
        Ok(Self { proof: Proof::Password { user: user.clone(), password }, ..login })
    }

    /// The server at `url`, with what stands in it.
    ///
    /// # Errors
    /// If it is no URL of a NATS server.
    pub fn at(url: &str) -> anyhow::Result<Self> {
        // The library's error may repeat what is in the URL.
        let server = url.parse::<ServerAddr>().ok();
        let server = server.context("got no URL, wanted e.g. `nats://127.0.0.1:4222`")?;
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let proof = match (server.username().map(decoded), server.password().map(decoded)) {
            (None, _) => Proof::None,
            (Some(token), None) => Proof::Token(token),
            (Some(user), Some(password)) => Proof::Password { user, password },
        };
        let mut bare = server.into_inner();
        let _ = bare.set_username(""); // They fail where there can be none.
        let _ = bare.set_password(None);
        Ok(Self { server: ServerAddr::from_url(bare)?, proof })
    }

    pub(crate) fn server(&self) -> &ServerAddr {
        &self.server
    }

    pub(crate) fn options(&self) -> ConnectOptions {
        match self.proof.clone() {
            Proof::None => ConnectOptions::new(),
            Proof::Password { user, password } => {
                ConnectOptions::with_user_and_password(user, password)
            }
            Proof::Token(token) => ConnectOptions::with_token(token),
        }
    }

    /// Puts the proof into what a client says of itself.
    pub(crate) fn prove(&self, info: &mut ConnectInfo) {
        match self.proof.clone() {
            Proof::None => {}
            Proof::Password { user, password } => {
                (info.user, info.pass) = (Some(user), Some(password));
            }
            Proof::Token(token) => info.auth_token = Some(token),
        }
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.server.as_url_str())
    }
}

/// The first line of `file`.
fn password(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file)?;
    let password = text.lines().next().unwrap_or_default();
    ensure!(!password.is_empty(), "got an empty first line, wanted the password");
    let len = password.len();
    ensure!(len <= PASSWORD_MAX, "got {len} bytes, wanted at most {PASSWORD_MAX}");
    Ok(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Args {
        #[command(flatten)]
        common: Common,
    }

    fn proof(flags: &[&str]) -> Result<String, String> {
        let args = Args::try_parse_from([&["x"], flags].concat()).map_err(|e| e.to_string())?;
        let login = Login::read(&args.common).map_err(|e| format!("{e:#}"))?;
        assert!(!login.to_string().contains("secret"), "{login}");
        Ok(match login.proof {
            Proof::None => String::new(),
            Proof::Password { user, password } => format!("{user} {password}"),
            Proof::Token(token) => token,
        })
    }

    #[test]
    fn name_and_password_come_from_the_url_or_from_a_flag_and_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret\nmore\n").unwrap();
        let path = file.path().to_str().unwrap();
        let flags = ["--nats-user", "us", "--nats-password-file", path];
        let at = |url| proof(&["--nats-url", url]);
        assert_eq!(at("nats://h:4222").unwrap(), "");
        assert_eq!(at("nats://us:secret%40%2f@h:4222").unwrap(), "us secret@/");
        assert_eq!(at("tls://secret@h").unwrap(), "secret");
        assert_eq!(proof(&flags).unwrap(), "us secret");
        let twice = [&["--nats-url", "nats://us:secret@h"], &flags[..]].concat();
        let refused = [proof(&twice), at("http://us:secret@h"), proof(&flags[..2])];
        for refused in refused {
            let refused = refused.unwrap_err();
            assert!(!refused.contains("secret"), "{refused}");
        }
        std::fs::write(file.path(), "\nsecret").unwrap();
        assert!(proof(&flags).unwrap_err().contains("empty first line"));
    }
}
