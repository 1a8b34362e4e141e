//! [`check`]: whether what a watch has shown is explained by what was written. Pure.
//!
//! What was written comes from elsewhere than the backend under test, in the order of revisions. A watch may skip
//! states and be late, so that each snapshot is explained by the earliest state that can be meant, and what follows
//! must not need an earlier one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// One entry that was written or removed.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// When it was heard of.
    pub at: Instant,
    /// The revision that it made. Writes of one revision took effect together.
    pub revision: i64,
    /// Whose entry it is.
    pub id: String,
    /// All that a snapshot shows of it; `None` if it was removed.
    pub content: Option<String>,
}

/// One instance in a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// In the form that [`Write::content`] has.
    pub content: String,
    /// Whether only the guard against mass removal keeps it.
    pub held: bool,
}

/// One snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// When it was seen.
    pub at: Instant,
    /// The snapshot's own count.
    pub revision: u64,
    /// Whether it was said to be what there is.
    pub fresh: bool,
    /// What it lists.
    pub listed: BTreeMap<String, Listing>,
}

/// What the watch promises.
#[derive(Debug, Clone, Copy)]
pub struct Promises {
    /// How long the guard holds what vanished; zero if it is off.
    pub grace: Duration,
    /// By how much the times of writes and snapshots may be wrong.
    pub skew: Duration,
    /// How much later than it was written a change may be missing in what is said to be what there is, where `whole`.
    pub lag: Duration,
    /// Whether what is confirmed in a snapshot is all there was at one revision, and not older here and younger there.
    pub whole: bool,
}

/// What no history of writes explains. Snapshots are named by their own count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unexplained {
    /// A snapshot's count is not above the one's before.
    CountedBack {
        /// In which snapshot.
        at: u64,
        /// The count of the one before.
        before: u64,
    },
    /// Nobody ever had this id.
    Invented {
        /// In which snapshot.
        at: u64,
        /// Whose entry.
        id: String,
    },
    /// It was never written under this id.
    NeverWritten {
        /// In which snapshot.
        at: u64,
        /// Whose entry.
        id: String,
        /// What was shown of it.
        content: String,
    },
    /// It had been replaced or removed, as the watch had shown.
    Outdated {
        /// In which snapshot.
        at: u64,
        /// Whose entry.
        id: String,
        /// What was shown of it.
        content: String,
    },
    /// It is not listed any more, and was not removed.
    Vanished {
        /// In which snapshot.
        at: u64,
        /// Whose entry.
        id: String,
    },
    /// Nothing is listed any more, though the service had not been without instances for as long as the guard holds.
    EmptyTooSoon {
        /// In which snapshot.
        at: u64,
    },
    /// No revision, from that on by which the snapshots before are explained, had just this.
    NoRevision {
        /// In which snapshot.
        at: u64,
        /// The earliest revision that may be meant.
        from: i64,
    },
    /// Fresh by its own word, and what it shows had not been so any more for longer than the watch may lag.
    Late {
        /// In which snapshot.
        at: u64,
        /// The revision that it should have had.
        from: i64,
    },
    /// The last snapshot is not what there is.
    NotFinal {
        /// Not listed, or only held.
        missing: BTreeSet<String>,
        /// Listed, and not there.
        surplus: BTreeSet<String>,
        /// Listed with another content.
        outdated: BTreeSet<String>,
    },
}

/// The state after each revision.
struct States {
    all: Vec<(i64, Instant, BTreeMap<String, String>)>,
}

impl States {
    fn of(writes: &[Write]) -> Self {
        let mut all: Vec<(i64, Instant, BTreeMap<String, String>)> = Vec::new();
        for write in writes {
            let mut state = all.last().map_or_else(BTreeMap::new, |(_, _, state)| state.clone());
            match &write.content {
                Some(content) => drop(state.insert(write.id.clone(), content.clone())),
                None => drop(state.remove(&write.id)),
            }
            if all.last().is_some_and(|(revision, ..)| *revision == write.revision) {
                all.pop();
            }
            all.push((write.revision, write.at, state));
        }
        Self { all }
    }

    /// The last revision that everybody must know of by then.
    fn by(&self, now: Instant, promises: Promises) -> i64 {
        let late = promises.lag + promises.skew;
        self.all.iter().take_while(|(_, at, _)| *at + late < now).last().map_or(0, |(revision, ..)| *revision)
    }

    /// The first revision from `from` on after which there was just this.
    fn find(&self, from: i64, wanted: &BTreeMap<String, String>) -> Option<i64> {
        // Before the first revision there was nothing.
        if wanted.is_empty() && self.all.first().is_none_or(|(first, ..)| from < *first) {
            return Some(from);
        }
        // The state at `from` itself is that of the last revision up to it.
        let start = self.all.partition_point(|(revision, ..)| *revision <= from).saturating_sub(1);
        let found = self.all.iter().skip(start).find(|(_, _, state)| state == wanted);
        found.map(|(revision, ..)| from.max(*revision))
    }
}

/// What has been shown of one id, and by which of its writes that is explained.
#[derive(Debug, Default)]
struct Known {
    revision: i64,
    listed: bool,
}

/// Checks what a watch has shown, up to the end, against all that was written.
///
/// # Errors
/// The first that is not explained.
pub fn check(writes: &[Write], shown: &[Shown], promises: Promises) -> Result<(), Unexplained> {
    let states = States::of(writes);
    let mut known: BTreeMap<&str, Known> = BTreeMap::new();
    let (mut before, mut from, mut seen) = (None, 0, 0);
    for (n, snapshot) in shown.iter().enumerate() {
        let at = snapshot.revision;
        if let Some(before) = before.replace(at)
            && at <= before
        {
            return Err(Unexplained::CountedBack { at, before });
        }
        for (id, listing) in &snapshot.listed {
            let revision = explain(writes, at, id, listing, known.get(id.as_str()))?;
            known.insert(id, Known { revision, listed: true });
            if !listing.held {
                seen = seen.max(revision);
            }
        }
        let emptied = snapshot.listed.is_empty() && known.values().any(|known| known.listed);
        for (id, known) in &mut known {
            if known.listed && !snapshot.listed.contains_key(*id) {
                let removed = writes.iter().find(|write| {
                    write.id == *id && write.revision > known.revision && write.content.is_none()
                });
                let removed = removed.ok_or_else(|| Unexplained::Vanished { at, id: (*id).to_owned() })?;
                *known = Known { revision: removed.revision, listed: false };
            }
        }
        if emptied && !was_empty(&states, seen, snapshot.at, promises) {
            return Err(Unexplained::EmptyTooSoon { at });
        }
        if promises.whole {
            let confirmed = snapshot.listed.iter().filter(|(_, listing)| !listing.held);
            let confirmed = confirmed.map(|(id, listing)| (id.clone(), listing.content.clone())).collect();
            from = states.find(from, &confirmed).ok_or(Unexplained::NoRevision { at, from })?;
            // It was shown until the next was.
            let until = shown.get(n + 1).map_or(snapshot.at, |next| next.at);
            let least = states.by(until, promises);
            if snapshot.fresh && least > from && states.find(least, &confirmed).is_none() {
                return Err(Unexplained::Late { at, from: least });
            }
        }
    }
    check_last(&states, shown.last())
}

/// The first write that explains what is listed, given what was known of the id.
fn explain(
    writes: &[Write],
    at: u64,
    id: &str,
    listing: &Listing,
    known: Option<&Known>,
) -> Result<i64, Unexplained> {
    let own = || writes.iter().filter(|write| write.id == id);
    let same = |write: &&Write| write.content.as_ref() == Some(&listing.content);
    let from = known.map_or(0, |known| known.revision);
    if let Some(write) = own().filter(same).find(|write| write.revision >= from) {
        return Ok(write.revision);
    }
    let (id, content) = (id.to_owned(), listing.content.clone());
    Err(if own().next().is_none() {
        Unexplained::Invented { at, id }
    } else if own().any(|write| same(&write)) {
        Unexplained::Outdated { at, id, content }
    } else {
        Unexplained::NeverWritten { at, id, content }
    })
}

/// Whether there was nothing, after what has been seen, so long ago that the guard may have let go of it. Whether there
/// was something again is another matter: a watch that is cut off cannot know.
fn was_empty(states: &States, seen: i64, at: Instant, promises: Promises) -> bool {
    let empty = states.all.iter().filter(|(revision, _, state)| *revision > seen && state.is_empty());
    let mut since = empty.map(|(_, since, _)| *since);
    promises.grace.is_zero() || since.any(|since| since + promises.grace <= at + promises.skew)
}

fn check_last(states: &States, last: Option<&Shown>) -> Result<(), Unexplained> {
    let none = (BTreeMap::new(), BTreeMap::new());
    let is = states.all.last().map_or(&none.0, |(_, _, state)| state);
    let listed = last.map_or(&none.1, |last| &last.listed);
    let ids = |ids: &mut dyn Iterator<Item = &String>| ids.cloned().collect::<BTreeSet<_>>();
    let missing = ids(&mut is.keys().filter(|id| listed.get(*id).is_none_or(|listing| listing.held)));
    let surplus = ids(&mut listed.keys().filter(|id| !is.contains_key(*id)));
    let differs = |id: &&String| listed.get(*id).is_some_and(|listing| Some(&listing.content) != is.get(*id));
    let outdated = ids(&mut is.keys().filter(differs));
    if missing.is_empty() && surplus.is_empty() && outdated.is_empty() {
        return Ok(());
    }
    Err(Unexplained::NotFinal { missing, surplus, outdated })
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
