//! A certificate authority of a test: signs certificates for names and addresses of this machine.

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::path::{Path, PathBuf};

/// Its own certificate and key are in its folder, so that it is the same one at the next call.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// That of `folder`; made at the first call.
    pub fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        let (file, key_file) = (folder.join("authority.pem"), folder.join("authority.key"));
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "Test authority");
        let key = match std::fs::read_to_string(&key_file) {
            Ok(pem) => KeyPair::from_pem(&pem).context("read the authority's key")?,
            Err(_) => {
                let key = KeyPair::generate().context("make a key")?;
                let certificate = params.self_signed(&key).context("sign the authority")?;
                std::fs::write(&file, certificate.pem()).context("write the authority")?;
                std::fs::write(&key_file, key.serialize_pem()).context("write its key")?;
                key
            }
        };
        Ok(Self { folder: folder.to_owned(), issuer: Issuer::new(params, key) })
    }

    /// What those must read who trust it.
    pub fn file(&self) -> PathBuf {
        self.folder.join("authority.pem")
    }

    /// Files with a certificate for `name`, a host name or an address, and with its key.
    pub fn certify(&self, name: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
        let mut params =
            CertificateParams::new(vec![name.to_owned()]).context("name the certificate")?;
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().context("make a key")?;
        let certificate = params.signed_by(&key, &self.issuer).context("sign a certificate")?;
        let (file, key_file) =
            (self.folder.join(format!("{name}.pem")), self.folder.join(format!("{name}.key")));
        std::fs::write(&file, certificate.pem()).context("write a certificate")?;
        std::fs::write(&key_file, key.serialize_pem()).context("write its key")?;
        Ok((file, key_file))
    }
}
