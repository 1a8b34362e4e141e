//! [`Pki`]: an authority of its own and what it signs, in files that can be replaced while they are in use.

use std::io;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;

/// An authority, and a folder of certificates.
#[derive(Debug)]
pub struct Pki {
    authority: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate and its private key, in PEM files.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Pki {
    /// An authority that nobody else knows; its own certificate is in [`ca`](Self::ca).
    ///
    /// # Errors
    /// No folder can be written.
    pub fn new() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("callsign-test-pki-").tempdir()?;
        let pki = Self { authority: authority()?, folder };
        replace(&pki.ca(), &pki.authority.pem())?;
        Ok(pki)
    }

    /// The file of the authority's certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Signs a certificate for `names`, host names and IP addresses, and writes it to files called by `name`, in the
    /// place of whatever was there.
    ///
    /// # Errors
    /// The names are none, or the files cannot be written.
    pub fn issue(&self, name: &str, names: &[&str]) -> io::Result<Identity> {
        self.sign(name, &params(name, names)?)
    }

    /// The same with a certificate that has expired.
    ///
    /// # Errors
    /// As [`issue`](Self::issue).
    pub fn issue_expired(&self, name: &str, names: &[&str]) -> io::Result<Identity> {
        let mut params = params(name, names)?;
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        self.sign(name, &params)
    }

    /// Puts another authority in the place of this one, whose certificates nobody trusts from then on who reads
    /// [`ca`](Self::ca) anew; unless `keep`, then the file holds both.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn replace_authority(&mut self, keep: bool) -> io::Result<()> {
        let old = if keep { self.authority.pem() } else { String::new() };
        self.authority = authority()?;
        replace(&self.ca(), &(old + &self.authority.pem()))
    }

    fn sign(&self, name: &str, params: &CertificateParams) -> io::Result<Identity> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &self.authority).map_err(io::Error::other)?;
        let identity = Identity {
            cert: self.folder.path().join(format!("{name}.pem")),
            key: self.folder.path().join(format!("{name}.key")),
        };
        replace(&identity.key, &key.serialize_pem())?;
        replace(&identity.cert, &certificate.pem())?;
        Ok(identity)
    }
}

fn authority() -> io::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = params("test authority", &[])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = Vec::new();
    let key = KeyPair::generate().map_err(io::Error::other)?;
    CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)
}

fn params(name: &str, names: &[&str]) -> io::Result<CertificateParams> {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// At once, for whoever is reading it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, path)
}
