//! The ZooKeeper backend of **callsign**.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> callsign_core::Result<()> {
//! use callsign_core::RegistryUrl;
//!
//! // Does no network I/O: whether ZooKeeper can be reached shows when the registry is used.
//! let registry = callsign_zk::open(&RegistryUrl::parse("zk://127.0.0.1:2181/services")?)?;
//! # drop(registry);
//! # Ok(())
//! # }
//! ```
//!
//! An instance is one ephemeral node below that of its service. All registrations and watches of a registry share one
//! session, which is one connection; ZooKeeper removes the nodes when the session ends. [`Format`] says which bytes are
//! written; all formats are read.
//!
//! When to ask again, what to keep in an outage and when to register anew is decided by the drivers of
//! `callsign-core`. The client library beneath this crate runs a task for the session, and over TLS there is one more that
//! hands its bytes on; both end with the registry.

mod away;
mod builder;
mod config;
mod doubt;
mod entry;
mod error;
#[cfg(test)]
mod fake;
mod frames;
mod index;
mod lease;
mod own;
mod owners;
mod paths;
mod registry;
#[cfg(feature = "tls")]
mod relay;
mod session;
mod source;
mod way;
mod wire;

pub use builder::{Acl, Builder, Parents, ZooKeeper};
pub use config::open;
pub use wire::Format;
