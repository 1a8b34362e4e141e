//! [`Slot`]: an instance that can be picked, with its statistics; and [`Picked`], the hold on one during a call.

use std::fmt::{self, Debug};
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use callsign_core::Instance;

use crate::factory::Lifeline;

/// What is known of the calls to one instance. It outlives rebuilds of the ready set and new connections: it
/// ends when the instance leaves, or moves to another address.
// A cache line of its own, so that calls to different instances do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Stats {
    in_flight: AtomicU32,
}

impl Stats {
    /// How many calls to the instance have begun and not ended.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

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

    pub(crate) fn lifeline(&self) -> &Lifeline {
        &self.lifeline
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

    /// Begins a call, unless the endpoint has gone since the set was made.
    pub(crate) fn begin(&self) -> Option<Picked<E>> {
        let link = self.link.upgrade()?;
        if link.lifeline.is_cut() {
            return None;
        }
        link.stats.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(Picked { number: self.number, instance: Arc::clone(&self.instance), link })
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

/// An endpoint that was picked for a call; dereferences to it. The call counts as in flight until this is
/// dropped, and so long the endpoint stays open, even when its instance leaves.
pub struct Picked<E> {
    number: u64,
    instance: Arc<Instance>,
    link: Arc<Link<E>>,
}

impl<E> Picked<E> {
    /// The instance that was picked.
    #[must_use]
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Says that the endpoint turned out to be of no more use, for endpoints that cannot tell it themselves.
    /// It is not picked any more from this moment, and another one is made in its place.
    pub fn report_closed(&self) {
        self.link.lifeline.cut();
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl<E> Deref for Picked<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.link.endpoint
    }
}

impl<E> Drop for Picked<E> {
    fn drop(&mut self) {
        self.link.stats.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<E> Debug for Picked<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picked").field("instance", self.instance.id()).finish_non_exhaustive()
    }
}
