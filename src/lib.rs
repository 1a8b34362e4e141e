//! **callsign**: pluggable service discovery and client-side load balancing.

#[doc(inline)]
pub use callsign_core::*;
#[cfg(feature = "etcd")]
pub use callsign_etcd as etcd;

mod backends;
mod open;

pub use open::open;
