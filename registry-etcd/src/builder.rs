//! [`Etcd::builder`]: a registry in etcd, made in code.

use std::sync::Arc;

use callsign_core::{Access, Address, CredentialProvider, Error, ErrorKind, Registry, Result, Settings, Tls};
use tokio::runtime::Handle;

use crate::identity::Identity;
use crate::keys::Keys;
use crate::registry::{Config, EtcdProtocol};
use crate::wire::Format;

/// etcd v3 as a registry: [`Etcd::builder`] makes one in code, as [`open`](crate::open) does from a URL.
#[derive(Debug)]
#[non_exhaustive]
pub struct Etcd;

impl Etcd {
    /// A builder with the format [`Format::Grpc`], its prefix, default settings, and no endpoint yet.
    pub fn builder() -> Builder {
        Builder {
            endpoints: Vec::new(),
            prefix: String::new(),
            format: Format::default(),
            read: Vec::new(),
            protocol: None,
            access: Access::default(),
            settings: Settings::default(),
        }
    }
}

/// Collects what a registry in etcd needs.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> callsign_core::Result<()> {
/// use callsign_etcd::{Etcd, Format};
///
/// let registry = Etcd::builder().endpoint("127.0.0.1:2379")?.prefix("/services").format(Format::GoKit).build()?;
/// # drop(registry);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing before build()"]
pub struct Builder {
    pub(crate) endpoints: Vec<Address>,
    prefix: String,
    format: Format,
    read: Vec<Format>,
    protocol: Option<String>,
    pub(crate) access: Access,
    settings: Settings,
}

impl Builder {
    /// Adds a member of the cluster, as `host:port`.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): no address.
    pub fn endpoint<A>(mut self, endpoint: A) -> Result<Self>
    where
        A: TryInto<Address, Error: Into<Error>>,
    {
        self.endpoints.push(endpoint.try_into().map_err(Into::into)?);
        Ok(self)
    }

    /// Sets the prefix of all keys; empty for that of the format's own framework. Leading and trailing slashes say
    /// nothing: both `services/` and `/services/` are read, and the format decides which is written.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets how instances are written. All formats are read.
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Sets whose own places are read beside the prefix.
    pub fn read(mut self, formats: impl IntoIterator<Item = Format>) -> Self {
        self.read = formats.into_iter().collect();
        self
    }

    /// Sets which endpoints of a Kratos entry are instances, in the clear or over TLS: `grpc` for those that begin
    /// with `grpc://`. Without it all of them are, each with its protocol in its id.
    pub fn protocol(mut self, protocol: impl Into<String>) -> Self {
        self.protocol = Some(protocol.into());
        self
    }

    /// Speaks TLS.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.access.tls = Some(tls);
        self
    }

    /// Authenticates, by what the provider knows at that time. Refused by [`build`](Self::build) where a password would
    /// leave this machine in the clear.
    pub fn credentials(mut self, provider: impl CredentialProvider) -> Self {
        self.access.credentials = Some(Arc::new(provider));
        self
    }

    /// Allows a password to cross a network in the clear, where **whoever is between can read it**.
    pub fn insecure_plaintext_password(mut self) -> Self {
        self.access.plaintext_password = true;
        self
    }

    /// Sets times and rates.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Opens the registry, its tasks running on the current Tokio runtime. Does no I/O but to read certificates.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): no endpoint, a prefix with control characters, certificates that are of no use,
    /// or a password that would leave this machine in the clear.
    /// [`Unsupported`](ErrorKind::Unsupported) outside a Tokio runtime.
    pub fn build(self) -> Result<Registry> {
        let hosts: Vec<_> = self.endpoints.iter().map(ToString::to_string).collect();
        let name = format!("etcd://{}/{}", hosts.join(","), self.effective_prefix());
        self.build_named(name)
    }

    /// The prefix without the slashes around it.
    fn effective_prefix(&self) -> &str {
        match self.prefix.trim_matches('/') {
            "" => self.format.default_prefix(),
            prefix => prefix,
        }
    }

    pub(crate) fn build_named(self, name: String) -> Result<Registry> {
        if self.endpoints.is_empty() {
            return Err(Error::invalid("no etcd endpoint is given: add one, as 127.0.0.1:2379"));
        }
        if self.prefix.chars().any(char::is_control) {
            return Err(Error::invalid(format!(
                "etcd prefix {:?}: a prefix has no control characters",
                self.prefix
            )));
        }
        self.access.check(&name, &self.endpoints)?;
        let keys = Keys::new(self.effective_prefix(), &self.read);
        let runtime = Handle::try_current().map_err(|error| {
            let what =
                format!("registry {name} needs a Tokio runtime: open it inside #[tokio::main] or block_on");
            Error::new(ErrorKind::Unsupported, what).with_source(error)
        })?;
        let config = Config {
            endpoints: self.endpoints,
            keys,
            format: self.format,
            protocol: self.protocol.map(Into::into),
            settings: self.settings,
            connector: self.access.connector(&["h2"])?,
            identity: self.access.credentials.map(Identity::new),
            runtime,
        };
        Registry::new(name, EtcdProtocol::new(config))
    }
}
