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
use super::entry::{Dial, Entry};
use super::seen::{Changes, Seen};
use crate::clock::later;
use crate::ejection::{Ejection, Ejector};
use crate::error::{BoxError, DialError, DialErrors};
use crate::factory::Key;
use crate::ready::{Lack, ReadySet};
use crate::slot::Link;
use crate::slots::{Seat, Seats};
use crate::stats::Stats;

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
    /// The slots of those that have an endpoint.
    seats: Seats<E>,
    /// Who is in the ready set, by their seats and by their numbers.
    ready_seats: Arc<[Seat]>,
    ready_serials: Arc<[u64]>,
    /// Whether somebody else may have to be in it.
    reorder: bool,
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
            seats: Seats::default(),
            ready_seats: Arc::new([]),
            ready_serials: Arc::new([]),
            reorder: false,
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
        self.retired.drain(..).for_each(let_go);
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
        let link = entry.link.take();
        self.reorder |= link.is_some();
        entry.settle(&mut self.seats);
        let_go(link);
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
        if *entry.listed() == listed {
            return false;
        }
        let (before_tier, before) = (entry.tier, entry.list(listed));
        let now_listed = entry.listed();
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
        self.retired.extend(entry.renew(&mut self.seats));
        self.reorder |= entry.tier != before_tier;
        match (&entry.dial, entry.tier) {
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
            && entry.tier.is_some()
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
                instance: Arc::clone(entry.listed().instance()),
                stats: Arc::clone(&entry.stats),
                serial: entry.serial,
            });
        }
        None
    }

    /// A dial runs.
    pub(super) fn begun(&mut self, key: &Key, dial: AbortHandle) {
        if let Some(entry) = entry(&mut self.entries, key) {
            entry.dial = Dial::Running(dial);
        }
    }

    /// A dial has finished.
    pub(super) fn dialled(&mut self, key: &Key, made: Result<Link<E>, BoxError>, now: Instant) {
        // A dial that was stopped may have finished all the same: what it made is dropped.
        let entry = entry(&mut self.entries, key).filter(|entry| matches!(entry.dial, Dial::Running(_)));
        let Some(entry) = entry else { return let_go(made) };
        let made = made.and_then(|link| {
            if link.lifeline().is_cut() {
                let_go(link);
                Err("the connection closed as soon as it was made".into())
            } else {
                Ok(link)
            }
        });
        match made {
            Ok(link) => {
                // It may have been registered with other contents while it was dialled.
                entry.link = Some(Arc::new(link.renewed(Arc::clone(entry.listed().instance()))));
                entry.error = None;
                entry.dial = Dial::Done;
                entry.linked_at = now;
                entry.settle(&mut self.seats);
                self.reorder = true;
            }
            Err(error) => {
                entry.error = Some(DialError::new(Arc::clone(entry.listed().instance()), error));
                entry.failures = entry.failures.saturating_add(1);
                let failures = entry.failures;
                let at = later(now, self.backoff.pause(failures, &mut self.rng));
                self.wait(key, at);
            }
        }
    }

    fn wait(&mut self, key: &Key, at: Instant) {
        if let Some(entry) = entry(&mut self.entries, key) {
            entry.dial = Dial::Waiting(at);
            self.waiting.insert((at, key.id.clone()));
        }
    }

    /// An endpoint is of no more use.
    pub(super) fn cut(&mut self, key: &Key, now: Instant) {
        let healthy = self.backoff.most;
        let Some(entry) = entry(&mut self.entries, key).filter(|entry| entry.link.is_some()) else { return };
        let link = entry.link.take();
        entry.settle(&mut self.seats);
        let_go(link);
        self.reorder = true;
        entry.dial = Dial::Unwanted;
        if now.saturating_duration_since(entry.linked_at) >= healthy {
            // It served well: the first dial goes out at once.
            entry.failures = 0;
            self.want(&key.id);
        } else if entry.tier.is_some() {
            // A server that accepts and hangs up again must not be dialled in a tight loop.
            entry.failures = entry.failures.saturating_add(1);
            let failures = entry.failures;
            let at = later(now, self.backoff.pause(failures, &mut self.rng));
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
            let best = self.ready().map(|(tier, ..)| tier).min();
            let pool = self.ready().filter(|(tier, ..)| Some(*tier) == best);
            let pool: Vec<_> = pool.map(|(.., entry)| (entry.serial, Arc::clone(&entry.stats))).collect();
            ejector.judge(&pool, now);
            self.ejector = Some(ejector);
            self.reorder = true;
        }
    }

    /// All that has an endpoint, with its tier and its seat.
    fn ready(&self) -> impl Iterator<Item = (usize, Seat, &Entry<E>)> {
        self.entries.values().filter_map(|entry| Some((entry.tier?, entry.seat?, entry)))
    }

    /// What can be picked now.
    pub(super) fn ready_set(&mut self) -> ReadySet<E> {
        if std::mem::take(&mut self.reorder) {
            let (seats, serials) = self.members();
            // Two sets are known to be the same by what they share.
            if *self.ready_seats != *seats || *self.ready_serials != *serials {
                (self.ready_seats, self.ready_serials) = (seats.into(), serials.into());
            }
        }
        let lack = if self.ready_seats.is_empty() { self.lack() } else { Lack::Connecting(0, None) };
        ReadySet::new(self.service.clone(), self.seats.slots(&self.ready_seats, &self.ready_serials), lack)
    }

    /// Those of the best tier that are not left out because they fail.
    fn members(&self) -> (Vec<Seat>, Vec<u64>) {
        let is_out = |serial| self.ejector.as_ref().is_some_and(|by| by.is_out(serial));
        let (mut best, mut seats, mut serials) = (usize::MAX, Vec::new(), Vec::new());
        // In one pass: each entry is in a place of its own in memory.
        for (tier, seat, entry) in self.ready() {
            if tier < best {
                best = tier;
                seats.clear();
                serials.clear();
            }
            if tier == best && !is_out(entry.serial) {
                seats.push(seat);
                serials.push(entry.serial);
            }
        }
        (seats, serials)
    }

    fn lack(&self) -> Lack {
        let unreadable = || self.unreadable.clone();
        let wanted = || self.entries.values().filter(|entry| entry.tier.is_some());
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

/// Drops what may be the last hold on an endpoint. One of somebody else's that panics then must not end discovery.
fn let_go<T>(last: T) {
    if catch_unwind(AssertUnwindSafe(|| drop(last))).is_err() {
        warn!("an endpoint panicked when it was dropped");
    }
}

impl<E> Drop for Roster<E> {
    fn drop(&mut self) {
        self.retired.drain(..).for_each(let_go);
        self.entries.values_mut().filter_map(|entry| entry.link.take()).for_each(let_go);
    }
}

/// The entry that a dial or an endpoint belongs to, unless it is a later one's by now.
fn entry<'a, E>(entries: &'a mut BTreeMap<InstanceId, Entry<E>>, key: &Key) -> Option<&'a mut Entry<E>> {
    entries.get_mut(&key.id).filter(|entry| entry.number == key.number)
}

/// The default for [`Roster`]'s backoff.
pub(super) const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(100), most: Duration::from_secs(5) };

#[cfg(test)]
#[path = "roster_tests.rs"]
mod tests;
