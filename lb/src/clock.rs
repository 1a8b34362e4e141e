//! [`Tick`]: a moment, as statistics note it.

use std::num::NonZeroU64;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// A moment on a monotonic clock, in nanoseconds since one that the process chose. Half the size of an `Instant`, so
/// that it fits into an atomic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(NonZeroU64);

/// Where a process begins to count: one tick is never 0, which stands for "not yet" where it is stored.
const FIRST: NonZeroU64 = NonZeroU64::new(1_000_000).unwrap();

/// Where both clocks began, an hour before that: each runtime whose clock is paused has stopped at a time of its own,
/// some before this is asked for first.
static EPOCH: LazyLock<Epoch> = LazyLock::new(|| {
    // Measures the counter, in about half a millisecond.
    let counter = quanta::Clock::new();
    let (now, began) = (Instant::now(), counter.raw());
    Epoch { tokio: now.checked_sub(HOUR).unwrap_or(now), counter, began }
});

/// The tick at which the counter began.
const SINCE_EPOCH: NonZeroU64 = FIRST.saturating_add(3_600_000_000_000);
const HOUR: Duration = Duration::from_secs(3_600);

struct Epoch {
    tokio: Instant,
    counter: quanta::Clock,
    /// What the counter showed an hour after the epoch.
    began: u64,
}

/// The longest time that is told from for ever: thirty years.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The moment that is so much later. What is for ever by [`Duration::MAX`] has no moment, and adding it would panic.
pub(crate) fn later(now: Instant, time: Duration) -> Instant {
    now + time.min(FOR_EVER)
}

/// Whether some runtime has paused its clock. From then on Tokio's is asked, each time.
static PAUSED: AtomicBool = AtomicBool::new(false);

impl Tick {
    /// The present moment.
    ///
    /// Read off the processor's own counter where it has one that is fit for it, which takes less than half as long as
    /// asking the system, and drifts from the system's clock by some millionths. Under Tokio's paused clock it stands
    /// still: that a clock is paused is noticed when a [`Balancer`](crate::Balancer) is made or its ready set changes.
    #[must_use]
    #[inline]
    pub fn now() -> Self {
        if PAUSED.load(Ordering::Relaxed) { Self::by_tokio() } else { Self::by_counter() }
    }

    #[inline]
    fn by_counter() -> Self {
        let epoch = &*EPOCH;
        let since = epoch.counter.delta_as_nanos(epoch.began, epoch.counter.raw());
        Self(SINCE_EPOCH.saturating_add(since))
    }

    #[cold]
    fn by_tokio() -> Self {
        Self::at(Instant::now().saturating_duration_since(EPOCH.tokio))
    }

    /// Finds out whether the clock of the current runtime is paused; takes a microsecond. In programs that are no tests
    /// none ever is.
    pub(crate) fn look_for_pause() {
        LazyLock::force(&EPOCH);
        let (before, begun) = (Instant::now(), std::time::Instant::now());
        while begun.elapsed() < Duration::from_micros(1) {
            std::hint::spin_loop();
        }
        if Instant::now() == before {
            PAUSED.store(true, Ordering::Relaxed);
        }
    }

    /// The moment that is so long after the first one, for tests and simulations, which have a time of their own.
    #[must_use]
    #[inline]
    pub fn at(since: Duration) -> Self {
        // 584 years are the most.
        Self(FIRST).after(since)
    }

    /// How long ago `earlier` was, nothing if it was not.
    #[must_use]
    #[inline]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }

    /// The same in seconds.
    #[inline]
    #[allow(clippy::cast_precision_loss, reason = "a latency is good to a ten millionth")]
    pub(crate) fn seconds_since(self, earlier: Self) -> f32 {
        self.0.get().saturating_sub(earlier.0.get()) as f32 * 1e-9
    }

    /// So much later.
    #[must_use]
    #[inline]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// In milliseconds. They wrap around after 49 days; only differences count.
    #[allow(clippy::cast_possible_truncation, reason = "wrapping around is meant")]
    #[inline]
    pub(crate) fn millis(self) -> u32 {
        (self.0.get() / 1_000_000) as u32
    }

    #[inline]
    pub(crate) fn to_bits(self) -> u64 {
        self.0.get()
    }

    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        NonZeroU64::new(bits).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_keeps_up_with_the_clock_of_the_system() {
        Tick::look_for_pause();
        let clock = std::time::Instant::now();
        // Between two looks at the clock, however long the thread is put aside.
        let read = || (clock.elapsed(), Tick::by_counter(), clock.elapsed());
        let first = read();
        let mut last = first;
        while last.0 < Duration::from_millis(50) {
            let next = read();
            assert!(next.1 >= last.1);
            last = next;
        }
        let counted = last.1.since(first.1);
        assert!(counted >= (last.0 - first.2).mul_f64(0.999), "{first:?} {last:?}");
        assert!(counted <= (last.2 - first.0).mul_f64(1.001), "{first:?} {last:?}");
        // Both began at the same time.
        let apart = Tick::by_tokio().since(Tick::by_counter());
        assert!(apart < Duration::from_secs(1), "{apart:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn stands_still_where_the_clock_is_paused() {
        Tick::look_for_pause();
        let begun = Tick::now();
        let clock = std::time::Instant::now();
        while clock.elapsed() < Duration::from_millis(2) {}
        assert_eq!(Tick::now(), begun);
        tokio::time::advance(Duration::from_millis(70)).await;
        assert_eq!(Tick::now().since(begun), Duration::from_millis(70));
    }
}
