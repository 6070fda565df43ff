//! How this process logs in to NATS: by name and password, by a token, or by a key.
//!
//! Names, passwords and tokens come from flags and a file, or stand in the URL, as
//! `nats://NAME:PASSWORD@HOST` or `nats://TOKEN@HOST`. The client library reads them there, but does not
//! use them. A key (an nkey: Ed25519) signs what the server asks; beside it in a `.creds` file is the
//! JWT that says what its owner may.

use crate::Common;
use anyhow::{Context as _, ensure};
use async_nats::{AuthError, ConnectInfo, ConnectOptions, ServerAddr, ServerInfo};
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use percent_encoding::percent_decode_str;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Longest password, in bytes.
const PASSWORD_MAX: usize = 1_024;
/// Longest file of `--nats-creds`, in bytes.
const CREDS_MAX: usize = 65_536;

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
    Key(Arc<Key>),
}

/// A key, and the JWT of its owner if the server goes by JWTs.
struct Key {
    pair: KeyPair,
    jwt: Option<String>,
}

impl Login {
    /// What `--nats-url`, `--nats-user` with `--nats-password-file`, and `--nats-creds` say.
    ///
    /// # Errors
    /// If the URL is none, the file cannot be read or has no password, or there are two names. No
    /// message repeats a secret.
    pub fn read(common: &Common) -> anyhow::Result<Self> {
        let login = Self::at(&common.nats_url).context("read --nats-url")?;
        if let Some(file) = &common.nats_creds {
            ensure!(
                matches!(login.proof, Proof::None),
                "read --nats-url: got a name or token in it beside --nats-creds, wanted one of them"
            );
            let key = key(file).with_context(|| format!("read --nats-creds {}", file.display()))?;
            return Ok(Self { proof: Proof::Key(Arc::new(key)), ..login });
        }
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
            Proof::Key(key) => ConnectOptions::with_auth_callback(move |nonce| {
                let key = key.clone();
                async move {
                    let mut auth = async_nats::Auth::new();
                    auth.signature = Some(key.pair.sign(&nonce).map_err(AuthError::new)?);
                    auth.nkey = key.public();
                    auth.jwt = key.jwt.clone();
                    Ok(auth)
                }
            }),
        }
    }

    /// Puts the proof into what a client says of itself to a server that has said `server`.
    ///
    /// # Errors
    /// If the key cannot sign.
    pub(crate) fn prove(&self, server: &ServerInfo, info: &mut ConnectInfo) -> anyhow::Result<()> {
        match self.proof.clone() {
            Proof::None => {}
            Proof::Password { user, password } => {
                (info.user, info.pass) = (Some(user), Some(password));
            }
            Proof::Token(token) => info.auth_token = Some(token),
            Proof::Key(key) => {
                let signature = key.pair.sign(server.nonce.as_bytes()).context("sign")?;
                info.signature = Some(BASE64URL_NOPAD.encode(&signature));
                (info.nkey, info.user_jwt) = (key.public(), key.jwt.clone());
            }
        }
        Ok(())
    }
}

impl Key {
    /// What the server knows it by, if it does not know the JWT.
    fn public(&self) -> Option<String> {
        self.jwt.is_none().then(|| self.pair.public_key())
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

/// What is between the lines that begin and end it in a `.creds` file; an nkey's seed may stand alone.
fn key(file: &Path) -> anyhow::Result<Key> {
    let text = std::fs::read_to_string(file)?;
    let len = text.len();
    ensure!(len <= CREDS_MAX, "got {len} bytes, wanted at most {CREDS_MAX}");
    let below = |line: &str| {
        let (_, rest) = text.split_once(line)?;
        rest.lines().map(|it| it.trim_matches('-').trim()).find(|it| !it.is_empty())
    };
    let jwt = below("BEGIN NATS USER JWT").map(str::to_owned);
    let seed = below("BEGIN USER NKEY SEED").unwrap_or(text.trim());
    // The library's error may repeat what it got.
    let pair = KeyPair::from_seed(seed).ok();
    let pair = pair.context("got no seed of an nkey, wanted a .creds file or a line `SU…`")?;
    Ok(Key { pair, jwt })
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
            Proof::Key(key) => format!("{:?} {}", key.jwt, key.pair.public_key()),
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

    #[test]
    fn a_key_is_read_from_a_creds_file_or_from_its_seed_alone() {
        let (pair, file) = (KeyPair::new_user(), tempfile::NamedTempFile::new().unwrap());
        let (seed, public) = (pair.seed().unwrap(), pair.public_key());
        let creds = format!(
            "-----BEGIN NATS USER JWT-----\neyJ0.eyJq.c2ln\n------END NATS USER JWT------\n\n\
             *** keep it secret ***\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let path = file.path().to_str().unwrap();
        let flags = ["--nats-creds", path];
        for (text, jwt) in [(creds, r#"Some("eyJ0.eyJq.c2ln")"#), (format!("{seed}\n"), "None")] {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(proof(&flags).unwrap(), format!("{jwt} {public}"));
        }
        let twice = [&["--nats-url", "nats://secret@h"], &flags[..]].concat();
        assert!(proof(&twice).unwrap_err().contains("beside --nats-creds"));
        std::fs::write(file.path(), "SUsecret").unwrap();
        let refused = proof(&flags).unwrap_err();
        assert!(refused.contains("wanted a .creds file") && !refused.contains("SUs"), "{refused}");
    }
}
