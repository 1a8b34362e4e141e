//! Registering and watching, over and over, uses no more tasks, sockets, files or memory. What is counted belongs to
//! the process, so this is a binary of its own, whose tests run one at a time.

#![allow(clippy::expect_used)]

use std::sync::{Mutex, PoisonError};

use callsign_testkit::conformance::resources::cycles;
use callsign_testkit::fixture::{Fixture, UrlFixture};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Not `#[tokio::test]`: the runtimes of tests that wait for their turn would be counted too.
fn alone<F: Fixture>(fixture: impl AsyncFnOnce() -> F) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("no runtime").block_on(async { cycles(&fixture().await).await });
}

#[test]
fn memory() {
    alone(async || UrlFixture::memory(callsign::open));
}

#[test]
fn file() {
    alone(async || callsign_testkit::file::FileFixture::new(callsign::open));
}

#[cfg(feature = "etcd")]
#[test]
fn etcd() {
    alone(async || callsign_testkit::etcd::EtcdFixture::start(callsign::open).await);
}

#[cfg(feature = "consul")]
#[test]
fn consul() {
    alone(async || callsign_testkit::consul::ConsulFixture::start(callsign::open).await);
}

#[cfg(feature = "zk")]
#[test]
fn zookeeper() {
    alone(async || callsign_testkit::zookeeper::ZooKeeperFixture::start(callsign::open).await);
}

#[cfg(feature = "eureka")]
#[test]
fn eureka() {
    alone(async || callsign_testkit::eureka::EurekaFixture::start(callsign::open).await);
}
