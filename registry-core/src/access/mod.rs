//! How a registry is reached and who we say we are: TLS, user and password. The same keys of the URL for every
//! registry, taken by [`Access::from_url`].

mod connect;
mod credentials;
mod dial;
#[cfg(feature = "http")]
mod http;
mod pem;
#[cfg(feature = "tls")]
mod rustls;
#[cfg(feature = "http")]
mod target;
mod tls;
mod variables;
mod words;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

pub use connect::{Connector, Stream, Trouble};
pub use credentials::{CredentialProvider, Credentials, PasswordFile};
#[cfg(feature = "http")]
pub use http::{HttpAnswer, HttpClient, HttpTurn, PendingRequest};
pub use pem::Pem;
#[cfg(feature = "http")]
pub use target::Target;
pub use tls::Tls;
pub use variables::{TlsVariables, Variables};

use crate::error::{Error, ErrorKind, Result};
use crate::model::Address;
use crate::url::{Query, RegistryUrl};

/// How a registry is reached: over TLS or in the clear, and as whom.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Access {
    /// TLS, if it is spoken.
    pub tls: Option<Tls>,
    /// Who knows user and password, if there are any.
    pub credentials: Option<Arc<dyn CredentialProvider>>,
    /// Whether a password may cross a network in the clear.
    pub plaintext_password: bool,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("tls", &self.tls)
            .field("credentials", &self.credentials.as_ref().map(|_| "***"))
            .field("plaintext_password", &self.plaintext_password)
            .finish()
    }
}

impl Access {
    /// What a URL says: `+tls` in its scheme, user and password before its hosts, and the keys `ca`, `cert`, `key`,
    /// `server_name`, `insecure_skip_verify`, `password_file` and `insecure_plaintext_password`. Reads the files that
    /// these name.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): a file that cannot be read or does not hold what it should, or a key that makes
    /// no sense here. [`Unsupported`](ErrorKind::Unsupported): TLS, in a build without the feature `tls`.
    pub fn from_url(url: &RegistryUrl, query: &mut Query) -> Result<Self> {
        let tls = Tls::from_query(url, query)?;
        let file = query.take("password_file");
        let plaintext_password = query.flag("insecure_plaintext_password")?.unwrap_or(false);
        let credentials = match (url.credentials(), file) {
            (None, None) => None,
            (None, Some(_)) => {
                return Err(Error::invalid(format!(
                    "registry URL {url} has password_file and no user: write {}://USER@host",
                    url.scheme()
                )));
            }
            (Some((user, password)), None) => {
                Some(Credentials::new(user, password.clone()).map(|it| Arc::new(it) as Arc<_>)?)
            }
            (Some((user, password)), Some(file)) if password.expose().is_empty() => {
                let file = PasswordFile::new(user, file)?;
                // A wrong path is told now and not at the first refusal.
                file.read()?;
                Some(Arc::new(file) as Arc<_>)
            }
            (Some(_), Some(_)) => {
                return Err(Error::invalid(format!(
                    "registry URL {url} has a password and password_file: one of them is the rule"
                )));
            }
        };
        Ok(Self { tls, credentials, plaintext_password })
    }

    /// Checks that no password would cross a network in the clear, for `hosts` outside this machine.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), naming the host. [`Unsupported`](ErrorKind::Unsupported): TLS, in a build
    /// without the feature `tls`.
    pub fn check(&self, name: &str, hosts: &[Address]) -> Result<()> {
        if self.tls.is_some() {
            return available(&format!("registry {name}"));
        }
        if self.credentials.is_none() || self.plaintext_password {
            return Ok(());
        }
        match hosts.iter().find(|host| !is_this_machine(host)) {
            Some(host) => Err(Error::invalid(format!(
                "registry {name} would send a password to {host} in the clear: use TLS, or allow it by \
                 insecure_plaintext_password=true"
            ))),
            None => Ok(()),
        }
    }
}

impl Access {
    /// What opens connections so; `protocols` are those of the application layer (ALPN). Reads the files of
    /// certificates.
    ///
    /// # Errors
    /// As [`Connector::new`].
    pub fn connector(&self, protocols: &[&str]) -> Result<Connector> {
        let connector = Connector::new(self.tls.as_ref(), protocols)?;
        // A name of this machine may lead elsewhere, and a password is not to follow it.
        let secret = self.tls.is_none() && self.credentials.is_some() && !self.plaintext_password;
        Ok(if secret { connector.loopback_only() } else { connector })
    }
}

/// Whether this build can speak TLS.
fn available(name: &str) -> Result<()> {
    if cfg!(feature = "tls") { Ok(()) } else { Err(unavailable(name)) }
}

fn unavailable(name: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("{name} asks for TLS, which this build cannot speak: add the cargo feature \"tls\""),
    )
}

fn is_this_machine(address: &Address) -> bool {
    let host = address.host();
    host.parse::<IpAddr>().map_or_else(|_| host == "localhost", |ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(text: &str) -> Result<Access> {
        let url = RegistryUrl::parse(text)?;
        let mut query = url.query();
        let access = Access::from_url(&url, &mut query)?;
        query.finish()?;
        access.check(&url.to_string(), &url.hosts(1)?)?;
        Ok(access)
    }

    #[tokio::test]
    async fn users_and_passwords_come_from_the_url_or_a_file() {
        let dir = std::env::temp_dir().join(format!("callsign-access-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("password");
        std::fs::write(&file, "canary\n").unwrap();
        for url in
            ["e://al:canary@127.0.0.1".to_owned(), format!("e://al@[::1]?password_file={}", file.display())]
        {
            let access = access(&url).unwrap();
            assert!(!format!("{access:?}").contains("canary"));
            let credentials = access.credentials.unwrap().credentials().await.unwrap();
            assert_eq!((credentials.user(), credentials.password().expose()), ("al", "canary"));
            assert!(!format!("{credentials:?}").contains("canary"));
        }
        std::fs::write(&file, "\n").unwrap();
        let url = format!("e://al@localhost?password_file={}", file.display());
        assert!(access(&url).unwrap_err().to_string().contains("is empty"));
        std::fs::remove_dir_all(&dir).unwrap();
        let error = access(&url).unwrap_err();
        assert!(error.to_string().contains(&file.display().to_string()), "{error}");
        assert!(access("e://127.0.0.1").unwrap().credentials.is_none());
    }

    #[test]
    fn what_is_refused_is_named_and_no_secret_shown() {
        for (url, says) in [
            ("e://al:canary@10.0.0.1", "insecure_plaintext_password"),
            ("e://al:canary@127.0.0.1,example.org", "example.org:1"),
            ("e://al:can/canary@10.0.0.1:1/p", "%2F"),
            ("e://al:can?canary@10.0.0.1", "%3F"),
            ("e://al@127.0.0.1", "no password"),
            ("e://:canary@127.0.0.1", "no user"),
            ("e://127.0.0.1?password_file=/x", "no user"),
            ("e://al:canary@127.0.0.1?password_file=/x", "one of them"),
            ("e://al:canary@127.0.0.1?insecure_plaintext_password=yes", "true or false"),
            ("e://127.0.0.1?ca=/x", "+tls"),
            ("e+tls://127.0.0.1?cert=/x", if cfg!(feature = "tls") { "key" } else { "feature" }),
        ] {
            let error = access(url).unwrap_err();
            assert!(error.to_string().contains(says), "{url}: {error}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
        access("e://al:canary@10.0.0.1?insecure_plaintext_password=true").unwrap();
    }
}
