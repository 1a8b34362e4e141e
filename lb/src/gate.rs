//! [`Gate`]: whether calls are let through to an instance, for all who hold some ready set with it.

use crate::atomic::{AtomicU8, Ordering};
use crate::stats::Outcome;

/// How far a [`Gate`] is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// For all calls.
    Open = 0,
    /// For none.
    Shut,
    /// For one, which has not come yet.
    Probe,
    /// For none, as long as the one is under way.
    Probing,
    /// For none, until somebody sees that the one succeeded.
    Passed,
    /// For none, until somebody sees that the one failed.
    Failed,
    /// For none, as long as the one is under way, whose answer has begun.
    Answered,
}

/// How a call has come through a [`Gate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// As all others.
    Free,
    /// As the one that shows how the instance does.
    Probe,
}

/// Whether calls are let through. Open at first.
#[derive(Debug, Default)]
pub(crate) struct Gate(AtomicU8);

impl Gate {
    #[inline]
    pub(crate) fn opening(&self) -> Opening {
        match self.0.load(Ordering::Acquire) {
            1 => Opening::Shut,
            2 => Opening::Probe,
            3 => Opening::Probing,
            4 => Opening::Passed,
            5 => Opening::Failed,
            6 => Opening::Answered,
            _ => Opening::Open,
        }
    }

    pub(crate) fn set(&self, opening: Opening) {
        self.0.swap(opening as u8, Ordering::AcqRel);
    }

    /// Whether a call is let through.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Pass> {
        match self.opening() {
            Opening::Open => Some(Pass::Free),
            Opening::Probe => self.turn(Opening::Probe, Opening::Probing).then_some(Pass::Probe),
            _ => None,
        }
    }

    /// The answer to the one call has begun. Returns whether that is news.
    pub(crate) fn answered(&self) -> bool {
        self.turn(Opening::Probing, Opening::Answered)
    }

    /// What the one call has shown; nothing, if its caller gave it up: then another one is let through.
    pub(crate) fn probed(&self, outcome: Option<Outcome>) {
        let opening = match outcome {
            Some(Outcome::Success) => Opening::Passed,
            Some(Outcome::Failure) => Opening::Failed,
            None => Opening::Probe,
        };
        // Unless all were let in meanwhile.
        if !self.turn(Opening::Probing, opening) {
            self.turn(Opening::Answered, opening);
        }
    }

    #[inline]
    fn turn(&self, from: Opening, to: Opening) -> bool {
        self.0.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}
