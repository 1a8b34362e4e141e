//! [`Consul::builder`]: a registry in Consul, made in code.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use callsign_core::{
    Access, Address, CredentialProvider, Error, ErrorKind, HttpClient, Registry, Result, Secret, Settings,
    Target, Tls,
};
use tokio::runtime::Handle;

use crate::agent::{Agent, Place};
use crate::check::Check;
use crate::query::{Consistency, Scope};
use crate::registry::ConsulProtocol;
use crate::token::Token;
use crate::wire::Format;

/// Consul as a registry: [`Consul::builder`] makes one in code, as [`open`](crate::open) does from a URL.
#[derive(Debug)]
#[non_exhaustive]
pub struct Consul;

impl Consul {
    /// A builder for an agent, as `host:port`, with default settings.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): no address.
    pub fn builder<A>(agent: A) -> Result<Builder>
    where
        A: TryInto<Address, Error: Into<Error>>,
    {
        Ok(Builder::new(Target::Tcp(agent.try_into().map_err(Into::into)?)))
    }

    /// A builder for an agent that listens at a socket in the file system, with default settings.
    pub fn builder_at_socket(path: impl Into<PathBuf>) -> Builder {
        Builder::new(Target::Unix(path.into()))
    }
}

/// How often an entry is to be renewed, and so how long it may be silent, weighs on Consul's servers too.
pub(crate) fn default_settings() -> Settings {
    let mut settings = Settings::default();
    settings.ttl = Duration::from_secs(15);
    settings
}

/// Collects what a registry in Consul needs.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> callsign_core::Result<()> {
/// use callsign_consul::Consul;
///
/// let registry = Consul::builder("127.0.0.1:8500")?.datacenter("eu-1").build()?;
/// # drop(registry);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing before build()"]
pub struct Builder {
    agent: Target,
    pub(crate) base: String,
    pub(crate) place: Place,
    pub(crate) format: Format,
    pub(crate) check: Check,
    pub(crate) scope: Scope,
    pub(crate) token: Token,
    pub(crate) access: Access,
    pub(crate) settings: Settings,
}

impl Builder {
    pub(crate) fn new(agent: Target) -> Self {
        Self {
            agent,
            base: String::new(),
            place: Place::default(),
            format: Format::default(),
            check: Check::default(),
            scope: Scope::default(),
            token: Token::None,
            access: Access::default(),
            settings: default_settings(),
        }
    }

    /// Sets what stands before `/v1` in the paths of a proxy before the agent.
    pub fn base_path(mut self, path: impl Into<String>) -> Self {
        self.base = path.into();
        self
    }

    /// Sets the datacenter; by default the agent's own. Instances are registered in the agent's, always.
    pub fn datacenter(mut self, name: impl Into<String>) -> Self {
        self.place.datacenter = Some(name.into());
        self
    }

    /// Sets the namespace, of Consul Enterprise.
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.place.namespace = Some(name.into());
        self
    }

    /// Sets the admin partition, of Consul Enterprise.
    pub fn partition(mut self, name: impl Into<String>) -> Self {
        self.place.partition = Some(name.into());
        self
    }

    /// Sets how instances are written. All that is written in Consul is read.
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Sets how Consul knows that what is registered lives.
    pub fn check(mut self, check: Check) -> Self {
        self.check = check;
        self
    }

    /// Sets how the catalog is read.
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.scope.consistency = consistency;
        self
    }

    /// Finds also what others registered and what has a check that warns.
    pub fn warnings(mut self) -> Self {
        self.scope.taking.warnings = true;
        self
    }

    /// Sets which of an instance's several endpoints are instances, in the clear or over TLS. Without it all of them
    /// are, each with its protocol in its id.
    pub fn protocol(mut self, protocol: impl Into<String>) -> Self {
        self.scope.taking.protocol = Some(protocol.into());
        self
    }

    /// Finds only what has all of these tags.
    pub fn tags(mut self, tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.scope.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// Finds only what an expression in Consul's language of filters holds for.
    pub fn filter(mut self, filter: impl Into<String>) -> Self {
        self.scope.filter = Some(filter.into());
        self
    }

    /// Authenticates by an ACL token.
    pub fn token(mut self, token: Secret) -> Self {
        self.token = Token::Fixed(token);
        self
    }

    /// Authenticates by an ACL token in a file, which is read anew for every request.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token = Token::File(path.into());
        self
    }

    /// Authenticates by the ACL token that is the password of what a provider knows at that time.
    pub fn credentials(mut self, provider: impl CredentialProvider) -> Self {
        self.token = Token::Provider(Arc::new(provider));
        self
    }

    /// Speaks TLS.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.access.tls = Some(tls);
        self
    }

    /// Allows a token to cross a network in the clear, where **whoever is between can read it**.
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
    /// [`Invalid`](ErrorKind::Invalid): a token that would leave this machine in the clear, or certificates that are of
    /// no use. [`Unsupported`](ErrorKind::Unsupported): TLS, in a build without the feature `tls`; or no Tokio runtime.
    pub fn build(self) -> Result<Registry> {
        let name = match &self.agent {
            Target::Tcp(agent) => format!("consul://{agent}{}", self.base),
            socket => format!("consul at {socket}"),
        };
        self.build_named(name)
    }

    pub(crate) fn build_named(mut self, name: String) -> Result<Registry> {
        let has_token = !matches!(self.token, Token::None);
        if has_token && self.access.credentials.is_none() {
            // What holds of passwords holds of tokens.
            let secret = callsign_core::Credentials::new("token", Secret::new("token"))?;
            self.access.credentials = Some(Arc::new(secret));
        }
        match &self.agent {
            Target::Tcp(agent) => self.access.check(&name, std::slice::from_ref(agent))?,
            _ if self.access.tls.is_some() => {
                return Err(Error::invalid(format!(
                    "registry {name} asks for TLS at a socket of this machine: leave +tls out of the scheme"
                )));
            }
            _ => self.access.check(&name, &[])?,
        }
        let runtime = Handle::try_current().map_err(|error| {
            let what =
                format!("registry {name} needs a Tokio runtime: open it inside #[tokio::main] or block_on");
            Error::new(ErrorKind::Unsupported, what).with_source(error)
        })?;
        let connector = self.access.connector(&["http/1.1"])?;
        let (agent, timeout) = (self.agent.to_string(), self.settings.request_timeout);
        let http = HttpClient::new(&self.agent, connector, &runtime);
        let agent = Agent::new(http, agent, &self.base, self.place, self.token, timeout);
        let (format, check, settings) = (self.format, self.check, self.settings);
        Registry::new(name, ConsulProtocol { agent, format, check, scope: Arc::new(self.scope), settings })
    }
}
