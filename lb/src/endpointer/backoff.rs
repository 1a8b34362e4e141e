//! Pauses between dials, with full jitter, so that many clients of one restarted server do not return in step.

use std::time::Duration;

/// The first and the largest bound of a pause.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) most: Duration,
}

impl Backoff {
    /// The least bound of a pause.
    pub(crate) const LEAST: Duration = Duration::from_millis(1);

    /// The pause after so many failures in a row, 1 at least: anything between nothing and a bound that
    /// doubles.
    pub(crate) fn pause(&self, failures: u32, rng: &mut fastrand::Rng) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        self.first.saturating_mul(1 << doublings).min(self.most).mul_f64(rng.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_its_cap() {
        let backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(5) };
        let mut rng = fastrand::Rng::with_seed(7);
        let mut longest = Duration::ZERO;
        for failures in 1..200 {
            let pause = backoff.pause(failures, &mut rng);
            assert!(
                pause <= Duration::from_millis(100).saturating_mul(1 << (failures - 1).min(16)),
                "{pause:?}"
            );
            longest = longest.max(pause);
        }
        assert!((Duration::from_secs(4)..=Duration::from_secs(5)).contains(&longest), "{longest:?}");
    }
}
