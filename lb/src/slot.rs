//! [`Slot`]: an instance that can be picked, with its endpoint and its statistics.

use std::fmt::{self, Debug};
use std::sync::{Arc, Weak};

use callsign_core::Instance;

use crate::factory::Lifeline;
use crate::picked::{Measure, Picked};
use crate::stats::Stats;

/// An endpoint with what belongs to it. The endpointer holds it for as long as it is to be used, calls for as
/// long as they last; ready sets do not, so that an old one in some idle handle keeps no socket open.
pub(crate) struct Link<E> {
    endpoint: E,
    lifeline: Lifeline,
    stats: Arc<Stats>,
}

impl<E> Link<E> {
    pub(crate) fn new(endpoint: E, lifeline: Lifeline, stats: Arc<Stats>) -> Self {
        Self { endpoint, lifeline, stats }
    }

    pub(crate) fn endpoint(&self) -> &E {
        &self.endpoint
    }

    pub(crate) fn lifeline(&self) -> &Lifeline {
        &self.lifeline
    }

    pub(crate) fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }
}

/// One entry of a [`ReadySet`](crate::ReadySet).
pub struct Slot<E> {
    number: u64,
    instance: Arc<Instance>,
    stats: Arc<Stats>,
    link: Weak<Link<E>>,
}

impl<E> Slot<E> {
    pub(crate) fn new(number: u64, instance: Arc<Instance>, link: &Arc<Link<E>>) -> Self {
        Self { number, instance, stats: Arc::clone(&link.stats), link: Arc::downgrade(link) }
    }

    /// The instance, as it is registered now.
    #[must_use]
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// What is known of the calls to it.
    #[must_use]
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Tells this instance from all others; the same for all of its connections.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Begins a call, unless the endpoint has gone since the set was made, or its instance is left out.
    pub(crate) fn begin(&self, measure: Measure) -> Option<Picked<E>> {
        let link = self.link.upgrade()?;
        if link.lifeline.is_cut() {
            return None;
        }
        let pass = self.stats.gate().enter()?;
        Some(Picked::new(self.number, Arc::clone(&self.instance), link, measure, pass))
    }
}

impl<E> Debug for Slot<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("instance", self.instance.id())
            .field("in_flight", &self.stats.in_flight())
            .finish_non_exhaustive()
    }
}
