//! [`Policy`]: which of the ready endpoints a call goes to.

mod random;
mod round_robin;

use std::fmt::Debug;
use std::sync::Arc;

use callsign_core::Instance;

pub use random::Random;
pub use round_robin::RoundRobin;

use crate::slot::Stats;

/// A way to choose. A policy is a value, held by a [`Balancer`](crate::Balancer).
///
/// What depends on the set alone is worked out by [`build`](Self::build), off the path of calls; what changes
/// from pick to pick is in the [`Local`](Self::Local) of one handle, so that no pick waits for another.
///
/// # Contract
/// - `pick` neither blocks nor allocates, and does not panic, whatever the weights.
/// - It returns an index below [`Choice::len`] for which [`Choice::allows`] holds, or `None` if there is none.
pub trait Policy: Debug + Clone + Send + Sync + 'static {
    /// What is worked out once for a ready set.
    type Table: Send + Sync + 'static;
    /// What one handle carries from pick to pick: a counter, a random number generator.
    type Local: Send + Sync + 'static;

    /// Works out the table of a set, which may be empty.
    fn build(&self, members: &[Member<'_>]) -> Self::Table;

    /// The state of a new handle. `seed` is random for the first handle of a balancer, and one more for each
    /// clone.
    fn local(&self, seed: u64) -> Self::Local;

    /// Chooses.
    fn pick(&self, table: &Self::Table, local: &mut Self::Local, choice: &Choice<'_>) -> Option<usize>;
}

/// A member of a ready set, as a policy sees it.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// The instance, with its weight and zone.
    pub instance: &'a Arc<Instance>,
    /// What is known of the calls to it; to be kept in the table by policies that look at it.
    pub stats: &'a Arc<Stats>,
}

/// What one pick may choose from.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    numbers: &'a [u64],
    avoid: &'a Avoid,
}

impl<'a> Choice<'a> {
    pub(crate) fn new(numbers: &'a [u64], avoid: &'a Avoid) -> Self {
        Self { numbers, avoid }
    }

    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Whether a member may be picked.
    #[must_use]
    #[inline]
    pub fn allows(&self, index: usize) -> bool {
        self.avoid.is_empty() || self.numbers.get(index).is_some_and(|number| !self.avoid.contains(*number))
    }
}

/// Endpoints not to be picked, because this call has tried them. Held inline: it remembers the last eight.
#[derive(Debug, Clone, Default)]
pub struct Avoid {
    numbers: [u64; 8],
    used: usize,
}

impl Avoid {
    /// Avoids nothing.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { numbers: [0; 8], used: 0 }
    }

    /// Avoids an endpoint from now on.
    pub fn add<E>(&mut self, picked: &crate::Picked<E>) {
        self.add_number(picked.number());
    }

    pub(crate) fn add_number(&mut self, number: u64) {
        if !self.contains(number) {
            let at = self.used % self.numbers.len();
            self.numbers[at] = number;
            self.used += 1;
        }
    }

    /// Whether nothing is avoided.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.numbers[..self.used.min(self.numbers.len())].contains(&number)
    }
}
