//! [`Listing`]: what is known of one service, and what an answer says that is new. Pure.
//!
//! Whoever follows the service has its instances already. So no more is kept of each than what tells whether it has
//! changed, and of an answer only those that have.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use callsign_core::{Instance, InstanceId, Removal, ServiceName, Update};
use tokio::time::Instant;
use tracing::{trace, warn};

use crate::ask::Origin;
use crate::wire::{Found, Read, Taking, decode};

/// When an entry was changed, and when the server was told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    dirty: i64,
    registered: i64,
}

/// An entry as it was told: alone, or as one of everything that many follow, which stays the same until it changes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Told<'a> {
    Once(&'a Read),
    Kept(&'a Arc<Read>),
}

impl Told<'_> {
    fn read(&self) -> &Read {
        match self {
            Self::Once(read) => read,
            Self::Kept(read) => read,
        }
    }

    fn kept(&self) -> Option<&Arc<Read>> {
        match self {
            Self::Once(_) => None,
            Self::Kept(read) => Some(read),
        }
    }
}

#[derive(Debug, Clone)]
struct Known {
    /// A hash of all that it says, with keys that nobody knows.
    print: u64,
    /// What it was read of, if that is kept.
    from: Option<Arc<Read>>,
    mark: Mark,
    /// It said of itself that it is not to be called.
    away: bool,
    /// Whoever follows the service was told of it.
    shown: bool,
}

/// What an answer comes to.
#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    News(Update),
    Nothing,
    /// The server that answers knows nothing of what was there: it was restarted, or is another that has not heard of it.
    Forgotten,
}

/// An answer while it is read.
#[derive(Debug)]
pub(crate) struct Round {
    all: HashMap<InstanceId, Known>,
    /// Those of them that whoever follows does not have.
    news: HashMap<InstanceId, Instance>,
    bad: HashMap<String, String>,
    /// Those that are known by what they were read of, by where that is.
    kept: HashMap<usize, InstanceId>,
    /// How many had to be understood.
    understood: usize,
}

#[derive(Debug)]
pub(crate) struct Listing {
    service: ServiceName,
    taking: Arc<Taking>,
    prints: RandomState,
    known: HashMap<InstanceId, Known>,
    /// Of the last answer, and when that was.
    last: Option<(Origin, Instant)>,
    /// The next news is all there is.
    anew: bool,
    /// Entries that cannot be understood, and why, so that each is logged once.
    bad: HashMap<String, String>,
}

impl Listing {
    pub(crate) fn new(service: &ServiceName, taking: Arc<Taking>) -> Self {
        Self {
            service: service.clone(),
            taking,
            prints: RandomState::new(),
            known: HashMap::new(),
            last: None,
            anew: true,
            bad: HashMap::new(),
        }
    }

    pub(crate) fn service(&self) -> &ServiceName {
        &self.service
    }

    pub(crate) fn skipped(&self) -> usize {
        self.bad.len()
    }

    /// Whether nothing was there by the last answer.
    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Makes the next news all there is.
    pub(crate) fn relist(&mut self) {
        self.anew = true;
    }

    /// The same after a failure, which whoever follows is told of: what is missing then is not believed to be gone.
    pub(crate) fn failed(&mut self) {
        self.relist();
        self.last = None;
    }

    /// Begins to take an answer in, which counts once all of it was read.
    pub(crate) fn round(&self) -> Round {
        // One that changed among ten thousand is to cost little more than itself; in a list of all, all are wanted.
        let kept = self.known.iter().filter(|_| !self.anew);
        let kept =
            kept.filter_map(|(id, known)| Some((Arc::as_ptr(known.from.as_ref()?).addr(), id.clone())));
        Round {
            all: HashMap::with_capacity(self.known.len()),
            news: HashMap::new(),
            bad: HashMap::new(),
            kept: kept.collect(),
            understood: 0,
        }
    }

    /// Takes in one entry of the service.
    pub(crate) fn add(&self, round: &mut Round, told: Told<'_>) {
        let kept = told.kept().and_then(|kept| round.kept.get(&Arc::as_ptr(kept).addr()));
        if let Some((id, known)) = kept.and_then(|id| self.known.get_key_value(id)) {
            self.put(round, id.clone(), Known { shown: !known.away, ..known.clone() }, None);
            return;
        }
        round.understood += 1;
        let understood = match told.read() {
            Ok(entry) => decode(&self.service, entry, &self.taking)
                .map(|found| (found, Mark { dirty: entry.dirty, registered: entry.registered }))
                .map_err(|why| (entry.key().to_owned(), why)),
            Err(bad) => Err((bad.name.clone(), bad.why.clone())),
        };
        let (instance, mark, away) = match understood {
            Ok((Found::Listed(instance), mark)) => (instance, mark, false),
            Ok((Found::Away(instance), mark)) => (instance, mark, true),
            Err((name, why)) => {
                if self.bad.get(&name) != Some(&why) {
                    warn!(service = %self.service, entry = name, why, "an entry in Eureka cannot be understood and is left out");
                }
                round.bad.insert(name, why);
                return;
            }
        };
        let id = instance.id();
        let id = self.known.get_key_value(id).map_or_else(|| id.clone(), |(id, _)| id.clone());
        let (print, from) = (self.prints.hash_one(&instance), told.kept().cloned());
        self.put(round, id, Known { print, from, mark, away, shown: !away }, Some(instance));
    }

    fn put(&self, round: &mut Round, id: InstanceId, known: Known, instance: Option<Instance>) {
        let shown = self.known.get(&id).filter(|before| before.shown);
        let news = if self.anew {
            // What was, and is away now, is listed as that once, so that nobody holds on to it.
            !known.away || shown.is_some()
        } else {
            !known.away && shown.is_none_or(|before| before.print != known.print)
        };
        match round.all.entry(id.clone()) {
            MapEntry::Vacant(entry) => drop(entry.insert(known)),
            // Of two by one id the later counts.
            MapEntry::Occupied(entry) if entry.get().mark.dirty > known.mark.dirty => return,
            MapEntry::Occupied(mut entry) => drop(entry.insert(known)),
        }
        match instance.filter(|_| news) {
            Some(instance) => drop(round.news.insert(id, instance)),
            None => drop(round.news.remove(&id)),
        }
    }

    /// What an answer comes to, of which all entries were added, as somebody gave it at some time.
    pub(crate) fn finish(&mut self, round: Round, origin: Origin, now: Instant) -> Said {
        let Round { mut all, news, bad, understood, .. } = round;
        if self.has_forgotten(&all, origin) {
            return Said::Forgotten;
        }
        trace!(service = %self.service, entries = all.len(), understood, "Eureka has answered");
        self.last = Some((origin, now));
        let skipped = std::mem::replace(&mut self.bad, bad).len();
        let put: Vec<_> = news.into_values().collect();
        let update = if std::mem::take(&mut self.anew) {
            for (id, known) in &mut all {
                known.shown |= self.known.get(id).is_some_and(|before| before.shown);
            }
            Some(Update::Full(put))
        } else {
            self.changes(&all, put, skipped)
        };
        self.known = all;
        update.map_or(Said::Nothing, Said::News)
    }

    /// Whether another server answers, or the same after a restart as it seems, and nothing is as it was.
    fn has_forgotten(&self, all: &HashMap<InstanceId, Known>, origin: Origin) -> bool {
        let Some((before, at)) = self.last else { return false };
        let same = before.server == origin.server;
        // That all are gone is told as it is: it is not believed at once either.
        if self.known.is_empty() || all.is_empty() || (same && origin.since <= at) {
            return false;
        }
        let is_kept = |(id, known): (&InstanceId, &Known)| {
            let now = all.get(id).map(|now| now.mark);
            // What another server was told of when is its own affair.
            now.is_some_and(|now| {
                now.dirty == known.mark.dirty && (!same || now.registered == known.mark.registered)
            })
        };
        !self.known.iter().any(is_kept)
    }

    /// Whether something was shown that is to be taken back, though nothing else has changed.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.known.values().any(|known| known.away && known.shown)
    }

    fn changes(
        &self,
        all: &HashMap<InstanceId, Known>,
        put: Vec<Instance>,
        skipped: usize,
    ) -> Option<Update> {
        let shown = self.known.iter().filter(|(_, known)| known.shown);
        let gone = shown.filter_map(|(id, _)| match all.get(id) {
            Some(now) if !now.away => None,
            // By its own word or an operator's.
            Some(_) => Some((id.clone(), Removal::Announced)),
            // That an entry is not there any more is nobody's word that it leaves.
            None => Some((id.clone(), Removal::Expired)),
        });
        let gone: Vec<_> = gone.collect();
        let news = !put.is_empty() || !gone.is_empty() || skipped != self.bad.len();
        news.then_some(Update::Delta { put, gone })
    }
}

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
