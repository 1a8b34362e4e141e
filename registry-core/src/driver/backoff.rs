//! [`Backoff`]: pauses between attempts, with full jitter, so that many clients do not return in step.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::ErrorKind;

/// After this long without a failure the next one starts from the shortest pause again.
const HEALTHY: Duration = Duration::from_secs(30);

/// The least mean pause after a quota or rate limit was hit: pressing on makes it worse.
const EXHAUSTED: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
    last_failure: Option<Instant>,
    rng: fastrand::Rng,
}

impl Backoff {
    pub(crate) fn new((first, most): (Duration, Duration), rng: fastrand::Rng) -> Self {
        Self { first, most, failures: 0, last_failure: None, rng }
    }

    /// The pause after a failure: anything between nothing and a bound that doubles.
    pub(crate) fn after(&mut self, kind: ErrorKind, now: Instant) -> Duration {
        if self.last_failure.is_some_and(|last| now.saturating_duration_since(last) > HEALTHY) {
            self.failures = 0;
        }
        self.last_failure = Some(now);
        let bound = self.first.saturating_mul(1 << self.failures.min(16)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        match kind {
            // Between 1 s and its own bound: its mean is above a second from the first failure on.
            ErrorKind::Exhausted => Duration::from_secs(1) + self.within(bound.max(EXHAUSTED)),
            _ => self.within(bound),
        }
    }

    /// Anything between nothing and `bound`.
    pub(crate) fn within(&mut self, bound: Duration) -> Duration {
        scaled(bound, self.rng.f64())
    }

    /// `period`, spread by a fifth to either side.
    pub(crate) fn spread(&mut self, period: Duration) -> Duration {
        scaled(period, 0.8 + 0.4 * self.rng.f64())
    }
}

/// Never more than there is: `Duration::MAX` says "never".
fn scaled(duration: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_its_cap_and_starts_over_when_healthy() {
        let mut backoff =
            Backoff::new((Duration::from_millis(100), Duration::from_secs(5)), fastrand::Rng::with_seed(7));
        let mut now = Instant::now();
        let mut longest = Duration::ZERO;
        for attempt in 0..200u32 {
            let pause = backoff.after(ErrorKind::Unavailable, now);
            let bound =
                Duration::from_millis(100).saturating_mul(1 << attempt.min(16)).min(Duration::from_secs(5));
            assert!(pause <= bound, "attempt {attempt}: {pause:?}");
            longest = longest.max(pause);
            now += pause;
        }
        assert!(longest > Duration::from_secs(4));
        now += Duration::from_secs(31);
        assert!(backoff.after(ErrorKind::Unavailable, now) <= Duration::from_millis(100));
    }

    #[test]
    fn never_is_no_overflow() {
        let mut backoff = Backoff::new((Duration::MAX, Duration::MAX), fastrand::Rng::with_seed(7));
        for _ in 0..50 {
            backoff.spread(Duration::MAX);
            backoff.after(ErrorKind::Timeout, Instant::now());
        }
    }

    #[test]
    fn quota_means_a_second_and_more() {
        let mut backoff =
            Backoff::new((Duration::from_millis(100), Duration::from_secs(5)), fastrand::Rng::with_seed(7));
        let now = Instant::now();
        assert!((0..50).all(|_| backoff.after(ErrorKind::Exhausted, now) >= Duration::from_secs(1)));
    }
}
