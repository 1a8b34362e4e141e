//! What tests of callsign backends stand on: [`conformance`](mod@conformance) cases that every backend passes,
//! generic over a [`Fixture`](fixture::Fixture), and the real servers ([`server`]) and failing links ([`proxy`])
//! to run them against.
//!
//! An author of a backend writes a fixture and one [`conformance!`](macro@conformance) line.

// A test library reports by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

pub mod conformance;
pub mod consul;
pub mod container;
pub mod etcd;
pub mod eureka;
pub mod file;
pub mod fixture;
pub mod history;
mod home;
pub mod http;
mod leaders;
pub mod load;
pub mod log;
pub mod peers;
pub mod pki;
pub mod ports;
pub mod process;
pub mod provider;
pub mod proxy;
pub mod record;
pub mod server;
pub mod sockets;
pub mod testbed;
pub mod wait;
pub mod zookeeper;
