//! Client-side load balancing over a callsign watch.
//!
//! Go kit's chain, for any protocol: an [`Endpointer`] keeps an endpoint for every live instance of an
//! [`InstanceWatch`](callsign_core::InstanceWatch), a [`Balancer`] picks one for each call by a [`Policy`], and
//! [`Retry`] makes the call, elsewhere again if it may. With the feature `grpc`, [`grpc::Channel`] does all of
//! that beneath a generated tonic client.
//!
//! The crate knows no registry: everything it learns comes from the watch.

mod atomic;
mod balancer;
mod call;
mod clock;
mod ejection;
mod endpointer;
mod error;
mod ewma;
mod factory;
mod gate;
#[cfg(feature = "grpc")]
pub mod grpc;
mod picked;
pub mod policy;
mod ready;
mod retry;
mod slot;
mod slots;
mod stats;
#[cfg(test)]
mod stats_tests;

pub use balancer::Balancer;
pub use call::{Call, Key};
pub use clock::Tick;
pub use ejection::{Ejection, OutlierDetection};
pub use endpointer::{Endpointer, EndpointerBuilder};
pub use error::{BoxError, DialError, DialErrors, NeverSent, PickError, is_never_sent};
pub use ewma::Ewma;
pub use factory::{Factory, Lifeline};
pub use picked::Picked;
pub use policy::{
    BoundedLoad, Choice, Maglev, Member, Members, NamedPolicy, P2cPending, P3cEwma, Policy, Random,
    Rendezvous, RingHash, RoundRobin, SlowStart, UnknownPolicy, WeightedRandom, WeightedRoundRobin,
};
pub use ready::ReadySet;
pub use retry::{Attempt, AttemptError, Budget, Decide, NeverSentOnly, Retry, RetryError};
pub use slot::Slot;
pub use slots::Slots;
pub use stats::{Outcome, Stats};
