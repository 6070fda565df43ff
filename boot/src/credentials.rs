//! Who this process is, for gRPC, and whom it lets in: tokens and certificates.
//!
//! One set for the process, as its logs and metrics are: what it shows does not depend on who asks.

use crate::Common;
use anyhow::{Context as _, bail, ensure};
use std::path::Path;
use std::sync::OnceLock;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

/// Most lines of `--grpc-token-file`: each call is compared with all of them.
const TOKENS_MAX: usize = 64;
/// Shortest and longest token: 16 random characters are beyond guessing.
const TOKEN_MIN: usize = 16;
const TOKEN_MAX: usize = 256;
/// Longest name of a token.
const NAME_MAX: usize = 64;

static PROCESS: OnceLock<Credentials> = OnceLock::new();

/// Nothing, by default: no token is asked for or shown, and there is no TLS.
#[derive(Default)]
pub(crate) struct Credentials {
    tokens: Vec<Token>,
    /// The `authorization` that this process shows to others.
    shown: Option<MetadataValue<Ascii>>,
    identity: Option<Identity>,
    authorities: Option<Certificate>,
}

struct Token {
    name: String,
    secret: String,
}

impl Credentials {
    /// Reads the files of the flags.
    ///
    /// # Errors
    /// If one cannot be read, or is not what its flag says. No message repeats a token.
    pub(crate) fn read(common: &Common) -> anyhow::Result<Self> {
        let tokens = match &common.grpc_token_file {
            Some(file) => tokens(&read("--grpc-token-file", file)?)
                .with_context(|| format!("read --grpc-token-file {}", file.display()))?,
            None => Vec::new(),
        };
        let identity = match common.grpc_cert.as_ref().zip(common.grpc_key.as_ref()) {
            Some((cert, key)) => {
                Some(Identity::from_pem(pem("--grpc-cert", cert)?, pem("--grpc-key", key)?))
            }
            None => None,
        };
        let authorities = match &common.grpc_ca {
            Some(file) => Some(Certificate::from_pem(pem("--grpc-ca", file)?)),
            None => None,
        };
        Ok(Self { shown: shown(&tokens), tokens, identity, authorities })
    }

    /// Makes these the credentials of the process; the first ones stay.
    pub(crate) fn adopt(self) -> &'static Self {
        PROCESS.get_or_init(|| self)
    }

    /// Those of the process.
    pub(crate) fn of_process() -> &'static Self {
        PROCESS.get_or_init(Self::default)
    }

    /// What a server presents and asks for; `None`: no TLS.
    pub(crate) fn server_tls(&self) -> Option<ServerTlsConfig> {
        let tls = ServerTlsConfig::new().identity(self.identity.clone()?);
        Some(match &self.authorities {
            Some(authorities) => tls.client_ca_root(authorities.clone()),
            None => tls,
        })
    }

    /// What a client presents and asks for; `None` without `--grpc-ca`, since nobody could be trusted.
    pub(crate) fn client_tls(&self) -> Option<ClientTlsConfig> {
        let tls = ClientTlsConfig::new().ca_certificate(self.authorities.clone()?);
        Some(match &self.identity {
            Some(identity) => tls.identity(identity.clone()),
            None => tls,
        })
    }

    pub(crate) fn shown(&self) -> Option<&MetadataValue<Ascii>> {
        self.shown.as_ref()
    }

    /// The name of the token in `authorization`; `None` if nobody has it. Every token is compared to
    /// its end, so the time it takes tells nothing about them.
    pub(crate) fn caller(&self, authorization: Option<&[u8]>) -> Caller<'_> {
        if self.tokens.is_empty() {
            return Caller::Anyone;
        }
        let shown = authorization.and_then(bearer).unwrap_or_default();
        let mut caller = Caller::Nobody;
        for (nth, token) in self.tokens.iter().enumerate() {
            if same(token.secret.as_bytes(), shown) {
                caller = if nth == 0 { Caller::Service } else { Caller::Named(&token.name) };
            }
        }
        caller
    }
}

/// Who calls, as far as tokens tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller<'a> {
    /// There are no tokens.
    Anyone,
    /// Who has the first one: the services themselves.
    Service,
    Named(&'a str),
    /// No token, or none of ours.
    Nobody,
}

/// What follows `Bearer `, in any case (RFC 9110 §11.1, RFC 6750 §2.1).
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

fn shown(tokens: &[Token]) -> Option<MetadataValue<Ascii>> {
    let value = format!("Bearer {}", tokens.first()?.secret);
    let mut shown = MetadataValue::try_from(value).expect("a token is visible ASCII");
    shown.set_sensitive(true);
    Some(shown)
}

fn tokens(text: &str) -> anyhow::Result<Vec<Token>> {
    let lines = text.lines().map(str::trim).enumerate();
    let mut tokens: Vec<Token> = Vec::new();
    for (index, line) in lines.filter(|(_, it)| !it.is_empty() && !it.starts_with('#')) {
        let wanted = || {
            format!(
                "line {}: wanted NAME:TOKEN, the token {TOKEN_MIN} to {TOKEN_MAX} visible ASCII \
                 characters, e.g. from `openssl rand -hex 32`",
                index + 1
            )
        };
        let (name, secret) = line.split_once(':').with_context(wanted)?;
        let visible = secret.bytes().all(|it| it.is_ascii_graphic());
        let long = (TOKEN_MIN..=TOKEN_MAX).contains(&secret.len());
        let named = (1..=NAME_MAX).contains(&name.len());
        ensure!(visible && long && named, "{}", wanted());
        if tokens.iter().any(|it| it.secret == secret) {
            bail!("line {}: this token is there already", index + 1);
        }
        tokens.push(Token { name: name.to_owned(), secret: secret.to_owned() });
        ensure!(tokens.len() <= TOKENS_MAX, "more than {TOKENS_MAX} tokens");
    }
    ensure!(!tokens.is_empty(), "no line NAME:TOKEN");
    Ok(tokens)
}

fn pem(flag: &str, file: &Path) -> anyhow::Result<String> {
    let text = read(flag, file)?;
    ensure!(text.contains("-----BEGIN "), "read {flag} {}: wanted PEM", file.display());
    Ok(text)
}

fn read(flag: &str, file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("read {flag} {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# ours\nservices:0123456789abcdef\n\n alice:fedcba9876543210 \n";

    fn credentials() -> Credentials {
        let tokens = tokens(FILE).unwrap();
        Credentials { shown: shown(&tokens), tokens, ..Credentials::default() }
    }

    #[test]
    fn a_caller_is_who_has_the_token() {
        let credentials = credentials();
        let caller = |it: &str| credentials.caller(Some(it.as_bytes()));
        assert_eq!(caller("Bearer 0123456789abcdef"), Caller::Service);
        assert_eq!(caller("bearer fedcba9876543210"), Caller::Named("alice"));
        for wrong in
            ["Bearer 0123456789abcdeF", "Bearer 0123456789abcde", "Basic 0123456789abcdef", ""]
        {
            assert_eq!(caller(wrong), Caller::Nobody, "{wrong}");
        }
        assert_eq!(credentials.caller(None), Caller::Nobody);
        assert_eq!(Credentials::default().caller(None), Caller::Anyone);
    }

    #[test]
    fn the_first_token_is_shown_to_others_and_to_no_log() {
        let credentials = credentials();
        let shown = credentials.shown().unwrap();
        assert_eq!(shown.to_str().unwrap(), "Bearer 0123456789abcdef");
        assert!(!format!("{shown:?}").contains("0123"));
        assert!(Credentials::default().shown().is_none());
    }

    #[test]
    fn a_token_file_that_protects_nothing_is_refused_without_its_tokens() {
        for (text, wanted) in [
            ("", "no line NAME:TOKEN"),
            ("# a:0123456789abcdef", "no line NAME:TOKEN"),
            ("a:short", "line 1: wanted NAME:TOKEN"),
            ("a:0123456789abcdef\n0123456789abcdeg", "line 2: wanted NAME:TOKEN"),
            ("a:0123456789 abcdef", "line 1: wanted"),
            (":0123456789abcdef", "line 1: wanted"),
            ("a:0123456789abcdef\nb:0123456789abcdef", "line 2: this token is there already"),
        ] {
            let error = tokens(text).err().unwrap().to_string();
            assert!(error.contains(wanted), "{text:?}: {error}");
            assert!(!error.contains("0123"), "{error}");
        }
    }
}
