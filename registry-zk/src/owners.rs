//! [`Owners`]: which lease of this process a node belongs to. ZooKeeper knows the session alone, which all share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tells leases apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Serial(u64);

/// A node whose release did not come through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) path: String,
    /// The sessions under which it may have been written.
    pub(crate) sessions: Vec<i64>,
}

#[derive(Debug, Default)]
pub(crate) struct Owners {
    next: AtomicU64,
    of: Mutex<HashMap<String, Serial>>,
    left: Mutex<Vec<Left>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Owners {
    pub(crate) fn serial(&self) -> Serial {
        Serial(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Whose a node is, if it is anybody's here.
    pub(crate) fn of(&self, path: &str) -> Option<Serial> {
        lock(&self.of).get(path).copied()
    }

    /// The node is to be this lease's, whoever had it.
    pub(crate) fn take(&self, path: &str, serial: Serial) {
        lock(&self.of).insert(path.to_owned(), serial);
    }

    /// Sends something off, unless the node is somebody's here: whatever a later claim sends comes after it.
    pub(crate) fn unless_taken<T>(&self, path: &str, send: impl FnOnce() -> T) -> Option<T> {
        let of = lock(&self.of);
        (!of.contains_key(path)).then(send)
    }

    /// The lease ends.
    pub(crate) fn release(&self, path: &str, serial: Serial) {
        let mut of = lock(&self.of);
        if of.get(path) == Some(&serial) {
            of.remove(path);
        }
    }

    /// The lease ended without being able to say so.
    pub(crate) fn leave(&self, left: Left) {
        lock(&self.left).push(left);
    }

    /// What is to be removed by whoever can.
    pub(crate) fn left(&self) -> Vec<Left> {
        lock(&self.left).clone()
    }

    pub(crate) fn removed(&self, done: &Left) {
        lock(&self.left).retain(|left| left != done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_to_take_it_has_it() {
        let owners = Owners::default();
        let (one, two) = (owners.serial(), owners.serial());
        owners.take("/a", one);
        owners.take("/a", two);
        owners.release("/a", one);
        assert_eq!(owners.of("/a"), Some(two));
        owners.release("/a", two);
        assert_eq!(owners.of("/a"), None);
        let left = Left { path: "/a".to_owned(), sessions: vec![7] };
        owners.leave(left.clone());
        owners.removed(&left);
        assert!(owners.left().is_empty());
    }
}
