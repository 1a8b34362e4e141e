//! What must be survived: the rows of the fault matrix, each against real processes, with calls running meanwhile.
//!
//! The long waits are short by default, and of full length with `CALLSIGN_TEST_FULL=1`, which `scripts/test --full`
//! sets.

// Helpers of tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

/// Tests of rows, each on one registry.
macro_rules! rows {
    ($fixture:ty; $($module:ident: $($row:ident),* $(,)?;)*) => {$($(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $row() {
            crate::$module::$row::<$fixture>().await;
        }
    )*)*};
}

#[cfg(all(feature = "consul", feature = "tls"))]
mod agent;
mod backend;
mod backends;
#[cfg(feature = "zk")]
mod capped;
mod cast;
mod changes;
#[cfg(feature = "consul")]
mod consul;
#[cfg(feature = "consul")]
mod datacenter;
#[cfg(feature = "zk")]
mod ensemble;
mod etcd;
#[cfg(feature = "eureka")]
mod eureka;
mod links;
mod minority;
mod outages;
#[cfg(feature = "consul")]
mod restarts;
mod scene;
#[cfg(feature = "tls")]
mod secured;
mod traffic;
#[cfg(feature = "zk")]
mod zk;
#[cfg(all(feature = "zk", feature = "tls"))]
mod zk_secured;
