//! The Eureka backend of **callsign**.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> callsign_core::Result<()> {
//! use callsign_core::RegistryUrl;
//!
//! // Does no network I/O: whether a server can be reached shows when the registry is used.
//! let registry = callsign_eureka::open(&RegistryUrl::parse("eureka://127.0.0.1:8761/eureka")?)?;
//! # drop(registry);
//! # Ok(())
//! # }
//! ```
//!
//! An instance is one of Eureka's, of the application with its service's name, renewed by its owner. Eureka tells of no
//! change by itself: what is watched is asked for again and again. [`Format`] says what is written; what is read is
//! recognised by its content.
//!
//! When to ask again after a failure, what to keep in an outage and when to register anew is decided by the drivers of
//! `callsign-core`; this crate spawns no task.

mod all;
mod ask;
mod builder;
mod config;
mod error;
mod group;
mod lease;
mod listing;
mod own;
mod registry;
mod servers;
mod source;
mod wire;

pub use builder::{Builder, Eureka};
pub use config::open;
pub use group::Fetch;
pub use servers::Order;
pub use wire::Format;
