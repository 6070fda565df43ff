//! TLS (RFC 3261 §26.3.1, RFC 5922): our certificate, whom we trust, and both kinds of handshake.

use anyhow::{Context as _, bail};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// The files of `--tls-cert`, `--tls-key` and `--tls-ca`.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// Whom we trust; the system's authorities if not given.
    pub(crate) ca: Option<PathBuf>,
}

/// Both sides of TLS, with one certificate of ours for all; cheap to clone.
#[derive(Clone)]
pub(crate) struct Tls {
    files: Files,
    own: Arc<Own>,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

/// Our certificate, which can be replaced while we run.
#[derive(Debug)]
struct Own(RwLock<Arc<CertifiedKey>>);

impl Own {
    fn get(&self) -> Arc<CertifiedKey> {
        // Nobody panics while holding it, and what is in it is whole at all times.
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Tls {
    /// # Errors
    /// A file cannot be read, is not PEM, or the key is not the certificate's: which one.
    pub(crate) fn load(files: Files) -> anyhow::Result<Self> {
        let own = Arc::new(Own(RwLock::new(Arc::new(certified_key(&files)?))));
        let provider = Arc::new(ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .context("set TLS versions")?
            .with_no_client_auth()
            .with_cert_resolver(own.clone());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("set TLS versions")?
            .with_root_certificates(roots(files.ca.as_deref())?)
            .with_client_cert_resolver(own.clone());
        let (acceptor, connector) = (Arc::new(server).into(), Arc::new(client).into());
        Ok(Self { files, own, acceptor, connector })
    }

    /// Reads certificate and key again, for the connections that come; those that stand go on.
    ///
    /// # Errors
    /// As [`Tls::load`]; then the former ones stay.
    pub(crate) fn reload(&self) -> anyhow::Result<()> {
        let new = Arc::new(certified_key(&self.files)?);
        *self.own.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = new;
        Ok(())
    }

    /// Their connection, as the server.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await.map(TlsStream::from)
    }

    /// Our connection, to the one whose certificate is for `name`.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        name: ServerName<'static>,
    ) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(name, stream).await.map(TlsStream::from)
    }
}

fn certified_key(files: &Files) -> anyhow::Result<CertifiedKey> {
    let (cert, key) = (files.cert.display(), files.key.display());
    let chain = certificates(&files.cert).with_context(|| format!("read --tls-cert {cert}"))?;
    let der = PrivateKeyDer::from_pem_file(&files.key);
    let der = der.with_context(|| format!("read --tls-key {key} (wanted a private key as PEM)"))?;
    CertifiedKey::from_der(chain, der, &ring::default_provider())
        .with_context(|| format!("use --tls-key {key} with --tls-cert {cert}"))
}

/// At least one certificate.
fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let certificates: Vec<_> = read.context("read PEM")?;
    if certificates.is_empty() {
        bail!("got no certificate, wanted PEM with BEGIN CERTIFICATE");
    }
    Ok(certificates)
}

fn roots(ca: Option<&Path>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(file) => {
            let context = || format!("read --tls-ca {}", file.display());
            for certificate in certificates(file).with_context(context)? {
                roots.add(certificate).with_context(context)?;
            }
        }
        // Some of a system's authorities are beyond what rustls reads; the others serve.
        None => {
            let system = rustls_native_certs::load_native_certs().certs;
            let _ = roots.add_parsable_certificates(system);
        }
    }
    Ok(roots)
}
