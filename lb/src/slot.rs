//! [`Slot`]: an instance that can be picked, with its endpoint and its statistics.

use std::fmt::{self, Debug};
use std::sync::{Arc, Weak};

use callsign_core::Instance;

use crate::factory::Lifeline;
use crate::picked::{Measure, Picked};
use crate::stats::Stats;

/// An endpoint with what belongs to it. The endpointer holds it for as long as it is to be used, calls for as
/// long as they last; ready sets do not, so that an old one in some idle handle keeps no socket open.
///
/// It is all that a call has to hold, and is made anew when the instance is registered with other contents: the
/// links of an endpoint share it.
pub(crate) struct Link<E> {
    endpoint: Arc<E>,
    lifeline: Lifeline,
    stats: Arc<Stats>,
    /// The number of the endpoint, and that of the instance.
    dial: u64,
    number: u64,
    instance: Arc<Instance>,
}

impl<E> Link<E> {
    pub(crate) fn new(
        endpoint: E,
        lifeline: Lifeline,
        stats: Arc<Stats>,
        number: u64,
        instance: Arc<Instance>,
    ) -> Self {
        let dial = lifeline.key().number;
        Self { endpoint: Arc::new(endpoint), lifeline, stats, dial, number, instance }
    }

    /// The same endpoint for what the instance is registered with now.
    pub(crate) fn renewed(&self, instance: Arc<Instance>) -> Self {
        Self {
            endpoint: Arc::clone(&self.endpoint),
            lifeline: self.lifeline.clone(),
            stats: Arc::clone(&self.stats),
            dial: self.dial,
            number: self.number,
            instance,
        }
    }

    #[inline]
    pub(crate) fn endpoint(&self) -> &E {
        &self.endpoint
    }

    /// The instance, as it is registered since the link was made.
    #[inline]
    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Tells its instance from all others; the same for all of its connections.
    #[inline]
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    #[inline]
    pub(crate) fn lifeline(&self) -> &Lifeline {
        &self.lifeline
    }

    #[inline]
    pub(crate) fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }
}

/// One entry of a [`ReadySet`](crate::ReadySet). A clone of it is of the set that it was of, for as long as it is kept.
pub struct Slot<E> {
    instance: Arc<Instance>,
    stats: Arc<Stats>,
    link: Weak<Link<E>>,
    /// The number of the endpoint.
    dial: u64,
}

impl<E> Slot<E> {
    pub(crate) fn new(link: &Arc<Link<E>>) -> Self {
        Self {
            instance: Arc::clone(&link.instance),
            stats: Arc::clone(&link.stats),
            link: Arc::downgrade(link),
            dial: link.dial,
        }
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

    /// Whether both are of one endpoint, and of an instance that is registered with the same contents.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Weak::ptr_eq(&self.link, &other.link)
    }

    /// Begins a call, unless the endpoint has gone since the set was made, or its instance is left out.
    #[inline]
    pub(crate) fn begin(&self, measure: Measure) -> Option<Picked<E>> {
        // First, so that the statistics and the link are on their way from memory at the same time.
        if self.stats.is_cut(self.dial) {
            return None;
        }
        let link = self.link.upgrade()?;
        let pass = link.stats.gate().enter()?;
        Some(Picked::new(link, measure, pass))
    }
}

impl<E> Clone for Slot<E> {
    fn clone(&self) -> Self {
        Self {
            instance: Arc::clone(&self.instance),
            stats: Arc::clone(&self.stats),
            link: Weak::clone(&self.link),
            dial: self.dial,
        }
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
