//! What the Eureka backend does beyond what every backend does, against real servers of the testbed.
//!
//! The conformance suite (`tests/eureka.rs` of the workspace) and the fault rows (`tests/faults`) have the rest.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print figures"
)]

mod access;
mod answers;
mod changes;
mod closed;
mod front;
mod fronts;
mod owners;
mod production;
mod servers;
mod slow;
mod statuses;
mod updates;

use std::fmt::Debug;
use std::time::Duration;

use callsign_core::{Instance, Registry, RegistryUrl, ServiceName, Snapshot};
use callsign_testkit::eureka::{Api, Eureka};
use callsign_testkit::record::confirmed;
use callsign_testkit::server::Server;

pub(crate) fn open(url: &str) -> Registry {
    callsign_eureka::open(&RegistryUrl::parse(url).unwrap()).unwrap()
}

/// A Eureka that runs, raw access to it, and the URL of a registry in it that looks often.
pub(crate) async fn start(more: &[&str]) -> (Server<Eureka>, Api, String) {
    let mut server = Eureka::server_with(more).unwrap();
    server.start().await.unwrap();
    let (raw, url) = (Api::new(server.addr()), url(&[&server]));
    (server, raw, url)
}

pub(crate) fn url(servers: &[&Server<Eureka>]) -> String {
    let hosts: Vec<_> = servers.iter().map(|server| server.addr().to_string()).collect();
    format!("eureka://{}/eureka?poll=100ms&ttl=4s", hosts.join(","))
}

pub(crate) fn book() -> ServiceName {
    "book".parse().unwrap()
}

pub(crate) fn instance(port: u16) -> Instance {
    Instance::new("book", format!("127.0.0.1:{port}")).unwrap()
}

pub(crate) fn fresh(count: usize) -> impl Fn(&Snapshot) -> bool {
    move |snapshot| snapshot.freshness().is_fresh() && confirmed(snapshot).len() == count
}

/// Seconds, shortly.
pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What was measured, for whoever runs the tests with `--nocapture`.
pub(crate) fn measured(what: &str, value: impl Debug) {
    println!("measured: {what}: {value:.1?}");
}
