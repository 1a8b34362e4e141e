//! The Consul backend of **callsign**.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> callsign_core::Result<()> {
//! use callsign_core::RegistryUrl;
//!
//! // Does no network I/O: whether the agent can be reached shows when the registry is used.
//! let registry = callsign_consul::open(&RegistryUrl::parse("consul://127.0.0.1:8500")?)?;
//! # drop(registry);
//! # Ok(())
//! # }
//! ```
//!
//! An instance is a service of the agent that is talked to, with a TTL check that whoever registered it passes. What is
//! watched is the catalog, with the health of each instance and its node, by blocking queries. [`Format`] says what is
//! written; whatever anybody registers is read.
//!
//! When to ask again, what to keep in an outage and when to register anew is decided by the drivers of
//! `callsign-core`; this crate spawns no task.

mod agent;
mod answer;
mod builder;
mod check;
mod config;
mod doubt;
mod environment;
mod error;
mod lease;
mod own;
mod query;
mod registry;
mod source;
mod token;
mod wire;

pub use builder::{Builder, Consul};
pub use check::Check;
pub use config::open;
pub use query::Consistency;
pub use wire::Format;
