//! The one table of backends: a scheme, the cargo feature it needs, and how it is opened. This is the one place
//! where a backend is added.

use callsign_core::{Registry, RegistryUrl, Result};

/// How a registry of some scheme is opened: with no network I/O.
type Open = fn(&RegistryUrl) -> Result<Registry>;

/// One kind of registry.
pub(crate) struct Backend {
    /// What its URLs begin with.
    pub(crate) scheme: &'static str,
    /// The cargo feature that builds it in, where it needs one.
    pub(crate) feature: Option<&'static str>,
    /// `None`: its feature is not built in.
    pub(crate) open: Option<Open>,
}

/// Every backend there is, built in or not.
pub(crate) const BACKENDS: &[Backend] = &[
    Backend { scheme: "file", feature: None, open: Some(callsign_core::file::open) },
    Backend { scheme: "memory", feature: None, open: Some(callsign_core::memory::open) },
    Backend { scheme: "static", feature: None, open: Some(callsign_core::fixed::open) },
    Backend {
        scheme: "consul",
        feature: Some("consul"),
        #[cfg(feature = "consul")]
        open: Some(callsign_consul::open),
        #[cfg(not(feature = "consul"))]
        open: None,
    },
    Backend {
        scheme: "etcd",
        feature: Some("etcd"),
        #[cfg(feature = "etcd")]
        open: Some(callsign_etcd::open),
        #[cfg(not(feature = "etcd"))]
        open: None,
    },
    Backend {
        scheme: "eureka",
        feature: Some("eureka"),
        #[cfg(feature = "eureka")]
        open: Some(callsign_eureka::open),
        #[cfg(not(feature = "eureka"))]
        open: None,
    },
    Backend {
        scheme: "zk",
        feature: Some("zk"),
        #[cfg(feature = "zk")]
        open: Some(callsign_zk::open),
        #[cfg(not(feature = "zk"))]
        open: None,
    },
];
