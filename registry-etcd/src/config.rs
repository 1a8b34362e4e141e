//! How a registry in etcd is opened: [`open`] by URL, [`Etcd::builder`] in code. Neither does network I/O.

use callsign_core::{Address, Error, ErrorKind, Registry, RegistryUrl, Result, Settings};
use tokio::runtime::Handle;

use crate::keys::Keys;
use crate::registry::{Config, EtcdProtocol};
use crate::wire::Format;

const DEFAULT_PORT: u16 = 2379;

/// Opens `etcd://host:port[,host:port...]/prefix?key=value`. Does no network I/O.
///
/// The port is 2379 and the prefix that of the format's own framework (`/services` for `grpc` and `gokit`) where the
/// URL does not say. Its keys are:
///
/// | key | meaning |
/// |---|---|
/// | `format` | what is written: `grpc` (the default), `gokit`, `kratos`, `kitex`, `gomicro` or `gozero`; see [`Format`] |
/// | `read` | whose places are read beside the prefix, with commas between: `kratos,kitex` |
/// | `protocol` | which of a Kratos instance's several endpoints are instances; all of them, unless given |
/// | `ttl`, `grace`, `drain`, `verify` | as in all registries: [`Settings`] |
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid): no host, an unknown key, or a bad value.
/// [`Unsupported`](ErrorKind::Unsupported): `etcd+tls`, or user and password, which this version cannot do; or
/// no Tokio runtime to run on.
pub fn open(url: &RegistryUrl) -> Result<Registry> {
    if url.tls() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "registry URL {url} asks for TLS, which this version does not speak to etcd: write etcd://"
            ),
        ));
    }
    if url.credentials().is_some() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "registry URL {url} has a user or password, which this version cannot give to etcd: leave it out, \
                 and use an etcd without authentication"
            ),
        ));
    }
    let mut query = url.query();
    let mut builder = Etcd::builder()
        .format(query.choice("format", &Format::ALL)?.unwrap_or_default())
        .read(query.choices("read", &Format::ALL)?)
        .settings(Settings::default().with_query(&mut query)?);
    builder.protocol = query.take("protocol");
    query.finish()?;
    builder.endpoints = url.hosts(DEFAULT_PORT)?;
    builder.prefix(url.path()).build_named(url.to_string())
}

/// etcd v3 as a registry: [`Etcd::builder`] makes one in code, as [`open`] does from a URL.
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
    endpoints: Vec<Address>,
    prefix: String,
    format: Format,
    read: Vec<Format>,
    protocol: Option<String>,
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

    /// Sets times and rates.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Opens the registry, its tasks running on the current Tokio runtime. Does no I/O.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): no endpoint, or a prefix with control characters.
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

    fn build_named(self, name: String) -> Result<Registry> {
        if self.endpoints.is_empty() {
            return Err(Error::invalid("no etcd endpoint is given: add one, as 127.0.0.1:2379"));
        }
        if self.prefix.chars().any(char::is_control) {
            return Err(Error::invalid(format!(
                "etcd prefix {:?}: a prefix has no control characters",
                self.prefix
            )));
        }
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
            runtime,
        };
        Registry::new(name, EtcdProtocol::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(url: &str) -> Result<Registry> {
        open(&RegistryUrl::parse(url)?)
    }

    #[tokio::test]
    async fn urls_open_without_a_server() {
        for url in [
            "etcd://127.0.0.1",
            "etcd://127.0.0.1:1/services?format=gokit&ttl=5s&grace=1s&drain=0s&verify=10s",
            "etcd://a:1,[::1],c/deep/prefix/?format=grpc",
            "etcd://127.0.0.1?format=kitex&read=kratos,gozero&protocol=grpc",
        ] {
            let registry = opened(url).unwrap();
            assert_eq!(format!("{registry:?}"), url.split('?').next().unwrap());
        }
        let registry = opened("etcd://h?ttl=5s&drain=1s").unwrap();
        assert_eq!((registry.settings().ttl.as_secs(), registry.settings().drain.as_secs()), (5, 1));
    }

    #[tokio::test]
    async fn what_is_refused_is_named_and_no_secret_shown() {
        for (url, says) in [
            ("etcd:///services", "no host"),
            ("etcd://h/p?tll=5s", "\"tll\""),
            ("etcd://h/p?tll=5s", "drain, format, grace, protocol, read, ttl, verify"),
            ("etcd://h/p?format=xml", "grpc, gokit, kratos, kitex, gomicro, gozero"),
            ("etcd://h/p?read=kratos,xml", "read=xml"),
            ("etcd://h/p?ttl=1", "duration"),
            ("etcd://h:0/p", "port 0"),
            ("etcd://h/a%0Ab", "control"),
            ("etcd+tls://h/p", "TLS"),
            ("etcd://al:canary@h/p", "password"),
        ] {
            let error = opened(url).unwrap_err();
            assert!(error.to_string().contains(says), "{url}: {error}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
        assert_eq!(opened("etcd+tls://h").unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(opened("etcd://u@h").unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(Etcd::builder().build().unwrap_err().to_string().contains("endpoint"));
    }

    #[test]
    fn needs_a_runtime() {
        assert_eq!(opened("etcd://h").unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
