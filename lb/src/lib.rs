//! Client-side load balancing over a callsign watch.
//!
//! Go kit's chain, for any protocol: an [`Endpointer`] keeps an endpoint for every live instance of an
//! [`InstanceWatch`](callsign_core::InstanceWatch), a [`Balancer`] picks one for each call by a [`Policy`], and
//! [`Retry`] makes the call, elsewhere again if it may. With the feature `grpc`, [`grpc::Channel`] does all of
//! that beneath a generated tonic client.
//!
//! The crate knows no registry: everything it learns comes from the watch.

mod balancer;
mod endpointer;
mod error;
mod factory;
#[cfg(feature = "grpc")]
pub mod grpc;
mod policy;
mod ready;
mod retry;
mod slot;

pub use balancer::Balancer;
pub use endpointer::{Endpointer, EndpointerBuilder};
pub use error::{BoxError, DialError, DialErrors, NeverSent, PickError, is_never_sent};
pub use factory::{Factory, Lifeline};
pub use policy::{Avoid, Choice, Member, Members, Policy, Random, RoundRobin};
pub use ready::ReadySet;
pub use retry::{Attempt, AttemptError, Decide, Retry, RetryError, UnsentOnly};
pub use slot::{Picked, Slot, Stats};
