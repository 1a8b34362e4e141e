//! **callsign**: service discovery and client-side load balancing, with the registry as a URL.
//!
//! A service registers under a name; clients watch the name, keep connections to the live instances and send
//! each request to one of them.
//!
//! - [`open()`] turns a URL into a [`Registry`]: `etcd://…`, `consul://…`, `eureka://…`, `zk://…`, `file:///…`, `memory:…`, `static:…`.
//! - [`Registry::register`] publishes an [`Instance`] for as long as the [`Registration`] is held.
//! - [`Registry::watch`] follows a service: an [`InstanceWatch`] always has the latest [`Snapshot`], and an
//!   error never empties it.
//! - `grpc::Channel` (feature `grpc`, on by default) goes beneath a generated tonic client; [`Endpointer`],
//!   [`Balancer`] and [`Retry`] do the same for any protocol.
//!
//! ```
//! use callsign::Instance;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let registry = callsign::open("memory:example")?;
//! let registration = registry.register(Instance::new("book", "127.0.0.1:50051")?).await?;
//!
//! let mut books = registry.watch(&"book".parse()?);
//! let snapshot = books.ready().await?;
//! assert!(snapshot.freshness().is_fresh());
//! assert_eq!(snapshot.iter().next().unwrap().address().port(), 50051);
//!
//! registration.deregister().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # For authors of backends
//! A registry that is not here is a [`Protocol`] with its [`Source`] and [`Lease`], and [`Registry::new`] does the
//! rest. A crate of one depends on `callsign-core`, where these are, and no more.
//!
//! # Features
//! | feature | what |
//! |---|---|
//! | `grpc` (default) | `grpc::Channel` |
//! | `consul` | `consul://` registries |
//! | `etcd` | `etcd://` registries; needs `protoc` to build |
//! | `eureka` | `eureka://` registries |
//! | `zk` | `zk://` registries: ZooKeeper |
//! | `tls` | TLS to registries, `etcd+tls://`, and to instances; needs a C compiler to build |

mod backends;
mod open;

#[cfg(feature = "consul")]
#[doc(inline)]
pub use callsign_consul as consul;
pub use callsign_core::file;
#[doc(inline)]
pub use callsign_core::{
    Access, Address, Claim, Connector, CredentialProvider, Credentials, Error, ErrorKind, Finding, Freshness,
    Instance, InstanceId, InstanceWatch, Instancer, Kept, Lease, Listed, Loss, PasswordFile, Pem, Protocol,
    Query, Registrar, Registration, Registry, RegistryUrl, Removal, Report, Result, Secret, ServiceName,
    Settings, Snapshot, Source, State, Status, Terms, Tls, Update,
};
#[cfg(feature = "etcd")]
#[doc(inline)]
pub use callsign_etcd as etcd;
#[cfg(feature = "eureka")]
#[doc(inline)]
pub use callsign_eureka as eureka;
#[doc(inline)]
pub use callsign_lb::*;
#[cfg(feature = "zk")]
#[doc(inline)]
pub use callsign_zk as zk;

pub use open::open;
