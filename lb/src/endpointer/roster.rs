//! [`Roster`]: every listed instance with what has become of its endpoint. No I/O: snapshots, the ends of dials
//! and times go in; dials to make and ready sets come out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use callsign_core::{Error, Instance, InstanceId, Listed, ServiceName, Snapshot, State};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::warn;

use super::Filter;
use super::backoff::Backoff;
use super::seen::{Changes, Seen};
use crate::ejection::{Ejection, Ejector};
use crate::error::{BoxError, DialError, DialErrors};
use crate::factory::Key;
use crate::ready::{Lack, ReadySet};
use crate::slot::{Link, Slot};
use crate::stats::Stats;

/// How far an instance's endpoint is.
#[derive(Debug)]
enum Dial {
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

struct Entry<E> {
    /// Tells it from all others; the same for all of its connections.
    serial: u64,
    listed: Listed,
    stats: Arc<Stats>,
    link: Option<Arc<Link<E>>>,
    /// Made once for each content of the instance and each link, so that ready sets can share it.
    slot: Option<Arc<Slot<E>>>,
    dial: Dial,
    /// The number of the latest dial; what comes in for earlier ones is too late.
    number: u64,
    failures: u32,
    /// Why the last dial failed, if it has finished and failed.
    error: Option<DialError>,
    linked_at: Instant,
}

impl<E> Entry<E> {
    fn new(serial: u64, listed: Listed, now: Instant) -> Self {
        Self {
            serial,
            listed,
            stats: Arc::default(),
            link: None,
            slot: None,
            dial: Dial::Unwanted,
            number: 0,
            failures: 0,
            error: None,
            linked_at: now,
        }
    }

    /// Takes what the instance is registered with now into the link and the slot. Returns the link before.
    fn renew(&mut self) -> Option<Arc<Link<E>>> {
        let before = self.link.take()?;
        self.link = Some(Arc::new(before.renewed(Arc::clone(self.listed.instance()))));
        self.renew_slot();
        Some(before)
    }

    fn renew_slot(&mut self) {
        self.slot = self.link.as_ref().map(|link| Arc::new(Slot::new(link)));
    }

    /// Which tier of the ready set it belongs to; `None`: it is never called.
    fn tier(&self) -> Option<usize> {
        match self.listed.state() {
            State::Up | State::Draining if self.listed.weight() == 0 => Some(3),
            State::Draining => Some(2),
            State::Up if self.listed.is_held() => Some(1),
            State::Up => Some(0),
            _ => None,
        }
    }
}

/// A dial to be made.
pub(super) struct Job {
    pub(super) key: Key,
    pub(super) instance: Arc<Instance>,
    pub(super) stats: Arc<Stats>,
    /// Tells the instance from all others.
    pub(super) serial: u64,
}

pub(super) struct Roster<E> {
    service: ServiceName,
    filter: Filter,
    backoff: Backoff,
    rng: fastrand::Rng,
    seen: Seen,
    /// All that is listed and not left out by the filter.
    entries: BTreeMap<InstanceId, Entry<E>>,
    /// Those to be dialled for the first time, or because their connection has closed: they go first, as a thousand
    /// that cannot be reached must not hold up one that can.
    fresh: VecDeque<InstanceId>,
    /// Those that were tried and failed.
    failed: VecDeque<InstanceId>,
    waiting: BTreeSet<(Instant, InstanceId)>,
    /// What the published set has of instances that were registered with other contents since: good until the next set
    /// is there.
    retired: Vec<Arc<Link<E>>>,
    serials: u64,
    numbers: u64,
    pending: bool,
    closed: bool,
    /// Why the registry cannot be read.
    unreadable: Option<Error>,
    /// Decides which instances are left out because they fail, if any ever is.
    ejector: Option<Ejector>,
}

impl<E> Roster<E> {
    pub(super) fn new(service: ServiceName, filter: Filter, backoff: Backoff, rng: fastrand::Rng) -> Self {
        Self {
            service,
            filter,
            backoff,
            rng,
            seen: Seen::default(),
            entries: BTreeMap::new(),
            fresh: VecDeque::new(),
            failed: VecDeque::new(),
            waiting: BTreeSet::new(),
            retired: Vec::new(),
            serials: 0,
            numbers: 0,
            pending: true,
            closed: false,
            unreadable: None,
            ejector: None,
        }
    }

    /// The same, but instances that fail are left out for a while.
    pub(super) fn with_ejection(mut self, ejection: Option<Ejection>) -> Self {
        self.ejector = ejection.map(|rule| Ejector::new(rule, self.rng.fork()));
        self
    }

    /// Takes a snapshot in: what stays keeps its endpoint, what is new is to be dialled, what is gone is let go. Returns
    /// whether another set may be ready now: not where there is only something to dial.
    pub(super) fn apply(&mut self, snapshot: &Snapshot, now: Instant) -> bool {
        self.pending = snapshot.freshness().is_pending();
        self.unreadable = snapshot.freshness().error().cloned();
        let Changes { new, changed, gone } = self.seen.take_in(snapshot);
        let mut concerns = false;
        for id in gone {
            concerns |= self.remove(&id);
        }
        for listed in changed {
            concerns |= self.change(listed, now);
        }
        for listed in new {
            if self.wants(&listed) {
                self.insert(listed, now);
            }
        }
        concerns
    }

    /// Whether the filter takes an instance.
    fn wants(&self, instance: &Instance) -> bool {
        // A filter of somebody else's must not end discovery.
        catch_unwind(AssertUnwindSafe(|| (self.filter)(instance))).unwrap_or_else(|_| {
            warn!(instance = %instance.id(), "the filter panicked over an instance: it is left out");
            false
        })
    }

    /// The latest set has been published.
    pub(super) fn published(&mut self) {
        self.retired.clear();
    }

    /// The registry was closed: no more snapshots come.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    fn insert(&mut self, listed: Listed, now: Instant) {
        let id = listed.id().clone();
        self.serials += 1;
        self.entries.insert(id.clone(), Entry::new(self.serials, listed, now));
        self.want(&id);
    }

    /// Returns whether it was there.
    fn remove(&mut self, id: &InstanceId) -> bool {
        let Some(mut entry) = self.entries.remove(id) else { return false };
        Self::stop(&mut self.waiting, id, &mut entry);
        true
    }

    /// Takes in what an instance is registered with now. Returns whether that concerns what is there.
    fn change(&mut self, listed: Listed, now: Instant) -> bool {
        let id = listed.id().clone();
        if !self.wants(&listed) {
            return self.remove(&id);
        }
        let Some(entry) = self.entries.get_mut(&id) else {
            self.insert(listed, now);
            return false;
        };
        if entry.listed == listed {
            return false;
        }
        let before = std::mem::replace(&mut entry.listed, listed);
        let now_listed = &entry.listed;
        if before.address() != now_listed.address() || before.protocol() != now_listed.protocol() {
            // Another place is another endpoint.
            let listed = now_listed.clone();
            self.remove(&id);
            self.insert(listed, now);
            return true;
        }
        // It has just been heard of: worth a dial at once.
        let returned = before.is_held() && !now_listed.is_held()
            || before.state() != State::Up && now_listed.state() == State::Up;
        self.retired.extend(entry.renew());
        match (&entry.dial, entry.tier()) {
            (Dial::Done, _) | (Dial::Unwanted, None) => {}
            (_, None) => {
                Self::stop(&mut self.waiting, &id, entry);
                entry.error = None;
            }
            (Dial::Unwanted, Some(_)) => self.want(&id),
            (Dial::Waiting(_), Some(_)) if returned => {
                entry.failures = 0;
                Self::stop(&mut self.waiting, &id, entry);
                self.want(&id);
            }
            _ => {}
        }
        true
    }

    /// Ends whatever is being done for an endpoint that is not there yet.
    fn stop(waiting: &mut BTreeSet<(Instant, InstanceId)>, id: &InstanceId, entry: &mut Entry<E>) {
        match std::mem::replace(&mut entry.dial, Dial::Unwanted) {
            Dial::Running(dial) => dial.abort(),
            Dial::Waiting(at) => drop(waiting.remove(&(at, id.clone()))),
            Dial::Unwanted | Dial::Queued | Dial::Done => {}
        }
    }

    /// Puts an instance in the queue, if it is to be called.
    fn want(&mut self, id: &InstanceId) {
        if let Some(entry) = self.entries.get_mut(id)
            && entry.tier().is_some()
        {
            entry.dial = Dial::Queued;
            let queue = if entry.failures == 0 { &mut self.fresh } else { &mut self.failed };
            queue.push_back(id.clone());
        }
    }

    /// The next dial to make. Each one that is taken must be [begun](Self::begun).
    pub(super) fn next_dial(&mut self) -> Option<Job> {
        while let Some(id) = self.fresh.pop_front().or_else(|| self.failed.pop_front()) {
            // What left or came back while it was queued is in the queue for nothing, or twice.
            let Some(entry) = self.entries.get_mut(&id).filter(|entry| matches!(entry.dial, Dial::Queued))
            else {
                continue;
            };
            self.numbers += 1;
            entry.number = self.numbers;
            return Some(Job {
                key: Key { id, number: entry.number },
                instance: Arc::clone(entry.listed.instance()),
                stats: Arc::clone(&entry.stats),
                serial: entry.serial,
            });
        }
        None
    }

    /// A dial runs.
    pub(super) fn begun(&mut self, key: &Key, dial: AbortHandle) {
        if let Some(entry) = self.entry(key) {
            entry.dial = Dial::Running(dial);
        }
    }

    /// The entry that a dial or an endpoint belongs to, unless it is a later one's by now.
    fn entry(&mut self, key: &Key) -> Option<&mut Entry<E>> {
        self.entries.get_mut(&key.id).filter(|entry| entry.number == key.number)
    }

    /// A dial has finished.
    pub(super) fn dialled(&mut self, key: &Key, made: Result<Link<E>, BoxError>, now: Instant) {
        // A dial that was stopped may have finished all the same: what it made is dropped.
        let Some(entry) = self.entry(key).filter(|entry| matches!(entry.dial, Dial::Running(_))) else {
            return;
        };
        let made = made.and_then(|link| {
            if link.lifeline().is_cut() {
                Err("the connection closed as soon as it was made".into())
            } else {
                Ok(link)
            }
        });
        match made {
            Ok(link) => {
                // It may have been registered with other contents while it was dialled.
                entry.link = Some(Arc::new(link.renewed(Arc::clone(entry.listed.instance()))));
                entry.error = None;
                entry.dial = Dial::Done;
                entry.linked_at = now;
                entry.renew_slot();
            }
            Err(error) => {
                entry.error = Some(DialError::new(Arc::clone(entry.listed.instance()), error));
                entry.failures = entry.failures.saturating_add(1);
                let failures = entry.failures;
                let at = now + self.backoff.pause(failures, &mut self.rng);
                self.wait(key, at);
            }
        }
    }

    fn wait(&mut self, key: &Key, at: Instant) {
        if let Some(entry) = self.entry(key) {
            entry.dial = Dial::Waiting(at);
            self.waiting.insert((at, key.id.clone()));
        }
    }

    /// An endpoint is of no more use.
    pub(super) fn cut(&mut self, key: &Key, now: Instant) {
        let healthy = self.backoff.most;
        let Some(entry) = self.entry(key).filter(|entry| entry.link.is_some()) else { return };
        entry.link = None;
        entry.slot = None;
        entry.dial = Dial::Unwanted;
        if now.saturating_duration_since(entry.linked_at) >= healthy {
            // It served well: the first dial goes out at once.
            entry.failures = 0;
            self.want(&key.id);
        } else if entry.tier().is_some() {
            // A server that accepts and hangs up again must not be dialled in a tight loop.
            entry.failures = entry.failures.saturating_add(1);
            let failures = entry.failures;
            let at = now + self.backoff.pause(failures, &mut self.rng);
            self.wait(key, at);
        }
    }

    /// When the next failed dial is due.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let dial = self.waiting.first().map(|(at, _)| *at);
        let ejected = self.ejector.as_ref().and_then(Ejector::next_wake);
        dial.into_iter().chain(ejected).min()
    }

    /// Queues the failed dials that are due. Returns whether somebody's time out is over.
    pub(super) fn wake(&mut self, now: Instant) -> bool {
        while self.waiting.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, id)) = self.waiting.pop_first() {
                self.want(&id);
            }
        }
        self.ejector.as_ref().and_then(Ejector::next_wake).is_some_and(|at| at <= now)
    }

    /// Decides anew which instances are left out because they fail: if somebody is suspected, or has been.
    pub(super) fn judge(&mut self, suspected: bool, now: Instant) {
        // Among ten thousand a change that concerns nobody who fails should not cost a look at all of them.
        if let Some(mut ejector) = self.ejector.take_if(|ejector| suspected || !ejector.is_idle()) {
            let best = self.ready().map(|(tier, _)| tier).min();
            let pool = self.ready().filter(|(tier, _)| Some(*tier) == best);
            let pool: Vec<_> = pool.map(|(_, slot)| (slot.number(), Arc::clone(slot.stats()))).collect();
            ejector.judge(&pool, now);
            self.ejector = Some(ejector);
        }
    }

    /// All that has an endpoint, with its tier.
    fn ready(&self) -> impl Iterator<Item = (usize, &Arc<Slot<E>>)> {
        self.entries.values().filter_map(|entry| Some((entry.tier()?, entry.slot.as_ref()?)))
    }

    /// What can be picked now.
    pub(super) fn ready_set(&self) -> ReadySet<E> {
        let is_out = |slot: &Slot<E>| self.ejector.as_ref().is_some_and(|by| by.is_out(slot.number()));
        let (mut best, mut slots) = (usize::MAX, Vec::new());
        // In one pass: each entry is in a place of its own in memory.
        for (tier, slot) in self.ready() {
            if tier < best {
                best = tier;
                slots.clear();
            }
            if tier == best && !is_out(slot) {
                slots.push(Arc::clone(slot));
            }
        }
        let lack = if slots.is_empty() { self.lack() } else { Lack::Connecting(0, None) };
        ReadySet::new(self.service.clone(), slots, lack)
    }

    fn lack(&self) -> Lack {
        let unreadable = || self.unreadable.clone();
        let wanted = || self.entries.values().filter(|entry| entry.tier().is_some());
        let total = wanted().count();
        // What was listed last is dialled on, also after the end of the registry.
        if self.closed && total == 0 {
            return Lack::Closed;
        }
        if self.pending {
            return Lack::Pending(unreadable());
        }
        if total == 0 {
            return Lack::Empty(self.seen.len(), unreadable());
        }
        let failed: usize = wanted().filter(|entry| entry.error.is_some()).count();
        if failed < total {
            return Lack::Connecting(total - failed, unreadable());
        }
        let errors = wanted().filter_map(|entry| entry.error.clone()).take(DialErrors::KEPT).collect();
        Lack::Unreachable(DialErrors::new(total, errors))
    }
}

/// The default for [`Roster`]'s backoff.
pub(super) const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(100), most: Duration::from_secs(5) };

#[cfg(test)]
#[path = "roster_tests.rs"]
mod tests;
