//! [`Entry`]: what a roster knows of one instance.

use std::sync::Arc;

use callsign_core::{Listed, State};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::error::DialError;
use crate::slot::{Link, Slot};
use crate::slots::{Seat, Seats};
use crate::stats::Stats;

/// How far an instance's endpoint is.
#[derive(Debug)]
pub(super) enum Dial {
    /// Not to be called, so not dialled.
    Unwanted,
    /// Waits for its turn.
    Queued,
    /// Being made.
    Running(AbortHandle),
    /// Failed, and is tried again then.
    Waiting(Instant),
    /// Made.
    Done,
}

/// A listed instance with what has become of its endpoint.
pub(super) struct Entry<E> {
    /// Tells it from all others; the same for all of its connections.
    pub(super) serial: u64,
    listed: Listed,
    /// Which tier of the ready set it belongs to; `None`: it is never called. Worked out once, as each instance is in a
    /// place of its own in memory.
    pub(super) tier: Option<usize>,
    pub(super) stats: Arc<Stats>,
    pub(super) link: Option<Arc<Link<E>>>,
    /// Where its slot is, which is made once for each content of the instance and each link; `None` where there is none.
    pub(super) seat: Option<Seat>,
    pub(super) dial: Dial,
    /// The number of the latest dial; what comes in for earlier ones is too late.
    pub(super) number: u64,
    pub(super) failures: u32,
    /// Why the last dial failed, if it has finished and failed.
    pub(super) error: Option<DialError>,
    pub(super) linked_at: Instant,
}

impl<E> Entry<E> {
    pub(super) fn new(serial: u64, listed: Listed, now: Instant) -> Self {
        Self {
            serial,
            tier: tier(&listed),
            listed,
            stats: Arc::default(),
            link: None,
            seat: None,
            dial: Dial::Unwanted,
            number: 0,
            failures: 0,
            error: None,
            linked_at: now,
        }
    }

    pub(super) fn listed(&self) -> &Listed {
        &self.listed
    }

    /// Takes in what the instance is registered with now. Returns what it was before.
    pub(super) fn list(&mut self, listed: Listed) -> Listed {
        self.tier = tier(&listed);
        std::mem::replace(&mut self.listed, listed)
    }

    /// Takes what the instance is registered with now into the link and the slot. Returns the link before.
    pub(super) fn renew(&mut self, seats: &mut Seats<E>) -> Option<Arc<Link<E>>> {
        let before = self.link.take()?;
        self.link = Some(Arc::new(before.renewed(Arc::clone(self.listed.instance()))));
        self.settle(seats);
        Some(before)
    }

    /// Has a slot in its seat if there is a link, and no seat if there is none.
    pub(super) fn settle(&mut self, seats: &mut Seats<E>) {
        match (&self.link, self.seat) {
            (Some(link), Some(seat)) => seats.renew(seat, Slot::new(link)),
            (Some(link), None) => self.seat = Some(seats.take(Slot::new(link))),
            (None, Some(seat)) => {
                seats.leave(seat);
                self.seat = None;
            }
            (None, None) => {}
        }
    }
}

fn tier(listed: &Listed) -> Option<usize> {
    match listed.state() {
        State::Up | State::Draining if listed.weight() == 0 => Some(3),
        State::Draining => Some(2),
        State::Up if listed.is_held() => Some(1),
        State::Up => Some(0),
        _ => None,
    }
}
