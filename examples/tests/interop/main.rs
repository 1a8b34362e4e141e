//! Other frameworks in the same registry: each finds the other's book servers, and calls them.
//!
//! They are real programs of those frameworks, from `registry-testkit/testbed/peers`.

#![cfg(any(feature = "consul", feature = "etcd", feature = "eureka", feature = "zk"))]
#![allow(clippy::unwrap_used, clippy::panic)]

mod books;
#[cfg(feature = "consul")]
mod consul;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "eureka")]
mod eureka;
mod meet;
#[cfg(feature = "zk")]
mod zk;
