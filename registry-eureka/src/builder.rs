//! [`Eureka::builder`]: a registry in Eureka, made in code.

use std::sync::Arc;
use std::time::Duration;

use callsign_core::{
    Access, Address, CredentialProvider, Error, ErrorKind, HttpClient, Registry, Result, Settings, Target,
    Tls,
};
use tokio::runtime::Handle;

use crate::config::POLL;
use crate::group::{Fetch, Group};
use crate::registry::EurekaProtocol;
use crate::servers::{Order, Server, Servers};
use crate::wire::{Format, Taking};

/// Eureka as a registry: [`Eureka::builder`] makes one in code, as [`open`](crate::open) does from a URL.
#[derive(Debug)]
#[non_exhaustive]
pub struct Eureka;

impl Eureka {
    /// A builder for servers with applications below a path, `/eureka` in most places, with default settings and no server
    /// yet.
    pub fn builder(path: &str) -> Builder {
        Builder::new(Vec::new(), path)
    }
}

/// As Eureka's own clients do it: they renew every 30 s, and what changes is seen a server's cache and a poll later.
pub(crate) fn default_settings() -> Settings {
    let mut settings = Settings::default();
    settings.ttl = Duration::from_secs(90);
    settings.grace = Duration::from_secs(90);
    settings.drain = Duration::from_secs(60);
    settings
}

/// A server, and in which zone it is, if that is told.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) address: Address,
    pub(crate) zone: Option<String>,
}

/// Collects what a registry in Eureka needs.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> callsign_core::Result<()> {
/// use std::time::Duration;
/// use callsign_eureka::Eureka;
///
/// let registry = Eureka::builder("/eureka").host("127.0.0.1:8761")?.poll(Duration::from_secs(5)).build()?;
/// # drop(registry);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing before build()"]
pub struct Builder {
    hosts: Vec<Host>,
    path: String,
    /// Whose servers are asked first.
    zone: Option<String>,
    order: Order,
    format: Format,
    fetch: Fetch,
    taking: Taking,
    poll: Duration,
    pub(crate) access: Access,
    settings: Settings,
}

impl Builder {
    pub(crate) fn new(hosts: Vec<Host>, path: &str) -> Self {
        Self {
            hosts,
            path: path.to_owned(),
            zone: None,
            order: Order::default(),
            format: Format::default(),
            fetch: Fetch::default(),
            taking: Taking::default(),
            poll: Duration::from_secs(30),
            access: Access::default(),
            settings: default_settings(),
        }
    }

    /// Adds a server, as `host:port`.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): no address.
    pub fn host<A>(mut self, host: A) -> Result<Self>
    where
        A: TryInto<Address, Error: Into<Error>>,
    {
        self.hosts.push(Host { address: host.try_into().map_err(Into::into)?, zone: None });
        Ok(self)
    }

    /// Adds a server that is in a zone.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): no address.
    pub fn host_in<A>(mut self, zone: &str, host: A) -> Result<Self>
    where
        A: TryInto<Address, Error: Into<Error>>,
    {
        let address = host.try_into().map_err(Into::into)?;
        self.hosts.push(Host { address, zone: Some(zone.to_owned()) });
        Ok(self)
    }

    /// Asks the servers of a zone, one's own, before all others.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> callsign_core::Result<()> {
    /// use callsign_eureka::Eureka;
    ///
    /// let servers = Eureka::builder("/eureka").host_in("eu-1", "10.1.0.1:8761")?.host_in("eu-2", "10.2.0.1:8761")?;
    /// let registry = servers.zone("eu-2").build()?;
    /// # drop(registry);
    /// # Ok(())
    /// # }
    /// ```
    pub fn zone(mut self, own: &str) -> Self {
        self.zone = Some(own.to_owned());
        self
    }

    /// Sets which server is asked first, of one's own zone where that is known.
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Sets how instances are written.
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Sets whether each service is asked for by itself or everything at once.
    pub fn fetch(mut self, fetch: Fetch) -> Self {
        self.fetch = fetch;
        self
    }

    /// Sets how often what is watched is asked for, spread by a fifth: 20 ms to a day.
    pub fn poll(mut self, every: Duration) -> Self {
        self.poll = every;
        self
    }

    /// Finds also what others registered and is not up, as down.
    pub fn all_statuses(mut self) -> Self {
        self.taking.all = true;
        self
    }

    /// Authenticates by user and password (HTTP's basic authentication), by what the provider knows at that time. Refused
    /// by [`build`](Self::build) where a password would leave this machine in the clear.
    pub fn credentials(mut self, provider: impl CredentialProvider) -> Self {
        self.access.credentials = Some(Arc::new(provider));
        self
    }

    /// Speaks TLS.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.access.tls = Some(tls);
        self
    }

    /// Allows a password to cross a network in the clear, where **whoever is between can read it**.
    pub fn insecure_plaintext_password(mut self) -> Self {
        self.access.plaintext_password = true;
        self
    }

    /// Sets times and rates. Of the TTL whole seconds count, an even number of them.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Opens the registry, its tasks running on the current Tokio runtime. Does no I/O but to read certificates.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): no host, a time between polls out of its bounds, a password that would leave this
    /// machine in the clear, or certificates that are of no use.
    /// [`Unsupported`](ErrorKind::Unsupported): TLS, in a build without the feature `tls`; or no Tokio runtime.
    pub fn build(self) -> Result<Registry> {
        let hosts: Vec<_> = self.hosts.iter().map(|host| host.address.to_string()).collect();
        let name = format!("eureka://{}/{}", hosts.join(","), self.path.trim_matches('/'));
        self.build_named(name)
    }

    pub(crate) fn build_named(mut self, name: String) -> Result<Registry> {
        if self.hosts.is_empty() {
            return Err(Error::invalid("no host of Eureka is given: add one, as 127.0.0.1:8761"));
        }
        if self.poll < POLL.0 || self.poll > POLL.1 {
            return Err(Error::invalid(format!(
                "registry {name} has poll={:?}: poll is {:?} to a day",
                self.poll, POLL.0
            )));
        }
        let addresses: Vec<_> = self.hosts.iter().map(|host| host.address.clone()).collect();
        self.access.check(&name, &addresses)?;
        let runtime = Handle::try_current().map_err(|error| {
            let what =
                format!("registry {name} needs a Tokio runtime: open it inside #[tokio::main] or block_on");
            Error::new(ErrorKind::Unsupported, what).with_source(error)
        })?;
        if self.order == Order::Random {
            fastrand::shuffle(&mut self.hosts);
        }
        if let Some(own) = &self.zone {
            // Stable: those of a zone stay in order.
            self.hosts.sort_by_key(|host| host.zone.as_ref() != Some(own));
        }
        let mut all = Vec::new();
        for Host { address, .. } in self.hosts {
            let (name, target) = (address.to_string(), Target::Tcp(address));
            let connector = self.access.connector(&["http/1.1"])?;
            all.push(Server { http: HttpClient::new(&target, connector, &runtime), name });
        }
        let servers = Servers::new(all, &self.path, self.access.credentials, self.settings.request_timeout);
        let protocol = EurekaProtocol {
            group: Group::new(servers.clone(), self.fetch),
            servers,
            format: self.format,
            taking: Arc::new(self.taking),
            poll: self.poll,
            settings: self.settings,
        };
        Registry::new(name, protocol)
    }
}
