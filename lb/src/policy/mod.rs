//! [`Policy`]: which of the ready endpoints a call goes to.

mod bounded_load;
mod draw;
mod maglev;
mod named;
mod p2c;
mod p3c;
mod random;
mod rendezvous;
mod ring_hash;
mod round_robin;
mod slow_start;
#[cfg(test)]
mod testing;
mod weighted_random;
mod weighted_round_robin;
mod weights;

use std::fmt::Debug;
use std::sync::Arc;

use callsign_core::Instance;

pub use bounded_load::{BoundedLoad, BoundedLocal, BoundedTable};
pub use maglev::{Maglev, MaglevTable};
pub use named::{NamedLocal, NamedPolicy, NamedTable, UnknownPolicy};
pub use p2c::{P2cPending, P2cTable};
pub use p3c::{P3cEwma, P3cTable};
pub use random::Random;
pub use rendezvous::{Rendezvous, RendezvousTable};
pub use ring_hash::{Ring, RingHash};
pub use round_robin::RoundRobin;
pub use slow_start::{SlowStart, SlowStartLocal, SlowStartTable};
pub use weighted_random::{AliasTable, WeightedRandom};
pub use weighted_round_robin::{StrideLocal, StrideTable, WeightedRoundRobin};

use crate::call::{Call, Key};
use crate::clock::Tick;
use crate::ewma::Ewma;
use crate::stats::Stats;

/// A way to choose. A policy is a value, held by a [`Balancer`](crate::Balancer).
///
/// What depends on the set alone is worked out by [`build`](Self::build), off the path of calls; what changes
/// from pick to pick is in the [`Local`](Self::Local) of one handle, so that no pick waits for another.
///
/// What there is to know of the calls to an instance is in its [`Stats`]: how many are in flight, how the last ones
/// ended, and how long they took, if the policy [says so](Self::ewma). A policy that learns more keeps it in its
/// table, shared and atomic, and carries it over from the [table before](Members::before): a set is replaced whenever
/// an instance comes, goes or changes, is left out by an [`Ejection`](crate::Ejection) or let in again. An index is good
/// for one table; a member is the same as one before where their `stats` are the same `Arc`.
///
/// A policy of one's own, which prefers instances in the zone of the client and takes turns among them:
///
/// ```
/// use callsign_lb::{Choice, Members, Policy};
///
/// #[derive(Debug, Clone)]
/// struct Near {
///     zone: String,
/// }
///
/// impl Policy for Near {
///     /// Who is near.
///     type Table = Vec<bool>;
///     /// Where this handle goes on.
///     type Local = usize;
///
///     fn build(&self, members: &Members<'_, Vec<bool>>) -> Vec<bool> {
///         members.iter().map(|member| member.instance.zone() == Some(self.zone.as_str())).collect()
///     }
///
///     fn local(&self, seed: u64) -> usize {
///         seed as usize
///     }
///
///     fn pick(&self, near: &Vec<bool>, next: &mut usize, choice: &Choice<'_>) -> Option<usize> {
///         *next = next.wrapping_add(1);
///         let turns = || (0..choice.len()).map(|n| (*next % choice.len() + n) % choice.len());
///         let allowed = || turns().filter(|&index| choice.allows(index));
///         allowed().find(|&index| near[index]).or_else(|| allowed().next())
///     }
/// }
/// ```
///
/// # Contract
/// - Weights may all be 0: they count as 1 then.
/// - `pick` neither blocks nor allocates, and does not panic, whatever the weights.
/// - It returns an index below [`Choice::len`] for which [`Choice::allows`] holds, or `None` if there is none. An
///   index beyond counts as `None`.
/// - A `build` that panics leaves the balancer with the set it has.
pub trait Policy: Debug + Clone + Send + Sync + 'static {
    /// What is worked out once for a ready set.
    type Table: Send + Sync + 'static;
    /// What one handle carries from pick to pick, whatever becomes of the set: a counter, a random number generator. Each
    /// clone of a balancer or a channel is a new handle, as is each call of a [`Retry`](crate::Retry): what is to outlive
    /// one belongs in the table.
    type Local: Send + Sync + 'static;

    /// Works out the table of a set, which may be empty. All members are of one [tier](crate::ReadySet), so that
    /// those with weight 0 are either none or all.
    fn build(&self, members: &Members<'_, Self::Table>) -> Self::Table;

    /// The state of a new handle. `seed` is random for the first handle of a balancer, and one more for each clone when it
    /// first picks, so that a generator of random numbers had better mix it. A clone that has not picked yet has another
    /// state, of a random seed, which is dropped then: handles that never pick take no turn.
    fn local(&self, seed: u64) -> Self::Local;

    /// By which rule latencies are measured for it, which are then in the [`Stats`] of the members; not at all, as
    /// the clock costs more than most picks. An instance has one average: balancers that share an endpointer had
    /// better agree.
    fn ewma(&self) -> Option<Ewma> {
        None
    }

    /// Chooses.
    fn pick(&self, table: &Self::Table, local: &mut Self::Local, choice: &Choice<'_>) -> Option<usize>;
}

/// The ready set that a policy works out its table for.
#[derive(Debug)]
pub struct Members<'a, T> {
    members: &'a [Member<'a>],
    before: Option<&'a T>,
    now: Option<Tick>,
}

impl<'a, T> Members<'a, T> {
    /// A set by hand, to test a policy with. `before` is the table that there was.
    #[must_use]
    pub fn new(members: &'a [Member<'a>], before: Option<&'a T>) -> Self {
        Self { members, before, now: None }
    }

    /// The same at another moment than the present one.
    #[must_use]
    pub fn at(mut self, now: Tick) -> Self {
        self.now = Some(now);
        self
    }

    /// The same for a policy within a policy, which has a table of its own.
    #[must_use]
    pub fn with_before<U>(&self, before: Option<&'a U>) -> Members<'a, U> {
        Members { members: self.members, before, now: self.now }
    }

    /// When the set was made.
    #[must_use]
    pub fn now(&self) -> Tick {
        self.now.unwrap_or_else(Tick::now)
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
    pub(crate) numbers: &'a [u64],
    pub(crate) call: &'a Call,
    pub(crate) now: Option<Tick>,
}

impl<'a> Choice<'a> {
    /// A choice among members that are told apart by a number each. A [`Balancer`](crate::Balancer) makes them; this is
    /// for testing a policy.
    ///
    /// ```
    /// # use callsign_lb::{Call, Choice, Policy, RoundRobin};
    /// let (policy, mut call) = (RoundRobin::default(), Call::new());
    /// call.avoid_number(11);
    /// let mut local = policy.local(0);
    /// let picks = [(); 3].map(|()| policy.pick(&(), &mut local, &Choice::new(&[10, 11, 12], &call)));
    /// assert_eq!(picks, [Some(0), Some(2), Some(0)]);
    /// ```
    #[must_use]
    pub fn new(numbers: &'a [u64], call: &'a Call) -> Self {
        Self { numbers, call, now: None }
    }

    /// The same at another moment than the present one.
    #[must_use]
    pub fn at(mut self, now: Tick) -> Self {
        self.now = Some(now);
        self
    }

    /// How many members there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The key of the call, if it has one.
    #[must_use]
    #[inline]
    pub fn key(&self) -> Option<Key> {
        self.call.key()
    }

    /// The moment of the pick.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Tick {
        self.now.unwrap_or_else(Tick::now)
    }

    /// Whether a member may be picked: none that this call has tried. (One that has closed since the set was made is
    /// allowed; the balancer notices, and picks again.)
    #[must_use]
    #[inline]
    pub fn allows(&self, index: usize) -> bool {
        self.call.allows_all() || self.numbers.get(index).is_some_and(|number| !self.call.avoids(*number))
    }
}
