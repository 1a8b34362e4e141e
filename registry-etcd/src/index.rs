//! [`Index`]: which key stands for which instance of a service, and which keys nobody understands. Pure.
//!
//! One id may be under two keys, one below each prefix, so that a key that goes is not always an instance that
//! goes.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use callsign_core::{Instance, InstanceId, ServiceName};
use tracing::{info, warn};

use crate::keys::id_of;
use crate::wire::decode;

/// What an event means for the set of instances.
#[derive(Debug, PartialEq)]
pub(crate) enum Seen {
    /// These are there, with this content, and those are gone.
    Changed { put: Vec<Instance>, gone: Vec<InstanceId> },
    /// One is still there under another key, whose content only a list can tell.
    Hidden,
}

type Key = Box<[u8]>;

/// What belongs to a service.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) service: ServiceName,
    /// Where its entries are.
    pub(crate) prefixes: Vec<String>,
    /// Which of the prefixes is read if that is permitted: the other spelling of the one that is written.
    pub(crate) optional: usize,
    /// Of an entry's several endpoints, those that speak this.
    pub(crate) protocol: Option<Arc<str>>,
}

/// Whether the prefix that is optional may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Optional {
    Unknown,
    Readable,
    Denied,
}

#[derive(Debug)]
pub(crate) struct Index {
    scope: Arc<Scope>,
    optional: Optional,
    /// The keys that each instance is found under; one, as a rule.
    keys: HashMap<InstanceId, Vec<Key>>,
    /// What a key stands for, where it is not one instance by the key's own name.
    several: HashMap<Key, Vec<InstanceId>>,
    /// Entries that cannot be understood, with a hash of their content, so that each is logged once.
    broken: HashMap<Key, u64>,
}

impl Index {
    pub(crate) fn new(scope: Arc<Scope>) -> Self {
        Self {
            scope,
            optional: Optional::Unknown,
            keys: HashMap::new(),
            several: HashMap::new(),
            broken: HashMap::new(),
        }
    }

    pub(crate) fn service(&self) -> &ServiceName {
        &self.scope.service
    }

    pub(crate) fn prefixes(&self) -> &[String] {
        &self.scope.prefixes
    }

    /// Whether a prefix may turn out to be none of our business. One where something was found may not: that would be
    /// gone.
    pub(crate) fn may_be_denied(&self, side: usize) -> bool {
        side == self.scope.optional && (self.optional != Optional::Readable || !self.has_any_below(side))
    }

    fn has_any_below(&self, side: usize) -> bool {
        let Some(prefix) = self.scope.prefixes.get(side) else { return false };
        let all = self.keys.values().flatten().chain(self.broken.keys());
        all.into_iter().any(|key| key.starts_with(prefix.as_bytes()))
    }

    /// The prefixes that may be read, each with its place among all.
    pub(crate) fn readable(&self) -> impl Iterator<Item = (usize, &str)> {
        let denied = (self.optional == Optional::Denied).then_some(self.scope.optional);
        let all = self.scope.prefixes.iter().map(String::as_str).enumerate();
        all.filter(move |(side, _)| Some(*side) != denied)
    }

    /// How many entries cannot be understood.
    pub(crate) fn skipped(&self) -> usize {
        self.broken.len()
    }

    /// Takes in a key that was written.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Seen {
        let (own_id, put) = match self.understand(key, value) {
            Ok(understood) => {
                if !self.broken.is_empty() {
                    self.broken.remove(key);
                }
                understood
            }
            Err(why) => {
                self.skip(key, value, &why);
                return self.forget(key, &[]);
            }
        };
        let gone = self.forget(key, &put);
        for instance in &put {
            let keys = self.keys.entry(instance.id().clone()).or_default();
            if !keys.iter().any(|known| **known == *key) {
                keys.push(key.into());
            }
        }
        if put.len() != 1 || *put[0].id() != own_id {
            self.several.insert(key.into(), put.iter().map(|instance| instance.id().clone()).collect());
        }
        match gone {
            Seen::Hidden => Seen::Hidden,
            Seen::Changed { gone, .. } => Seen::Changed { put, gone },
        }
    }

    /// Takes in a key that was removed.
    pub(crate) fn delete(&mut self, key: &[u8]) -> Seen {
        self.broken.remove(key);
        self.forget(key, &[])
    }

    /// Counts an entry that cannot be understood, and logs it unless it was logged with this content before.
    pub(crate) fn skip(&mut self, key: &[u8], value: &[u8], why: &str) {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        let content = hasher.finish();
        if self.broken.insert(key.into(), content) != Some(content) {
            let key = String::from_utf8_lossy(key);
            warn!(service = %self.scope.service, %key, why, "an entry in etcd cannot be understood and is skipped");
        }
    }

    /// What stands behind the longest prefix of the service that a key has.
    fn rest<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        let rests = self.scope.prefixes.iter().filter_map(|prefix| key.strip_prefix(prefix.as_bytes()));
        rests.min_by_key(|rest| rest.len()).unwrap_or_default()
    }

    fn understand(&self, key: &[u8], value: &[u8]) -> Result<(InstanceId, Vec<Instance>), String> {
        let id = id_of(self.rest(key))?;
        let instances = decode(&self.scope.service, &id, value, self.scope.protocol.as_deref())?;
        Ok((id, instances))
    }

    /// A key stands no more for what it stood for, but for what is among `put`.
    fn forget(&mut self, key: &[u8], put: &[Instance]) -> Seen {
        let stood_for = match self.several.remove(key) {
            Some(several) => several,
            None => id_of(self.rest(key)).into_iter().collect(),
        };
        let (mut gone, mut hidden) = (Vec::new(), false);
        for id in stood_for {
            if put.iter().any(|instance| *instance.id() == id) {
                continue;
            }
            let Some(keys) = self.keys.get_mut(&id) else { continue };
            let Some(at) = keys.iter().position(|known| **known == *key) else { continue };
            keys.swap_remove(at);
            if keys.is_empty() {
                self.keys.remove(&id);
                gone.push(id);
            } else {
                hidden = true;
            }
        }
        if hidden { Seen::Hidden } else { Seen::Changed { put: Vec::new(), gone } }
    }
}

/// A list in the making, beside the index that it will replace.
#[derive(Debug)]
pub(crate) struct Listing {
    index: Index,
    /// What was broken before, and has been logged.
    known: HashMap<Key, u64>,
    found: HashMap<InstanceId, (i64, Instance)>,
}

impl Listing {
    pub(crate) fn new(before: &Index) -> Self {
        let index = Index { optional: before.optional, ..Index::new(Arc::clone(&before.scope)) };
        Self { index, known: before.broken.clone(), found: HashMap::new() }
    }

    /// Notes whether a prefix could be read.
    pub(crate) fn read(&mut self, side: usize, permitted: bool) {
        if side != self.index.scope.optional {
            return;
        }
        let now = if permitted { Optional::Readable } else { Optional::Denied };
        if now == Optional::Denied && self.index.optional != Optional::Denied {
            let prefix = self.index.scope.prefixes.get(side);
            info!(service = %self.index.scope.service, prefix, "etcd does not permit to read this prefix; going without it");
        }
        self.index.optional = now;
    }

    /// Takes in an entry. Of several for one id the youngest counts.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8], revision: i64) {
        self.remember(key);
        // A list has each key once, so that none stands for less than it did.
        let Seen::Changed { put, .. } = self.index.put(key, value) else { return };
        for instance in put {
            let older = self.found.get(instance.id()).is_some_and(|(known, _)| *known > revision);
            if !older {
                self.found.insert(instance.id().clone(), (revision, instance));
            }
        }
    }

    /// Counts an entry that was not even read.
    pub(crate) fn skip(&mut self, key: &[u8], why: &str) {
        self.remember(key);
        self.index.skip(key, &[], why);
    }

    fn remember(&mut self, key: &[u8]) {
        if let Some((key, content)) = self.known.remove_entry(key) {
            self.index.broken.insert(key, content);
        }
    }

    /// The finished list, and the index of it.
    pub(crate) fn finish(self) -> (Vec<Instance>, Index) {
        (self.found.into_values().map(|(_, instance)| instance).collect(), self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        let prefixes = vec!["s/book/".to_owned(), "/s/book/".to_owned()];
        Index::new(Arc::new(Scope {
            service: "book".parse().unwrap(),
            prefixes,
            optional: 1,
            protocol: None,
        }))
    }

    fn id(text: &str) -> InstanceId {
        InstanceId::new(text).unwrap()
    }

    fn put(at: &str, text: &str) -> Seen {
        let instance = Instance::new("book", at).unwrap().with_id(text).unwrap();
        Seen::Changed { put: vec![instance], gone: Vec::new() }
    }

    fn gone(ids: &[&str]) -> Seen {
        Seen::Changed { put: Vec::new(), gone: ids.iter().map(|text| id(text)).collect() }
    }

    #[test]
    fn follows_keys() {
        let mut index = index();
        assert_eq!(index.put(b"s/book/a", b"h:1"), put("h:1", "a"));
        assert_eq!(index.put(b"s/book/a", b"h:2"), put("h:2", "a"));
        assert_eq!(index.delete(b"s/book/a"), gone(&["a"]));
        assert_eq!(index.delete(b"s/book/a"), gone(&[]));
        assert_eq!(index.delete(b"s/book/never"), gone(&[]));
    }

    #[test]
    fn an_id_under_two_keys_goes_with_the_last() {
        let mut index = index();
        index.put(b"s/book/a", b"h:1");
        index.put(b"/s/book/a", b"h:2");
        assert_eq!(index.delete(b"/s/book/a"), Seen::Hidden);
        assert_eq!(index.delete(b"s/book/a"), gone(&["a"]));
    }

    /// A Kratos service with two endpoints is two instances under one key.
    #[test]
    fn a_key_may_stand_for_several() {
        let entry = |endpoints: &[&str]| {
            let endpoints: Vec<_> = endpoints.iter().map(|endpoint| format!("\"{endpoint}\"")).collect();
            format!(r#"{{"id":"a","name":"book","endpoints":[{}]}}"#, endpoints.join(","))
        };
        let ids = |seen: Seen| match seen {
            Seen::Changed { put, gone } => {
                let put: Vec<_> = put.iter().map(|instance| instance.id().to_string()).collect();
                (put.join(" "), gone.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
            }
            Seen::Hidden => panic!("hidden"),
        };
        let mut index = index();
        let (both, one) = (entry(&["grpc://h:1", "http://h:2"]), entry(&["grpc://h:1"]));
        let said = |put: &str, gone: &str| (put.to_owned(), gone.to_owned());
        assert_eq!(ids(index.put(b"s/book/a", both.as_bytes())), said("a@grpc a@http", ""));
        assert_eq!(ids(index.put(b"s/book/a", one.as_bytes())), said("a", "a@grpc a@http"));
        assert_eq!(ids(index.put(b"s/book/a", both.as_bytes())), said("a@grpc a@http", "a"));
        assert_eq!(ids(index.put(b"s/book/a", b"{}")), said("", "a@grpc a@http"));
        assert_eq!(ids(index.put(b"s/book/a", both.as_bytes())), said("a@grpc a@http", ""));
        assert_eq!(ids(index.delete(b"s/book/a")), said("", "a@grpc a@http"));
        assert_eq!((index.keys.len(), index.several.len(), index.skipped()), (0, 0, 0));
    }

    #[test]
    fn what_breaks_goes_and_what_mends_returns() {
        let mut index = index();
        index.put(b"s/book/a", b"h:1");
        assert_eq!((index.put(b"s/book/a", b"h:0"), index.skipped()), (gone(&["a"]), 1));
        assert_eq!((index.put(b"s/book/a", b"h:0"), index.skipped()), (gone(&[]), 1));
        assert_eq!((index.put(b"s/book/\xff", b"h:1"), index.skipped()), (gone(&[]), 2));
        assert_eq!((index.put(b"s/book/a", b"h:3"), index.skipped()), (put("h:3", "a"), 1));
        assert_eq!((index.delete(b"s/book/\xff"), index.skipped()), (gone(&[]), 0));
    }

    #[test]
    fn a_prefix_that_was_read_is_missed() {
        let sides = |index: &Index| index.readable().map(|(side, _)| side).collect::<Vec<_>>();
        let index = index();
        assert!((!index.may_be_denied(0), index.may_be_denied(1)) == (true, true));
        let mut listing = Listing::new(&index);
        listing.read(0, true);
        listing.read(1, false);
        let denied = listing.finish().1;
        assert_eq!((sides(&denied), denied.may_be_denied(1)), (vec![0], true));
        let mut listing = Listing::new(&denied);
        listing.read(0, true);
        listing.read(1, true);
        let mut read = listing.finish().1;
        assert_eq!((sides(&read), read.may_be_denied(1)), (vec![0, 1], true), "there is nothing to miss");
        read.put(b"/s/book/a", b"h:1");
        assert!(!read.may_be_denied(1));
    }

    #[test]
    fn the_youngest_of_a_list_counts_and_old_trouble_is_remembered() {
        let mut before = index();
        before.put(b"s/book/bad", b"{");
        before.put(b"s/book/mended", b"{");
        let mut listing = Listing::new(&before);
        listing.add(b"s/book/a", b"h:9", 9);
        listing.add(b"s/book/bad", b"{", 3);
        listing.add(b"s/book/mended", b"h:1", 10);
        listing.add(b"/s/book/a", b"h:4", 4);
        listing.skip(b"/s/book/huge", "too large");
        let (mut found, mut index) = listing.finish();
        found.sort_by(|a, b| a.id().cmp(b.id()));
        let found: Vec<_> = found.iter().map(|i| format!("{} {}", i.id(), i.address())).collect();
        assert_eq!(found, ["a h:9", "mended h:1"]);
        assert_eq!(index.skipped(), 2);
        assert_eq!(index.delete(b"/s/book/a"), Seen::Hidden);
    }
}
