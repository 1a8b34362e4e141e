//! The program against real etcd servers of the testbed.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print figures"
)]

#[path = "../support/crash.rs"]
mod crash;
#[path = "../support/mod.rs"]
mod support;

mod access;
mod outages;
mod scale;

use callsign_testkit::etcd::{Etcd, Gateway};
use callsign_testkit::server::Server;

/// An etcd that runs, raw access to it, and the URL of a registry in it.
pub(crate) async fn start(query: &str) -> (Server<Etcd>, Gateway, String) {
    let mut server = Etcd::server().unwrap();
    server.start().await.unwrap();
    let (raw, url) = (Gateway::new(server.addr()), format!("etcd://{}/services{query}", server.addr()));
    (server, raw, url)
}
