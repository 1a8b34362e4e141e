//! [`All`]: everything that is registered, as a server told it once and as it has changed since. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::wire::{Action, Read, Status};

/// The entries of one application, by their ids.
#[derive(Debug, Default)]
struct App {
    entries: BTreeMap<String, Arc<Read>>,
    /// When it changed last, as a number that only grows.
    version: u64,
}

#[derive(Debug, Default)]
pub(crate) struct All {
    /// By their names in upper case.
    apps: HashMap<String, App>,
    version: u64,
    /// Some entry cannot be read, so that nobody knows how it counts.
    uncountable: bool,
}

/// A list of everything while it is read.
#[derive(Debug, Default)]
pub(crate) struct Anew {
    apps: HashMap<String, App>,
    uncountable: bool,
}

fn name_and_key(read: &Read) -> (String, String) {
    match read {
        Ok(entry) => (entry.app.to_ascii_uppercase(), entry.key().to_owned()),
        Err(bad) => (bad.app.clone(), bad.name.clone()),
    }
}

impl All {
    /// Reads one entry of a list of everything.
    pub(crate) fn add(&self, anew: &mut Anew, read: Read) {
        anew.uncountable |= read.is_err();
        let (name, key) = name_and_key(&read);
        // What is the same stays what it is, for all who know it by that.
        let known =
            self.apps.get(&name).and_then(|app| app.entries.get(&key)).filter(|known| ***known == read);
        let read = known.cloned().unwrap_or_else(|| Arc::new(read));
        anew.apps.entry(name).or_default().entries.insert(key, read);
    }

    /// Takes a list of everything in the place of what was known.
    pub(crate) fn replace(&mut self, anew: Anew) {
        let mut before = std::mem::replace(&mut self.apps, anew.apps);
        self.version += 1;
        self.uncountable = anew.uncountable;
        for (name, app) in &mut self.apps {
            // What is the same is not read anew by whoever follows it.
            let before = before.remove(name).filter(|before| before.entries == app.entries);
            app.version = before.map_or(self.version, |before| before.version);
        }
    }

    /// Takes a change in, which may have been taken in before.
    pub(crate) fn apply(&mut self, read: Read) {
        let Ok(entry) = &read else {
            self.uncountable = true;
            return;
        };
        let (name, key) = name_and_key(&read);
        let app = self.apps.entry(name).or_default();
        let known = app.entries.get(&key).and_then(|known| known.as_ref().as_ref().ok());
        // An answer is kept by the server for a while, and what we know may be younger.
        if known.is_some_and(|known| known.dirty > entry.dirty) {
            return;
        }
        if entry.action == Action::Deleted {
            if app.entries.remove(&key).is_none() {
                return;
            }
        } else if known.is_none_or(|known| known != entry) {
            app.entries.insert(key, Arc::new(read));
        } else {
            return;
        }
        self.version += 1;
        app.version = self.version;
    }

    /// Whether that is what the server has, after all changes, by the counts that it tells.
    pub(crate) fn adds_up(&self, hash: Option<&str>) -> bool {
        !self.uncountable && hash.is_some_and(|hash| hash == self.hash())
    }

    /// How many there are of each status, as servers say it.
    fn hash(&self) -> String {
        // By the names of statuses in their order.
        let mut counts = [0usize; 5];
        let entries = self.apps.values().flat_map(|app| app.entries.values());
        for entry in entries.filter_map(|read| read.as_ref().as_ref().ok()) {
            if let Some(count) = counts.get_mut(entry.status as usize) {
                *count += 1;
            }
        }
        let told = Status::ALL.iter().zip(counts).filter(|(_, count)| *count > 0);
        told.map(|(status, count)| format!("{}_{count}_", status.as_str())).collect()
    }

    /// When an application changed last; 0 if it has nothing.
    pub(crate) fn version(&self, app: &str) -> u64 {
        self.apps.get(app).map_or(0, |app| app.version)
    }

    pub(crate) fn entries(&self, app: &str) -> impl Iterator<Item = &Arc<Read>> {
        self.apps.get(app).into_iter().flat_map(|app| app.entries.values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Entry;

    fn entry(key: &str, dirty: i64, status: Status) -> Entry {
        Entry { app: "BOOK".to_owned(), instance_id: key.to_owned(), dirty, status, ..Entry::default() }
    }

    fn replace(all: &mut All, entries: impl IntoIterator<Item = Read>) {
        let mut anew = Anew::default();
        for read in entries {
            all.add(&mut anew, read);
        }
        all.replace(anew);
    }

    fn apply(all: &mut All, hash: &str, entries: impl IntoIterator<Item = Entry>) -> bool {
        for entry in entries {
            all.apply(Ok(entry));
        }
        all.adds_up(Some(hash))
    }

    fn gone(entry: Entry) -> Entry {
        Entry { action: Action::Deleted, ..entry }
    }

    fn keys(all: &All) -> Vec<&str> {
        all.entries("BOOK").map(|read| read.as_ref().as_ref().unwrap().key()).collect()
    }

    #[test]
    fn the_same_changes_again_change_nothing() {
        let mut all = All::default();
        replace(&mut all, [Ok(entry("a", 1, Status::Up)), Ok(entry("b", 1, Status::Down))]);
        let changes = || [entry("c", 2, Status::Starting), gone(entry("b", 1, Status::Down))];
        assert!(apply(&mut all, "STARTING_1_UP_1_", changes()));
        let version = all.version("BOOK");
        for _ in 0..3 {
            assert!(apply(&mut all, "STARTING_1_UP_1_", changes()));
            assert_eq!((all.version("BOOK"), keys(&all)), (version, vec!["a", "c"]));
        }
        let before: Vec<_> = all.entries("BOOK").cloned().collect();
        replace(&mut all, [Ok(entry("a", 1, Status::Up)), Ok(entry("c", 2, Status::Starting))]);
        assert!(all.entries("BOOK").zip(&before).all(|(now, before)| Arc::ptr_eq(now, before)));
        assert_eq!(all.version("BOOK"), version, "what is the same is no change");
    }

    #[test]
    fn statuses_are_counted_in_their_order() {
        let all =
            [Status::Up, Status::Unknown, Status::Starting, Status::Down, Status::OutOfService, Status::Up];
        let mut known = All::default();
        let ids = ["a", "b", "c", "d", "e", "f"];
        replace(&mut known, all.into_iter().zip(ids).map(|(status, id)| Ok(entry(id, 1, status))));
        assert_eq!(known.hash(), "DOWN_1_OUT_OF_SERVICE_1_STARTING_1_UNKNOWN_1_UP_2_");
    }

    #[test]
    fn what_does_not_come_out_right_says_so() {
        let mut all = All::default();
        replace(&mut all, [Ok(entry("a", 1, Status::Up))]);
        // The server has another that the changes do not tell of any more.
        assert!(!apply(&mut all, "UP_2_", []));
        assert!(apply(&mut all, "UP_1_", []));
        let bad = crate::wire::Bad { app: "BOOK".to_owned(), name: "x".to_owned(), why: "odd".to_owned() };
        replace(&mut all, [Ok(entry("a", 1, Status::Up)), Err(bad)]);
        assert!(!apply(&mut all, "UP_2_", []), "nobody knows how it counts");
        assert_eq!(all.entries("BOOK").count(), 2);
    }

    #[test]
    fn an_old_answer_undoes_nothing_that_is_younger() {
        let mut all = All::default();
        replace(&mut all, [Ok(entry("a", 5, Status::Up))]);
        assert!(apply(&mut all, "UP_1_", [entry("a", 4, Status::Down)]));
        assert!(apply(&mut all, "UP_1_", [gone(entry("a", 4, Status::Up))]));
        assert_eq!(keys(&all), ["a"]);
        assert!(apply(&mut all, "", [gone(entry("a", 5, Status::Up))]));
        assert!(keys(&all).is_empty());
    }
}
