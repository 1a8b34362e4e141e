//! [`Recorder`]: everything that a watch showed, to be judged afterwards.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use callsign_core::{InstanceId, InstanceWatch, Snapshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// By then a change that was held back for the publish interval has long gone out.
const COALESCED: Duration = Duration::from_millis(500);

type Seen = Arc<Mutex<Vec<(Instant, Arc<Snapshot>)>>>;

/// Writes down every snapshot of a watch, with the time at which it was seen, until it is dropped.
#[derive(Debug)]
pub struct Recorder {
    seen: Seen,
    watch: InstanceWatch,
    // Owns the task.
    _task: JoinSet<()>,
}

impl Recorder {
    /// Starts with what the watch shows now.
    #[must_use]
    pub fn start(mut watch: InstanceWatch) -> Self {
        let seen: Seen = Arc::new(Mutex::new(vec![(Instant::now(), watch.snapshot())]));
        let (mut task, write, latest) = (JoinSet::new(), Arc::clone(&seen), watch.clone());
        task.spawn(async move {
            while let Ok(snapshot) = watch.changed().await {
                write.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), snapshot));
            }
        });
        Self { seen, watch: latest, _task: task }
    }

    /// What was seen so far, up to what the watch shows now.
    #[must_use]
    pub fn history(&self) -> Vec<(Instant, Arc<Snapshot>)> {
        let latest = self.watch.snapshot();
        let mut history = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The task that writes may be behind by a moment.
        if history.last().is_none_or(|(_, last)| last.revision() < latest.revision()) {
            history.push((Instant::now(), latest));
        }
        history
    }

    /// The first snapshot since `start` for which `holds`, and when it was seen.
    pub fn first(
        &self,
        start: Instant,
        holds: impl Fn(&Snapshot) -> bool,
    ) -> Option<(Instant, Arc<Snapshot>)> {
        self.history().into_iter().find(|(at, snapshot)| *at >= start && holds(snapshot))
    }

    /// Checks what holds of every watch, whatever happens: revisions only grow, and no failure removes anything.
    ///
    /// # Panics
    /// It does not hold.
    pub fn check_safety(&self) {
        let history = self.history();
        for pair in history.windows(2) {
            let (before, after) = (&pair[0].1, &pair[1].1);
            // The first may be seen twice: as what there was, and as news.
            assert!(
                before.revision() < after.revision() || Arc::ptr_eq(before, after),
                "revision {} after {}",
                after.revision(),
                before.revision()
            );
            // A change that waits for its turn goes out with the failure that comes meanwhile, so only what was seen
            // long after the one before, and with none skipped, has nothing but the failure in it.
            let alone = pair[1].0 - pair[0].0 > COALESCED && after.revision() == before.revision() + 1;
            if !after.freshness().is_fresh() && alone {
                assert_eq!(
                    ids(before),
                    ids(after),
                    "a failure changed what is listed: {before:?} then {after:?}"
                );
            }
            assert!(
                after.freshness().is_pending() <= before.freshness().is_pending(),
                "pending again: {before:?} then {after:?}"
            );
        }
    }

    /// Checks that the service was never shown as empty after it had instances.
    ///
    /// # Panics
    /// It was.
    pub fn check_never_empty(&self) {
        let history = self.history();
        let empty =
            history.iter().skip_while(|(_, snapshot)| snapshot.is_empty()).find(|(_, s)| s.is_empty());
        assert!(empty.is_none(), "empty: {history:?}");
    }

    /// Checks that each of `ids` was listed, held or not, in every snapshot from the first that had them all.
    ///
    /// # Panics
    /// One was missing once.
    pub fn check_never_missing(&self, all: &[InstanceId]) {
        let history = self.history();
        let has_all = |snapshot: &Snapshot| all.iter().all(|id| snapshot.get(id).is_some());
        let start = history.iter().position(|(_, snapshot)| has_all(snapshot)).expect("never complete");
        for (at, snapshot) in &history[start..] {
            let missing: Vec<_> = all.iter().filter(|id| snapshot.get(id).is_none()).take(10).collect();
            assert!(
                missing.is_empty(),
                "{:?} after it was complete, {missing:?} and maybe others are missing:{}",
                at.duration_since(history[start].0),
                timeline(&history)
            );
        }
    }
}

/// What was seen, a line for each.
fn timeline(history: &[(Instant, Arc<Snapshot>)]) -> String {
    let line = |(at, snapshot): &(Instant, Arc<Snapshot>)| {
        let held = snapshot.iter().filter(|listed| listed.is_held()).count();
        let (since, revision) = (at.duration_since(history[0].0), snapshot.revision());
        let freshness = format!("{:.60?}", snapshot.freshness());
        format!("\n{since:.1?} revision {revision}: {} and {held} held, {freshness}", snapshot.len() - held)
    };
    history.iter().map(line).collect()
}

/// The ids that a snapshot lists, held or not.
#[must_use]
pub fn ids(snapshot: &Snapshot) -> BTreeSet<InstanceId> {
    snapshot.iter().map(|listed| listed.id().clone()).collect()
}

/// The ids that a snapshot lists and that its registry confirms.
#[must_use]
pub fn confirmed(snapshot: &Snapshot) -> BTreeSet<InstanceId> {
    snapshot.iter().filter(|listed| !listed.is_held()).map(|listed| listed.id().clone()).collect()
}
