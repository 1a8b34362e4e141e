//! [`Listing`]: what is known of one service, and what an answer says that is new. Pure.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::Arc;

use callsign_core::{Instance, InstanceId, Removal, ServiceName, Update};
use tokio::time::Instant;
use tracing::warn;

use crate::wire::{Found, Read, Taking, decode};

/// By whom something was answered, and since when no connection with it was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) server: usize,
    pub(crate) since: Instant,
}

/// When an entry was changed, and when the server was told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    dirty: i64,
    registered: i64,
}

#[derive(Debug)]
struct Known {
    instance: Instance,
    mark: Mark,
    /// It said of itself that it is not to be called.
    away: bool,
}

/// What an answer comes to.
#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    News(Update),
    Nothing,
    /// The server that answers knows nothing of what was there: it was restarted, or is another that has not heard of it.
    Forgotten,
}

#[derive(Debug)]
pub(crate) struct Listing {
    service: ServiceName,
    taking: Arc<Taking>,
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

    /// Makes the next news all there is.
    pub(crate) fn relist(&mut self) {
        self.anew = true;
    }

    /// The same after a failure, which whoever follows is told of: what is missing then is not believed to be gone.
    pub(crate) fn failed(&mut self) {
        self.relist();
        self.last = None;
    }

    /// Takes in all entries of the service, as somebody said at some time.
    pub(crate) fn take<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a Read>,
        origin: Origin,
        now: Instant,
    ) -> Said {
        let skipped = self.bad.len();
        let (all, bad) = self.understand(entries);
        if self.has_forgotten(&all, origin) {
            return Said::Forgotten;
        }
        self.last = Some((origin, now));
        self.bad = bad;
        let update = if std::mem::take(&mut self.anew) {
            Some(Update::Full(self.list(&all)))
        } else {
            self.changes(&all, skipped)
        };
        self.known = all;
        update.map_or(Said::Nothing, Said::News)
    }

    fn understand<'a>(
        &self,
        entries: impl Iterator<Item = &'a Read>,
    ) -> (HashMap<InstanceId, Known>, HashMap<String, String>) {
        let (mut all, mut bad) = (HashMap::with_capacity(self.known.len()), HashMap::new());
        for read in entries {
            let understood = match read {
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
                    bad.insert(name, why);
                    continue;
                }
            };
            let known = Known { instance, mark, away };
            match all.entry(known.instance.id().clone()) {
                MapEntry::Vacant(entry) => drop(entry.insert(known)),
                // Of two by one id the later counts.
                MapEntry::Occupied(mut entry) => {
                    if entry.get().mark.dirty <= known.mark.dirty {
                        entry.insert(known);
                    }
                }
            }
        }
        (all, bad)
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
            now.is_some_and(|now| now.dirty == known.mark.dirty && (!same || now.registered == known.mark.registered))
        };
        !self.known.iter().any(is_kept)
    }

    /// All that is listed; what was, and is away now, is listed as that once, so that nobody holds on to it.
    fn list(&self, all: &HashMap<InstanceId, Known>) -> Vec<Instance> {
        let listed = |known: &&Known| {
            !known.away || self.known.get(known.instance.id()).is_some_and(|before| !before.away)
        };
        all.values().filter(listed).map(|known| known.instance.clone()).collect()
    }

    fn changes(&self, all: &HashMap<InstanceId, Known>, skipped: usize) -> Option<Update> {
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for (id, now) in all {
            let before = self.known.get(id);
            if now.away {
                // By its own word or an operator's.
                if before.is_some() {
                    gone.push((id.clone(), Removal::Announced));
                }
            } else if before.is_none_or(|before| before.away || before.instance != now.instance) {
                put.push(now.instance.clone());
            }
        }
        // That an entry is not there any more is nobody's word that it leaves.
        let lost = self.known.keys().filter(|id| !all.contains_key(*id));
        gone.extend(lost.map(|id| (id.clone(), Removal::Expired)));
        let news = !put.is_empty() || !gone.is_empty() || skipped != self.bad.len();
        news.then_some(Update::Delta { put, gone })
    }
}
