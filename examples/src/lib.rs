//! The book service: a gRPC server and client that find each other through a registry, which one being a cargo
//! feature and a URL and nothing else.
//!
//! - [`server`] serves, registers, and leaves in two phases when it is told to end.
//! - [`client`] watches the registry and calls whoever is registered, one after the other.
//! - [`demo`] is two servers and a client, as processes of their own.
//! - [`defaults::registry_url`] is the one place that knows of cargo features.

pub mod cli;
pub mod client;
pub mod defaults;
pub mod demo;
pub mod server;
pub mod service;
pub mod text;

/// What is generated of `proto/book.proto`.
pub mod proto {
    #![allow(missing_docs, clippy::all, clippy::pedantic)]
    tonic::include_proto!("book");
}

/// The code in the documents, compiled as it stands there.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../../docs/getting-started.md")]
    struct GettingStarted;
}
