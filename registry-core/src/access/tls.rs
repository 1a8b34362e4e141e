//! [`Tls`]: whom to trust, and with which certificate to show up.

use super::pem::Pem;
use crate::error::{Error, Result};
use crate::url::{Query, RegistryUrl};

/// Settings of TLS to a registry, or to instances of a service. The default trusts what this machine trusts, and shows no certificate.
///
/// ```
/// # use callsign_core::{Pem, Tls};
/// let tls = Tls::default()
///     .ca(Pem::file("/etc/etcd/ca.pem"))
///     .identity(Pem::file("/etc/etcd/client.pem"), Pem::file("/etc/etcd/client.key"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    pub(crate) ca: Option<Pem>,
    pub(crate) identity: Option<(Pem, Pem)>,
    pub(crate) server_name: Option<String>,
    /// `None`: it was not said.
    pub(crate) skip_verify: Option<bool>,
}

impl Tls {
    /// Trusts the certificates that these authorities signed, and no others. URL key `ca`.
    #[must_use]
    pub fn ca(mut self, certificates: Pem) -> Self {
        self.ca = Some(certificates);
        self
    }

    /// Shows a certificate, with its chain, and proves it by its private key. URL keys `cert` and `key`.
    #[must_use]
    pub fn identity(mut self, certificate: Pem, key: Pem) -> Self {
        self.identity = Some((certificate, key));
        self
    }

    /// Expects the server's certificate to be for this name, whatever host is connected to. URL key `server_name`.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Takes whatever certificate the server shows: **whoever is between can read and change everything**. URL key
    /// `insecure_skip_verify`.
    #[must_use]
    pub fn insecure_skip_verify(mut self) -> Self {
        self.skip_verify = Some(true);
        self
    }

    /// Takes from `other` whatever is not set here; but not to trust everybody, where this says whom to trust.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        if self.ca.is_none() {
            self.skip_verify = self.skip_verify.or(other.skip_verify);
        }
        self.ca = self.ca.or(other.ca);
        self.identity = self.identity.or(other.identity);
        self.server_name = self.server_name.or(other.server_name);
        self
    }

    /// What a URL says, if it asks for TLS.
    pub(super) fn from_query(url: &RegistryUrl, query: &mut Query) -> Result<Option<Self>> {
        let [ca, cert, key, server_name] =
            ["ca", "cert", "key", "server_name"].map(|name| (name, query.take(name)));
        let skip_verify = query.flag("insecure_skip_verify")?;
        if !url.tls() {
            let given = [&ca, &cert, &key, &server_name].into_iter().find(|(_, value)| value.is_some());
            let given = given.map(|(name, _)| *name).or(skip_verify.map(|_| "insecure_skip_verify"));
            return match given {
                Some(name) => Err(Error::invalid(format!(
                    "registry URL {url} has {name}, which is about TLS: write {}+tls://",
                    url.scheme()
                ))),
                None => Ok(None),
            };
        }
        super::available(&format!("registry URL {url}"))?;
        let identity = match (cert.1, key.1) {
            (Some(cert), Some(key)) => Some((Pem::file(cert), Pem::file(key))),
            (None, None) => None,
            (Some(_), None) => {
                return Err(Error::invalid(format!(
                    "registry URL {url} has cert and no key: a certificate needs its private key"
                )));
            }
            (None, Some(_)) => {
                return Err(Error::invalid(format!(
                    "registry URL {url} has key and no cert: a private key needs its certificate"
                )));
            }
        };
        Ok(Some(Self { ca: ca.1.map(Pem::file), identity, server_name: server_name.1, skip_verify }))
    }
}
