//! [`open()`]: from a URL to a registry.

use callsign_core::{Error, ErrorKind, Registry, RegistryUrl, Result};

use crate::backends::BACKENDS;

/// Opens the registry that a URL names. Does no network I/O: whether it can be reached shows when it is used.
///
/// The URL's scheme picks the backend, its other parts mean the same for all of them:
/// `scheme[+tls]://[user:password@]host:port[,host:port...]/prefix?key=value&...`.
///
/// | scheme | registry |
/// |---|---|
/// | `file:///dir` | a directory, shared by the processes of one machine |
/// | `etcd://host:2379/prefix` | etcd v3; needs the feature `etcd` |
/// | `consul://host:8500` | Consul, by an agent; needs the feature `consul` |
/// | `eureka://host:8761/eureka` | Eureka; needs the feature `eureka` |
/// | `zk://host:2181/path` | ZooKeeper; needs the feature `zk` |
/// | `memory:NAME` | inside this process |
/// | `static:NAME=host:port,host:port` | a fixed list |
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> callsign::Result<()> {
/// let registry = callsign::open("memory:docs")?;
/// let instance = callsign::Instance::new("book", "127.0.0.1:50051")?;
/// let registration = registry.register(instance).await?;
/// assert_eq!(registry.services().await?[0].as_str(), "book");
/// registration.deregister().await
/// # }
/// ```
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid): a URL that breaks a rule, naming the part and the rule.
/// [`Unsupported`](ErrorKind::Unsupported): a scheme that does not exist or is not built in, naming those that
/// are and the feature that would add it; or no Tokio runtime to run on.
pub fn open(url: &str) -> Result<Registry> {
    let url = RegistryUrl::parse(url)?;
    let scheme = url.scheme();
    let built_in: Vec<_> = BACKENDS.iter().filter(|b| b.open.is_some()).map(|b| b.scheme).collect();
    let built_in = built_in.join(", ");
    match BACKENDS.iter().find(|backend| backend.scheme == scheme) {
        Some(backend) => match (backend.open, backend.feature) {
            (Some(open), _) => open(&url),
            (None, feature) => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "registry URL has the scheme {scheme:?}, which this build lacks: build with --features {}; built in are {built_in}",
                    feature.unwrap_or(scheme)
                ),
            )),
        },
        None => Err(Error::new(
            ErrorKind::Unsupported,
            format!("registry URL has the unknown scheme {scheme:?}: built in are {built_in}"),
        )),
    }
}
