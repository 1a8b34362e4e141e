//! What the Consul backend does beyond what every backend does, against real agents of the testbed.
//!
//! The conformance suite (`tests/consul.rs` of the workspace) and the fault rows (`tests/faults`) have the rest.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print figures"
)]

#[cfg(feature = "tls")]
mod access;
mod checks;
mod entries;
mod limits;
mod rules;
mod servers;

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use callsign_core::{Instance, Registry, RegistryUrl, ServiceName, Snapshot};
use callsign_testkit::consul::{Api, Consul};
use callsign_testkit::record::confirmed;
use callsign_testkit::server::Server;

pub(crate) fn open(url: &str) -> Registry {
    callsign_consul::open(&RegistryUrl::parse(url).unwrap()).unwrap()
}

/// Opens a registry in the Consul whose agent serves at `addr`; `rest` is the URL's path and query.
pub(crate) fn open_at(addr: SocketAddr, rest: &str) -> Registry {
    open(&format!("consul://{addr}{rest}"))
}

/// A Consul that runs, and raw access to it.
pub(crate) async fn start() -> (Server<Consul>, Api) {
    let mut server = Consul::server().unwrap();
    server.start().await.unwrap();
    let raw = Consul::raw(&server);
    (server, raw)
}

pub(crate) fn book() -> ServiceName {
    "book".parse().unwrap()
}

pub(crate) fn instance(port: u16) -> Instance {
    Instance::new("book", format!("127.0.0.1:{port}")).unwrap()
}

/// The ids of the confirmed, sorted.
pub(crate) fn ids(snapshot: &Snapshot) -> Vec<String> {
    confirmed(snapshot).iter().map(ToString::to_string).collect()
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
