//! [`Seen`]: what was listed last, so that of ten thousand instances only those are looked at that are other ones now.

use std::sync::Arc;

use callsign_core::{InstanceId, Listed, Snapshot};

/// What a snapshot listed, sorted by id.
#[derive(Debug, Default)]
pub(super) struct Seen(Vec<Listed>);

/// In what a snapshot is unlike the one before.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) new: Vec<Listed>,
    pub(super) changed: Vec<Listed>,
    pub(super) gone: Vec<InstanceId>,
}

impl Seen {
    /// How many are listed.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes a snapshot in. Reads nothing of an instance that is the very same as before: each is in a place of its own in
    /// memory.
    pub(super) fn take_in(&mut self, snapshot: &Snapshot) -> Changes {
        let mut changes = Changes::default();
        let mut seen = Vec::with_capacity(snapshot.len());
        let mut before = std::mem::take(&mut self.0).into_iter().peekable();
        // Both are sorted by id.
        for listed in snapshot.iter() {
            let gone = |before: &Listed| !is_same(before, listed) && before.id() < listed.id();
            while let Some(gone) = before.next_if(gone) {
                changes.gone.push(gone.id().clone());
            }
            match before.next_if(|before| is_same(before, listed) || before.id() == listed.id()) {
                Some(before) if is_same(&before, listed) => seen.push(before),
                Some(_) => {
                    changes.changed.push(listed.clone());
                    seen.push(listed.clone());
                }
                None => {
                    changes.new.push(listed.clone());
                    seen.push(listed.clone());
                }
            }
        }
        changes.gone.extend(before.map(|gone| gone.id().clone()));
        self.0 = seen;
        changes
    }
}

fn is_same(a: &Listed, b: &Listed) -> bool {
    Arc::ptr_eq(a.instance(), b.instance()) && a.is_held() == b.is_held()
}
