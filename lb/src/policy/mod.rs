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
/// A policy that learns about instances keeps what it knows in its table, shared and atomic, and carries it over from
/// the [table before](Members::before): a set is replaced whenever an instance comes, goes or changes.
///
/// # Contract
/// - `pick` neither blocks nor allocates, and does not panic, whatever the weights.
/// - It returns an index below [`Choice::len`] for which [`Choice::allows`] holds, or `None` if there is none. An
///   index beyond counts as `None`.
/// - A `build` that panics leaves the balancer with the set it has.
pub trait Policy: Debug + Clone + Send + Sync + 'static {
    /// What is worked out once for a ready set.
    type Table: Send + Sync + 'static;
    /// What one handle carries from pick to pick, whatever becomes of the set: a counter, a random number generator.
    type Local: Send + Sync + 'static;

    /// Works out the table of a set, which may be empty. All members are of one [tier](crate::ReadySet), so that
    /// those with weight 0 are either none or all.
    fn build(&self, members: &Members<'_, Self::Table>) -> Self::Table;

    /// The state of a new handle. `seed` is random for the first handle of a balancer, and one more for each
    /// clone.
    fn local(&self, seed: u64) -> Self::Local;

    /// Chooses.
    fn pick(&self, table: &Self::Table, local: &mut Self::Local, choice: &Choice<'_>) -> Option<usize>;
}

/// The ready set that a policy works out its table for.
#[derive(Debug)]
pub struct Members<'a, T> {
    members: &'a [Member<'a>],
    before: Option<&'a T>,
}

impl<'a, T> Members<'a, T> {
    /// A set by hand, to test a policy with. `before` is the table that there was.
    #[must_use]
    pub fn new(members: &'a [Member<'a>], before: Option<&'a T>) -> Self {
        Self { members, before }
    }

    /// The table of the set that this one replaces; `None` for the first.
    #[must_use]
    pub fn before(&self) -> Option<&'a T> {
        self.before
    }
}

impl<'a, T> std::ops::Deref for Members<'a, T> {
    type Target = [Member<'a>];

    /// The members, in the order of the indices that [`Policy::pick`] returns.
    fn deref(&self) -> &[Member<'a>] {
        self.members
    }
}

/// A member of a ready set, as a policy sees it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Member<'a> {
    /// The instance, with its weight and zone.
    pub instance: &'a Arc<Instance>,
    /// What is known of the calls to it; to be kept in the table by policies that look at it.
    pub stats: &'a Arc<Stats>,
}

impl<'a> Member<'a> {
    /// A member by hand, to test a policy with.
    #[must_use]
    pub fn new(instance: &'a Arc<Instance>, stats: &'a Arc<Stats>) -> Self {
        Self { instance, stats }
    }
}

/// What one pick may choose from.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    numbers: &'a [u64],
    avoid: &'a Avoid,
}

impl<'a> Choice<'a> {
    /// A choice among members that are told apart by a number each. A [`Balancer`](crate::Balancer) makes them; this is
    /// for testing a policy.
    ///
    /// ```
    /// # use callsign_lb::{Avoid, Choice, Policy, RoundRobin};
    /// let (policy, mut avoid) = (RoundRobin::default(), Avoid::nothing());
    /// avoid.add_number(11);
    /// let mut local = policy.local(0);
    /// let picks = [(); 3].map(|()| policy.pick(&(), &mut local, &Choice::new(&[10, 11, 12], &avoid)));
    /// assert_eq!(picks, [Some(0), Some(2), Some(0)]);
    /// ```
    #[must_use]
    pub fn new(numbers: &'a [u64], avoid: &'a Avoid) -> Self {
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

    /// Whether a member may be picked: none that this call has tried. (One that has closed since the set was made is
    /// allowed; the balancer notices, and picks again.)
    #[must_use]
    #[inline]
    pub fn allows(&self, index: usize) -> bool {
        self.avoid.is_empty() || self.numbers.get(index).is_some_and(|number| !self.avoid.contains(*number))
    }
}

/// Instances not to be picked, because this call has tried them. Held inline: it remembers the last eight.
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

    /// Avoids an instance from now on, whichever connection it is picked with.
    pub fn add<E>(&mut self, picked: &crate::Picked<E>) {
        self.add_number(picked.number());
    }

    /// Avoids the member with a number, as in [`Choice::new`].
    pub fn add_number(&mut self, number: u64) {
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
