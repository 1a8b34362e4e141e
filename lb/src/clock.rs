//! [`Tick`]: a moment, as statistics note it.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

/// A moment on a monotonic clock, in nanoseconds since one that the process chose. Half the size of an `Instant`, so
/// that it fits into an atomic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u64);

/// Where a process begins to count: one tick is never 0, which stands for "not yet" where it is stored.
const FIRST: u64 = 1_000_000;

impl Tick {
    /// The present moment. Under Tokio's paused clock it stands still too.
    #[must_use]
    pub fn now() -> Self {
        // Each runtime whose clock is paused has stopped at a time of its own, some before this is asked for first.
        static EPOCH: LazyLock<Instant> = LazyLock::new(|| {
            let now = Instant::now();
            now.checked_sub(Duration::from_secs(3_600)).unwrap_or(now)
        });
        let since = Instant::now().saturating_duration_since(*EPOCH);
        Self::at(since)
    }

    /// The moment that is so long after the first one, for tests and simulations, which have a time of their own.
    #[must_use]
    pub fn at(since: Duration) -> Self {
        // 584 years are the most.
        Self(FIRST).after(since)
    }

    /// How long ago `earlier` was, nothing if it was not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// So much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// In milliseconds. They wrap around after 49 days; only differences count.
    #[allow(clippy::cast_possible_truncation, reason = "wrapping around is meant")]
    pub(crate) fn millis(self) -> u32 {
        (self.0 / 1_000_000) as u32
    }

    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        (bits != 0).then_some(Self(bits))
    }
}
