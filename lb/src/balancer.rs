//! [`Balancer`]: gives each call an endpoint, chosen by a [`Policy`]. Go kit's `lb.Balancer`.

use std::fmt::{self, Debug};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::call::Call;
use crate::clock::Tick;
use crate::endpointer::{Endpointer, Follower};
use crate::error::PickError;
use crate::picked::{Measure, Picked};
use crate::policy::{Choice, Member, Members, Policy};
use crate::ready::ReadySet;
use crate::slot::Slot;
use crate::slots::Slots;

/// How long a call waits by default while it is too early to tell whether there is an endpoint.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Of a handle that has not picked yet: there are never so many changes, so that its first pick goes the slow way.
const NEW: u64 = 1 << 63;

/// Gives each call an endpoint. A handle: each clone picks by a counter or random numbers of its own, so that
/// no pick waits for another; give every task its clone.
///
/// A pick takes no lock and allocates nothing.
pub struct Balancer<E, P: Policy> {
    shared: Arc<Shared<E, P>>,
    current: Arc<Current<E, P>>,
    /// The picker that was current when there had been so many changes, which [`NEW`] is added to until the first pick.
    picker: Arc<Picker<E, P>>,
    changes: u64,
    local: P::Local,
    measure: Measure,
    wait_for_ready: bool,
}

struct Shared<E, P: Policy> {
    endpoints: Endpointer<E>,
    policy: P,
    /// The seed of the next handle that picks.
    seeds: AtomicU64,
}

/// A ready set with the policy's table for it; they change together.
struct Picker<E, P: Policy> {
    set: Arc<ReadySet<E>>,
    /// Those of the set, one step nearer.
    slots: Slots<E>,
    table: P::Table,
}

/// Where the present picker is found.
struct Current<E, P: Policy> {
    picker: ArcSwap<Picker<E, P>>,
    /// Counts the pickers, each after it is there: whoever sees the count sees the picker.
    changes: AtomicU64,
}

impl<E, P: Policy> Picker<E, P> {
    fn new(policy: &P, set: &Arc<ReadySet<E>>, before: Option<&P::Table>) -> Self {
        Tick::look_for_pause();
        let members: Vec<_> =
            set.slots().iter().map(|slot| Member::new(slot.instance(), slot.stats())).collect();
        let table = policy.build(&Members::new(&members, before));
        Self { table, slots: set.slots().clone(), set: Arc::clone(set) }
    }
}

impl<E, P: Policy> Current<E, P> {
    fn set(&self, picker: Picker<E, P>) {
        self.picker.store(Arc::new(picker));
        self.changes.fetch_add(1, Ordering::Release);
    }
}

/// Keeps a picker up to date, for as long as a balancer has it.
struct Follow<E, P: Policy> {
    policy: P,
    current: Weak<Current<E, P>>,
}

impl<E, P> Follower<E> for Follow<E, P>
where
    E: Send + Sync + 'static,
    P: Policy,
{
    fn is_wanted(&self) -> bool {
        self.current.strong_count() > 0
    }

    fn see(&mut self, set: &Arc<ReadySet<E>>) {
        if let Some(current) = self.current.upgrade() {
            let before = current.picker.load();
            current.set(Picker::new(&self.policy, set, Some(&before.table)));
        }
    }
}

impl<E, P> Balancer<E, P>
where
    E: Send + Sync + 'static,
    P: Policy,
{
    /// Balances calls over the endpoints of `endpoints` by `policy`.
    pub fn new(endpoints: Endpointer<E>, policy: P) -> Self {
        Self::with_seed(endpoints, policy, fastrand::u64(..))
    }

    /// The same with fixed random numbers, for tests.
    pub fn with_seed(endpoints: Endpointer<E>, policy: P, seed: u64) -> Self {
        // Built on the endpointer's task from the second on, off the path of calls.
        let picker = Arc::new(Picker::new(&policy, &endpoints.ready_set(), None));
        let (picker, changes) = (ArcSwap::new(picker), AtomicU64::new(0));
        let current = Arc::new(Current { picker, changes });
        endpoints.follow(Box::new(Follow { policy: policy.clone(), current: Arc::downgrade(&current) }));
        let local = policy.local(seed);
        let measure = Measure { rule: policy.ewma(), clock: Tick::now, begun: None };
        let shared = Arc::new(Shared { endpoints, policy, seeds: AtomicU64::new(seed.wrapping_add(1)) });
        let (picker, changes) = (current.picker.load_full(), 0);
        Self { shared, current, picker, changes, local, measure, wait_for_ready: false }
    }
}

impl<E, P: Policy> Balancer<E, P> {
    /// Whether [`ready`](Self::ready) waits for an endpoint for as long as it takes, where it would otherwise
    /// fail at once; no.
    #[must_use]
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = wait;
        self
    }

    /// Measures on another clock, for simulations.
    #[must_use]
    pub fn clock(mut self, clock: fn() -> Tick) -> Self {
        self.measure.clock = clock;
        self
    }

    /// The endpoints it picks from.
    #[must_use]
    pub fn endpoints(&self) -> &Endpointer<E> {
        &self.shared.endpoints
    }

    /// The policy it picks by.
    #[must_use]
    pub fn policy(&self) -> &P {
        &self.shared.policy
    }

    /// An endpoint for a call, without waiting.
    ///
    /// # Errors
    /// There is none, and the error says why.
    pub fn pick(&mut self) -> Result<Picked<E>, PickError> {
        self.pick_for(&Call::new())
    }

    /// An endpoint for a call with a key, or one that has tried others: those are not picked as long as there is
    /// another one.
    ///
    /// # Errors
    /// There is none, and the error says why.
    #[inline]
    pub fn pick_for(&mut self, call: &Call) -> Result<Picked<E>, PickError> {
        let measure = self.measure.begin();
        match self.choose_at(call, measure.begun).and_then(|slot| slot.begin(measure)) {
            Some(picked) => Ok(picked),
            None => self.pick_slowly(call),
        }
    }

    /// The choice alone: where a call would go now by the policy, without beginning it. Nothing is counted, and the
    /// endpoint may have closed a moment ago. `None` if there is none.
    #[inline]
    pub fn choose(&mut self, call: &Call) -> Option<&Slot<E>> {
        let now = self.measure.begin().begun;
        self.choose_at(call, now)
    }

    #[inline]
    fn choose_at(&mut self, call: &Call, now: Option<Tick>) -> Option<&Slot<E>> {
        // By two ways that do not meet again, so that the usual one keeps nothing for the other.
        let is_usual = self.is_current() && call.allows_all();
        if is_usual { self.choose_here(call, now) } else { self.choose_anew(call, now) }
    }

    #[cold]
    #[inline(never)]
    fn choose_anew(&mut self, call: &Call, now: Option<Tick>) -> Option<&Slot<E>> {
        if self.changes & NEW != 0 {
            self.changes &= !NEW;
            // Its turn comes now and not when it was made: of clones of clones only the last one may ever pick.
            self.local = self.shared.policy.local(self.shared.seeds.fetch_add(1, Ordering::Relaxed));
        }
        if !self.is_current() {
            self.renew();
        }
        self.choose_here(call, now)
    }

    #[inline]
    fn choose_here(&mut self, call: &Call, now: Option<Tick>) -> Option<&Slot<E>> {
        let picker = &*self.picker;
        let choice = Choice { numbers: picker.slots.numbers(), call, now };
        let chosen = self.shared.policy.pick(&picker.table, &mut self.local, &choice)?;
        picker.slots.get(chosen)
    }

    #[inline]
    fn is_current(&self) -> bool {
        self.current.changes.load(Ordering::Acquire) == self.changes
    }

    fn renew(&mut self) {
        // Before the picker, so that one that comes in between is seen the next time.
        self.changes = self.current.changes.load(Ordering::Acquire);
        self.picker = self.current.picker.load_full();
    }

    /// For when the first choice has closed since the set was made, or everything is avoided.
    #[cold]
    fn pick_slowly(&mut self, call: &Call) -> Result<Picked<E>, PickError> {
        let measure = self.measure.begin();
        let now = measure.begun;
        if !self.is_current() {
            self.renew();
        }
        let picker = &*self.picker;
        let (slots, numbers) = (&picker.slots, picker.slots.numbers());
        // From anywhere each time: where handles make a single call each, all that one cannot take would come to the next.
        let policy = &self.shared.policy;
        let anywhere =
            |choice: &Choice<'_>| policy.pick(&picker.table, &mut policy.local(fastrand::u64(..)), choice);
        // By the policy as long as it finds others, then any that is open, those to be avoided last.
        let mut closed = call.clone();
        for _ in 0..slots.len().min(8) {
            let choice = Choice { numbers, call: &closed, now };
            let chosen = anywhere(&choice).and_then(|index| Some((slots.get(index)?, *numbers.get(index)?)));
            let Some((slot, number)) = chosen else { break };
            if call.avoids(number) {
                // What is closed has pushed it out of the call's memory.
                break;
            }
            match slot.begin(measure) {
                Some(picked) => return Ok(picked),
                None => closed.avoid_number(number),
            }
        }
        for call in [call, &call.anywhere()] {
            let choice = Choice { numbers, call, now };
            // By the policy again, so that a set which is avoided as a whole is still shared out.
            let start = anywhere(&choice).unwrap_or(0);
            let walk = (start.min(slots.len())..slots.len()).chain(0..start.min(slots.len()));
            let open =
                walk.filter(|&index| choice.allows(index)).find_map(|index| slots[index].begin(measure));
            if let Some(picked) = open {
                return Ok(picked);
            }
        }
        Err(picker.set.lack())
    }

    /// An endpoint for a call. While it is too early to tell (the registry has not been listed, or no dial has
    /// finished) it waits, up to 5 s. Cancel-safe.
    ///
    /// # Errors
    /// There is none, and the error says why: at once, if the registry lists nothing or no instance can be
    /// reached, unless it is to [wait for ready](Self::wait_for_ready).
    pub async fn ready(&mut self) -> Result<Picked<E>, PickError> {
        self.ready_for(&Call::new(), None).await
    }

    /// The same as [`pick_for`](Self::pick_for) picks, and until `deadline` at the latest.
    ///
    /// # Errors
    /// As [`ready`](Self::ready).
    pub async fn ready_for(
        &mut self,
        call: &Call,
        deadline: Option<Instant>,
    ) -> Result<Picked<E>, PickError> {
        if let Ok(picked) = self.pick_for(call) {
            return Ok(picked);
        }
        let changes = self.shared.endpoints.changes();
        wait_for_pick(changes, self.wait_for_ready, deadline, || self.pick_for(call)).await
    }

    /// A handle that takes no turn: for a call that its own handle has already picked for.
    pub(crate) fn fork(&self) -> Self {
        self.handle(self.changes & !NEW)
    }

    fn handle(&self, changes: u64) -> Self {
        Self {
            local: self.shared.policy.local(fastrand::u64(..)),
            current: Arc::clone(&self.current),
            picker: Arc::clone(&self.picker),
            changes,
            measure: self.measure,
            wait_for_ready: self.wait_for_ready,
            shared: Arc::clone(&self.shared),
        }
    }
}

/// Picks until it succeeds, as long as waiting can help.
pub(crate) async fn wait_for_pick<T>(
    mut changes: watch::Receiver<u64>,
    wait_for_ready: bool,
    deadline: Option<Instant>,
    mut pick: impl FnMut() -> Result<T, PickError>,
) -> Result<T, PickError> {
    let patience = Instant::now() + PATIENCE;
    let until = match deadline {
        Some(deadline) if wait_for_ready => Some(deadline),
        Some(deadline) => Some(deadline.min(patience)),
        None if wait_for_ready => None,
        None => Some(patience),
    };
    loop {
        changes.borrow_and_update();
        let error = match pick() {
            Ok(picked) => return Ok(picked),
            Err(error) => error,
        };
        let waits = match error {
            PickError::NotYet { .. } => true,
            PickError::Closed { .. } => false,
            PickError::Empty { .. } | PickError::Unreachable { .. } => wait_for_ready,
        };
        if !waits {
            return Err(error);
        }
        let changed = match until {
            Some(until) => timeout_at(until, changes.changed()).await.is_ok_and(|changed| changed.is_ok()),
            None => changes.changed().await.is_ok(),
        };
        if !changed {
            return Err(error);
        }
    }
}

impl<E, P: Policy> Clone for Balancer<E, P> {
    /// Another handle. What it picks first depends on how many others have picked before it, so that handles which make one
    /// call each take turns too.
    fn clone(&self) -> Self {
        self.handle(self.changes | NEW)
    }
}

impl<E, P: Policy> Debug for Balancer<E, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancer")
            .field("policy", &self.shared.policy)
            .field("endpoints", &self.shared.endpoints)
            .finish_non_exhaustive()
    }
}
