//! Other frameworks in the same registry: each finds the other's book servers, and calls them.
//!
//! They are real programs of those frameworks, from `registry-testkit/testbed/peers`.

#![allow(clippy::unwrap_used, clippy::panic)]

mod books;
mod etcd;
