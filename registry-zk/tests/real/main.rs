//! What only ZooKeeper has, on a real server.

// Helpers of tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod access;
mod bad;
mod ensemble;
mod nodes;
mod session;
#[cfg(feature = "tls")]
mod tls;

use std::time::Duration;

use callsign_core::{Registry, RegistryUrl, Result};
use callsign_testkit::zookeeper::ZooKeeperFixture;

const SOON: Duration = Duration::from_secs(3);

fn open(url: &str) -> Result<Registry> {
    callsign_zk::open(&RegistryUrl::parse(url)?)
}

async fn fixture() -> ZooKeeperFixture {
    ZooKeeperFixture::start(open).await
}
