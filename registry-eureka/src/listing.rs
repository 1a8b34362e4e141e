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
    instance: Arc<Instance>,
    /// What it was read of, if that is kept.
    from: Option<Arc<Read>>,
    mark: Mark,
    /// It said of itself that it is not to be called.
    away: bool,
    /// Whoever follows the service was told of it.
    shown: bool,
}

impl Known {
    /// Whether whoever follows the service knows all of `other`.
    fn shows(&self, other: &Self) -> bool {
        self.shown && (Arc::ptr_eq(&self.instance, &other.instance) || self.instance == other.instance)
    }
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
        entries: impl Iterator<Item = Told<'a>>,
        origin: Origin,
        now: Instant,
    ) -> Said {
        let skipped = self.bad.len();
        let (mut all, bad) = self.understand(entries);
        if self.has_forgotten(&all, origin) {
            return Said::Forgotten;
        }
        self.last = Some((origin, now));
        self.bad = bad;
        let update = if std::mem::take(&mut self.anew) {
            Some(Update::Full(self.list(&mut all)))
        } else {
            self.changes(&all, skipped)
        };
        self.known = all;
        update.map_or(Said::Nothing, Said::News)
    }

    fn understand<'a>(
        &self,
        entries: impl Iterator<Item = Told<'a>>,
    ) -> (HashMap<InstanceId, Known>, HashMap<String, String>) {
        let (mut all, mut bad) = (HashMap::with_capacity(self.known.len()), HashMap::new());
        // One that changed among ten thousand is to cost little more than itself.
        let read: HashMap<_, _> = self
            .known
            .values()
            .filter_map(|known| Some((Arc::as_ptr(known.from.as_ref()?), known)))
            .collect();
        for told in entries {
            if let Some(known) = told.kept().and_then(|kept| read.get(&Arc::as_ptr(kept))) {
                let known = Known { shown: !known.away, ..Known::clone(known) };
                Self::add(&mut all, known);
                continue;
            }
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
                    bad.insert(name, why);
                    continue;
                }
            };
            let (instance, from) = (Arc::new(instance), told.kept().cloned());
            Self::add(&mut all, Known { instance, from, mark, away, shown: !away });
        }
        (all, bad)
    }

    fn add(all: &mut HashMap<InstanceId, Known>, known: Known) {
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

    /// All that is listed; what was, and is away now, is listed as that once, so that nobody holds on to it.
    fn list(&self, all: &mut HashMap<InstanceId, Known>) -> Vec<Instance> {
        for (id, known) in all.iter_mut() {
            known.shown |= self.known.get(id).is_some_and(|before| before.shown);
        }
        all.values().filter(|known| known.shown).map(|known| Instance::clone(&known.instance)).collect()
    }

    /// Whether something was shown that is to be taken back, though nothing else has changed.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.known.values().any(|known| known.away && known.shown)
    }

    fn changes(&self, all: &HashMap<InstanceId, Known>, skipped: usize) -> Option<Update> {
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for (id, now) in all {
            let before = self.known.get(id);
            if now.away {
                // By its own word or an operator's.
                if before.is_some_and(|before| before.shown) {
                    gone.push((id.clone(), Removal::Announced));
                }
            } else if before.is_none_or(|before| !before.shows(now)) {
                put.push(Instance::clone(&now.instance));
            }
        }
        // That an entry is not there any more is nobody's word that it leaves.
        let lost = self.known.iter().filter(|(id, known)| known.shown && !all.contains_key(*id));
        gone.extend(lost.map(|(id, _)| (id.clone(), Removal::Expired)));
        let news = !put.is_empty() || !gone.is_empty() || skipped != self.bad.len();
        news.then_some(Update::Delta { put, gone })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wire::{Entry, Port, Status};

    fn entry(id: &str, dirty: i64, status: Status) -> Read {
        Ok(Entry {
            app: "BOOK".to_owned(),
            instance_id: id.to_owned(),
            host_name: "10.0.0.1".to_owned(),
            port: Some(Port { number: 80, enabled: true }),
            status,
            dirty,
            registered: dirty,
            ..Entry::default()
        })
    }

    struct Scene {
        listing: Listing,
        start: Instant,
    }

    impl Scene {
        fn set() -> Self {
            let listing = Listing::new(&"book".parse().unwrap(), Arc::default());
            Self { listing, start: Instant::now() }
        }

        /// What a server says at some second, with which we are connected since another.
        fn take(&mut self, entries: &[Read], (server, since): (usize, u64), at: u64) -> Said {
            let second = |second| self.start + Duration::from_secs(second);
            let origin = Origin { server, since: second(since) };
            self.listing.take(entries.iter().map(Told::Once), origin, second(at))
        }
    }

    fn full(said: Said) -> Vec<(String, callsign_core::State)> {
        let Said::News(Update::Full(all)) = said else { panic!("{said:?}") };
        all.into_iter().map(|it| (it.id().to_string(), it.state())).collect()
    }

    fn up(id: &str, dirty: i64) -> Read {
        entry(id, dirty, Status::Up)
    }

    #[test]
    fn a_server_that_knows_nothing_of_what_was_there_has_forgotten() {
        for (origin, at, forgotten) in [
            // Connected without a break: whatever it says is so.
            ((0, 0), 9, false),
            // A break since the last answer.
            ((0, 7), 9, true),
            ((1, 0), 9, true),
        ] {
            let mut scene = Scene::set();
            scene.take(&[up("a", 1), up("b", 1)], (0, 0), 5);
            let said = scene.take(&[up("a", 2)], origin, at);
            assert_eq!(said == Said::Forgotten, forgotten, "{origin:?}: {said:?}");
            // One that it knows as it was is enough; and that all are gone is told as it is.
            for kept in [&[up("a", 2), up("b", 1)][..], &[]] {
                let mut scene = Scene::set();
                scene.take(&[up("a", 1), up("b", 1)], (0, 0), 5);
                assert_ne!(scene.take(kept, origin, at), Said::Forgotten);
            }
        }
        // Who follows was told of a failure already.
        let mut scene = Scene::set();
        scene.take(&[up("a", 1)], (0, 0), 5);
        scene.listing.failed();
        assert_eq!(full(scene.take(&[up("a", 2)], (0, 7), 9)).len(), 1);
    }

    #[test]
    fn who_says_that_it_is_away_is_gone_by_its_own_word() {
        use callsign_core::State::{Down, Up};
        let mut scene = Scene::set();
        assert_eq!(
            full(scene.take(&[up("a", 1), entry("b", 1, Status::Starting)], (0, 0), 1)),
            [("a".to_owned(), Up)]
        );
        let away = [entry("a", 2, Status::Down)];
        let id = InstanceId::new("a").unwrap();
        let gone =
            Said::News(Update::Delta { put: Vec::new(), gone: vec![(id.clone(), Removal::Announced)] });
        assert_eq!(scene.take(&away, (0, 0), 2), gone);
        assert_eq!(scene.take(&away, (0, 0), 3), Said::Nothing);
        assert_eq!(scene.take(&[], (0, 0), 3), Said::Nothing, "who was not listed is not missed");
        // In a list there is no such word: it is listed as down, once.
        scene.take(&[up("a", 3)], (0, 0), 4);
        scene.listing.relist();
        assert_eq!(full(scene.take(&away, (0, 0), 5)), [("a".to_owned(), Down)]);
        assert!(scene.listing.is_unfinished());
        assert_eq!(scene.take(&away, (0, 0), 6), gone);
        assert!(!scene.listing.is_unfinished());
        scene.take(&[up("a", 4)], (0, 0), 7);
        let gone = Said::News(Update::Delta { put: Vec::new(), gone: vec![(id, Removal::Expired)] });
        assert_eq!(scene.take(&[], (0, 0), 8), gone);
    }

    #[test]
    fn what_is_kept_is_not_read_anew_and_what_changed_is() {
        let mut scene = Scene::set();
        let origin = Origin { server: 0, since: scene.start };
        let mut kept = [Arc::new(up("a", 1)), Arc::new(up("b", 1)), Arc::new(entry("c", 1, Status::Down))];
        let first = scene.listing.take(kept.iter().map(Told::Kept), origin, scene.start);
        assert_eq!(full(first).len(), 2);
        let before =
            |listing: &Listing, id: &str| Arc::clone(&listing.known[&InstanceId::new(id).unwrap()].instance);
        let (a, b) = (before(&scene.listing, "a"), before(&scene.listing, "b"));
        kept[1] = Arc::new(entry("b", 2, Status::Down));
        let said = scene.listing.take(kept.iter().map(Told::Kept), origin, scene.start);
        let gone = vec![(b.id().clone(), Removal::Announced)];
        assert_eq!(said, Said::News(Update::Delta { put: Vec::new(), gone }));
        assert!(Arc::ptr_eq(&a, &before(&scene.listing, "a")));
        assert_eq!(scene.listing.take(kept.iter().map(Told::Kept), origin, scene.start), Said::Nothing);
    }

    #[test]
    fn of_two_by_one_id_the_later_counts() {
        for entries in [[up("a", 1), entry("a", 2, Status::Down)], [entry("a", 2, Status::Down), up("a", 1)]]
        {
            assert!(full(Scene::set().take(&entries, (0, 0), 1)).is_empty());
        }
    }
}
