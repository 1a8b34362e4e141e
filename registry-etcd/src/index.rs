//! [`Index`]: which key stands for which instance of a service, and which keys nobody understands. Pure.
//!
//! One id may be under two keys, one below each prefix, so that a key that goes is not always an instance that
//! goes.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use callsign_core::{Instance, InstanceId, ServiceName};
use tracing::warn;

use crate::wire::{decode, id_of};

/// What an event means for the set of instances.
#[derive(Debug, PartialEq)]
pub(crate) enum Seen {
    /// This instance is there, with this content.
    Put(Box<Instance>),
    /// The instance is gone.
    Gone(InstanceId),
    /// The instance is still there under another key, whose content only a list can tell.
    Hidden,
    /// Nothing has changed.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Index {
    service: ServiceName,
    prefixes: [String; 2],
    keys: HashMap<InstanceId, Vec<Box<[u8]>>>,
    /// Entries that cannot be understood, with a hash of their content, so that each is logged once.
    broken: HashMap<Box<[u8]>, u64>,
}

impl Index {
    pub(crate) fn new(service: ServiceName, prefixes: [String; 2]) -> Self {
        Self { service, prefixes, keys: HashMap::new(), broken: HashMap::new() }
    }

    pub(crate) fn service(&self) -> &ServiceName {
        &self.service
    }

    pub(crate) fn prefixes(&self) -> &[String; 2] {
        &self.prefixes
    }

    /// How many entries cannot be understood.
    pub(crate) fn skipped(&self) -> usize {
        self.broken.len()
    }

    /// Takes in a key that was written.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Seen {
        match self.understand(key, value) {
            Ok(instance) => {
                self.broken.remove(key);
                let keys = self.keys.entry(instance.id().clone()).or_default();
                if !keys.iter().any(|known| **known == *key) {
                    keys.push(key.into());
                }
                Seen::Put(Box::new(instance))
            }
            Err(why) => {
                self.skip(key, value, &why);
                self.forget(key)
            }
        }
    }

    /// Takes in a key that was removed.
    pub(crate) fn delete(&mut self, key: &[u8]) -> Seen {
        self.broken.remove(key);
        self.forget(key)
    }

    /// Counts an entry that cannot be understood, and logs it unless it was logged with this content before.
    pub(crate) fn skip(&mut self, key: &[u8], value: &[u8], why: &str) {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        let content = hasher.finish();
        if self.broken.insert(key.into(), content) != Some(content) {
            let key = String::from_utf8_lossy(key);
            warn!(service = %self.service, %key, why, "an entry in etcd cannot be understood and is skipped");
        }
    }

    fn rest<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        self.prefixes.iter().find_map(|prefix| key.strip_prefix(prefix.as_bytes())).unwrap_or_default()
    }

    fn understand(&self, key: &[u8], value: &[u8]) -> Result<Instance, String> {
        let id = id_of(self.rest(key))?;
        decode(&self.service, &id, value)
    }

    fn forget(&mut self, key: &[u8]) -> Seen {
        let Ok(id) = id_of(self.rest(key)) else { return Seen::Nothing };
        let Some(keys) = self.keys.get_mut(&id) else { return Seen::Nothing };
        let Some(at) = keys.iter().position(|known| **known == *key) else { return Seen::Nothing };
        keys.swap_remove(at);
        if !keys.is_empty() {
            return Seen::Hidden;
        }
        self.keys.remove(&id);
        Seen::Gone(id)
    }
}

/// A list in the making, beside the index that it will replace.
#[derive(Debug)]
pub(crate) struct Listing {
    index: Index,
    /// What was broken before, and has been logged.
    known: HashMap<Box<[u8]>, u64>,
    found: HashMap<InstanceId, (i64, Instance)>,
}

impl Listing {
    pub(crate) fn new(before: &Index) -> Self {
        let index = Index::new(before.service.clone(), before.prefixes.clone());
        Self { index, known: before.broken.clone(), found: HashMap::new() }
    }

    /// Takes in an entry. Of several for one id the youngest counts.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8], revision: i64) {
        self.remember(key);
        if let Seen::Put(instance) = self.index.put(key, value) {
            let older = self.found.get(instance.id()).is_some_and(|(known, _)| *known > revision);
            if !older {
                self.found.insert(instance.id().clone(), (revision, *instance));
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
        Index::new("book".parse().unwrap(), ["s/book/".to_owned(), "/s/book/".to_owned()])
    }

    fn id(text: &str) -> InstanceId {
        InstanceId::new(text).unwrap()
    }

    fn instance(at: &str, text: &str) -> Seen {
        Seen::Put(Box::new(Instance::new("book", at).unwrap().with_id(text).unwrap()))
    }

    #[test]
    fn follows_keys() {
        let mut index = index();
        assert_eq!(index.put(b"s/book/a", b"h:1"), instance("h:1", "a"));
        assert_eq!(index.put(b"s/book/a", b"h:2"), instance("h:2", "a"));
        assert_eq!(index.delete(b"s/book/a"), Seen::Gone(id("a")));
        assert_eq!(index.delete(b"s/book/a"), Seen::Nothing);
        assert_eq!(index.delete(b"s/book/never"), Seen::Nothing);
    }

    #[test]
    fn an_id_under_two_keys_goes_with_the_last() {
        let mut index = index();
        index.put(b"s/book/a", b"h:1");
        index.put(b"/s/book/a", b"h:2");
        assert_eq!(index.delete(b"/s/book/a"), Seen::Hidden);
        assert_eq!(index.delete(b"s/book/a"), Seen::Gone(id("a")));
    }

    #[test]
    fn what_breaks_goes_and_what_mends_returns() {
        let mut index = index();
        index.put(b"s/book/a", b"h:1");
        assert_eq!((index.put(b"s/book/a", b"h:0"), index.skipped()), (Seen::Gone(id("a")), 1));
        assert_eq!((index.put(b"s/book/a", b"h:0"), index.skipped()), (Seen::Nothing, 1));
        assert_eq!((index.put(b"s/book/\xff", b"h:1"), index.skipped()), (Seen::Nothing, 2));
        assert_eq!((index.put(b"s/book/a", b"h:3"), index.skipped()), (instance("h:3", "a"), 1));
        assert_eq!((index.delete(b"s/book/\xff"), index.skipped()), (Seen::Nothing, 0));
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
