//! The etcd backend of **callsign**.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> callsign_core::Result<()> {
//! use callsign_core::RegistryUrl;
//!
//! // Does no network I/O: whether etcd can be reached shows when the registry is used.
//! let registry = callsign_etcd::open(&RegistryUrl::parse("etcd://127.0.0.1:2379/services?format=gokit")?)?;
//! # drop(registry);
//! # Ok(())
//! # }
//! ```
//!
//! An instance is one key below the prefix, bound to an etcd lease: whoever registered it renews the lease, and
//! etcd removes the key when nobody does. [`Format`] says which bytes are written; all formats are read, below
//! the prefix with and without its leading slash.
//!
//! When to ask again, what to keep in an outage and when to register anew is decided by the drivers of
//! `callsign-core`; this crate spawns no task.

mod builder;
mod check;
mod claimed;
mod config;
mod environment;
mod error;
mod identity;
mod index;
mod keys;
mod lease;
mod link;
mod list;
mod members;
mod own;
mod registry;
mod renewals;
mod source;
mod wire;

pub use builder::{Builder, Etcd};
pub use config::open;
pub use wire::Format;
