//! [`ZooKeeper::builder`]: a registry in ZooKeeper, made in code.

use std::sync::Arc;

use callsign_core::{Access, Address, CredentialProvider, Error, ErrorKind, Registry, Result, Settings, Tls};
use tokio::runtime::Handle;

use crate::entry::Making;
use crate::paths::{Paths, fault};
use crate::registry::ZkProtocol;
use crate::session::{Ensemble, Session};
use crate::way::Way;
use crate::wire::Format;

/// Who may read and change the nodes of instances. Those above them are open to all, as others register there too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Acl {
    /// Everybody, as Curator and Spring Cloud do it; the default.
    #[default]
    World,
    /// Only who has the same user and password.
    Creator,
}

/// What the node of a service is, where it has to be made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Parents {
    /// It stays, as in Spring Cloud; the default.
    #[default]
    Persistent,
    /// ZooKeeper removes it some time after its last instance has gone.
    Container,
}

/// ZooKeeper as a registry: [`ZooKeeper::builder`] makes one in code, as [`open`](crate::open) does from a URL.
#[derive(Debug)]
#[non_exhaustive]
pub struct ZooKeeper;

impl ZooKeeper {
    /// A builder with the format [`Format::Curator`], its place, default settings, and no server yet.
    pub fn builder() -> Builder {
        Builder {
            hosts: Vec::new(),
            base: String::new(),
            format: Format::default(),
            read: Vec::new(),
            protocol: None,
            acl: Acl::default(),
            parents: Parents::default(),
            access: Access::default(),
            settings: Settings::default(),
        }
    }
}

/// Collects what a registry in ZooKeeper needs.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> callsign_core::Result<()> {
/// use callsign_zk::{Format, ZooKeeper};
///
/// let registry = ZooKeeper::builder().host("127.0.0.1:2181")?.base("/services").format(Format::GoKit).build()?;
/// # drop(registry);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing before build()"]
pub struct Builder {
    pub(crate) hosts: Vec<Address>,
    base: String,
    format: Format,
    read: Vec<Format>,
    protocol: Option<String>,
    acl: Acl,
    parents: Parents,
    pub(crate) access: Access,
    settings: Settings,
}

impl Builder {
    /// Adds a server of the ensemble, as `host:port`.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): no address.
    pub fn host<A>(mut self, host: A) -> Result<Self>
    where
        A: TryInto<Address, Error: Into<Error>>,
    {
        self.hosts.push(host.try_into().map_err(Into::into)?);
        Ok(self)
    }

    /// Sets the node below which services are; empty for that of the format's own framework, `/` for the root. A chroot is
    /// a part of it: `/chroot/services`. It is made when something is registered, if it is not there.
    pub fn base(mut self, path: impl Into<String>) -> Self {
        self.base = path.into();
        self
    }

    /// Sets how instances are written. All formats are read.
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Sets whose own places are read beside the base.
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

    /// Sets who may read and change the nodes of instances.
    pub fn acl(mut self, acl: Acl) -> Self {
        self.acl = acl;
        self
    }

    /// Sets what the node of a service is, where it has to be made.
    pub fn parents(mut self, parents: Parents) -> Self {
        self.parents = parents;
        self
    }

    /// Authenticates by user and password (ZooKeeper's scheme `digest`), by what the provider knows when a session is
    /// opened. Refused by [`build`](Self::build) where a password would leave this machine in the clear.
    pub fn credentials(mut self, provider: impl CredentialProvider) -> Self {
        self.access.credentials = Some(Arc::new(provider));
        self
    }

    /// Speaks TLS, with servers at their `secureClientPort`.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.access.tls = Some(tls);
        self
    }

    /// Allows a password to cross a network in the clear, where **whoever is between can read it**.
    pub fn insecure_plaintext_password(mut self) -> Self {
        self.access.plaintext_password = true;
        self
    }

    /// Sets times and rates. The TTL is what is asked for as the timeout of the session; ZooKeeper grants 2 to 20 of its
    /// ticks.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Opens the registry, its tasks running on the current Tokio runtime. Does no I/O but to read certificates.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): no host, a path that ZooKeeper refuses, [`Acl::Creator`] without a user, a
    /// password that would leave this machine in the clear, or certificates that are of no use.
    /// [`Unsupported`](ErrorKind::Unsupported): TLS, in a build without the feature `tls`; or no Tokio runtime.
    pub fn build(self) -> Result<Registry> {
        let hosts: Vec<_> = self.hosts.iter().map(ToString::to_string).collect();
        let base = if self.base.is_empty() { self.format.default_base() } else { &self.base };
        let scheme = if self.access.tls.is_some() { "zk+tls" } else { "zk" };
        let name = format!("{scheme}://{}/{}", hosts.join(","), base.trim_matches('/'));
        self.build_named(name)
    }

    pub(crate) fn build_named(self, name: String) -> Result<Registry> {
        if self.hosts.is_empty() {
            return Err(Error::invalid("no host of ZooKeeper is given: add one, as 127.0.0.1:2181"));
        }
        if let Some(fault) = fault(&self.base) {
            return Err(Error::invalid(format!(
                "registry {name}: the path {:?} {fault}: write it as /services",
                self.base
            )));
        }
        if self.acl == Acl::Creator && self.access.credentials.is_none() {
            return Err(Error::invalid(format!(
                "registry {name} has acl=creator and no user: write zk://USER:PASSWORD@host"
            )));
        }
        self.access.check(&name, &self.hosts)?;
        let runtime = Handle::try_current().map_err(|error| {
            let what =
                format!("registry {name} needs a Tokio runtime: open it inside #[tokio::main] or block_on");
            Error::new(ErrorKind::Unsupported, what).with_source(error)
        })?;
        let base = if self.base.is_empty() { self.format.default_base() } else { &self.base };
        let (connector, within) = (self.access.connector(&[])?, self.settings.request_timeout);
        let ensemble = Ensemble {
            way: Way::new(self.hosts, connector, self.access.tls.is_some(), within, runtime),
            timeout: self.settings.ttl,
            request_timeout: within,
            credentials: self.access.credentials,
        };
        let protocol = ZkProtocol {
            session: Arc::new(Session::new(ensemble)),
            paths: Paths::new(base, &self.read),
            making: Making { format: self.format, acl: self.acl, parents: self.parents },
            protocol: self.protocol.map(Into::into),
            settings: self.settings,
        };
        Registry::new(name, protocol)
    }
}
