//! Servers and clients in virtual time: what policies and ejection do with servers that are slow, fail or stop.
//!
//! The entry is [`run`]: a [`Scenario`] under a [`Contender`] gives a [`Report`]. Events are discrete; whatever picks, measures and
//! leaves out is `callsign-lb` itself, whose clocks follow the simulated one. A minute of five thousand calls a second takes
//! a second or two.

mod calls;
mod clients;
mod clock;
mod report;
mod scenario;
mod servers;
mod world;

pub use clients::Contender;
pub use report::Report;
pub use scenario::{Antagonist, Scenario, Trouble};
pub use world::run;

/// What went wrong in setting a simulation up.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
