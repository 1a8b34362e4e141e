//! [`Ewma`]: how latencies become one number.

use std::time::Duration;

/// A new latency counts for this much at least, so that an average follows under any rate of calls.
const LEAST_SHARE: f32 = 0.1;
/// Up to which `age / tau` that is so: `-ln(1 - LEAST_SHARE)`.
const LEAST_AGE: f32 = 0.105_360_52;
/// What a failure counts as where the call had no deadline, in seconds.
pub(crate) const PENALTY: f32 = 1.0;

/// The rule by which an exponentially weighted moving average of latencies is kept.
///
/// A latency counts for `1 - e^(-age/tau)`, where `age` is how long ago the one before it came, and for a tenth at
/// least. A failed call counts as one that took until its deadline (1 s if it had none), and never lowers the
/// average: an instance that fails at once must not look fast. An average that nothing renews is read as `average *
/// e^(-age/tau)`, so that an instance which was slow once is tried again.
///
/// In [`peak`](Self::peak) mode a latency above the average replaces it, and one below counts by its age alone: the
/// "Peak EWMA" of Finagle and linkerd.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ewma {
    /// 1 / tau, a second each: a product is cheaper than a quotient.
    rate: f32,
    peak: bool,
}

impl Default for Ewma {
    /// With a `tau` of 5 s.
    fn default() -> Self {
        Self { rate: 1.0 / 5.0, peak: false }
    }
}

impl Ewma {
    /// The rule of Finagle and linkerd, with their `tau` of 10 s.
    #[must_use]
    pub fn peak() -> Self {
        Self { rate: 1.0 / 10.0, peak: true }
    }

    /// The same with another `tau`, 1 ms at least: how fast what was measured is forgotten.
    #[must_use]
    pub fn tau(mut self, tau: Duration) -> Self {
        self.rate = 1.0 / tau.as_secs_f32().max(0.001);
        self
    }

    /// The average after another latency, `age` seconds after the one before.
    #[inline]
    pub(crate) fn after(&self, average: f32, latency: f32, age: f32) -> f32 {
        if self.peak && latency > average {
            return latency;
        }
        let x = age * self.rate;
        // Where it counts for the least share in any case, as under all but few calls, nothing has to be worked out.
        let share = if !self.peak && x < LEAST_AGE { LEAST_SHARE } else { 1.0 - 1.0 / growth(x) };
        average + (latency - average) * share
    }

    /// The average as it is read `age` seconds after it was renewed.
    #[inline]
    pub(crate) fn aged(&self, average: f32, age: f32) -> f32 {
        let x = age * self.rate;
        // A hundredth is less than an average is good for, and under all but few calls it is not reached.
        if x < 0.01 { average } else { average / growth(x) }
    }
}

/// `e^x` for x from 0, by a polynomial: a pick reads three averages, and `exp` would cost more than all the rest of it.
/// Within 2 % up to x = 2.5 and 17 % up to x = 5; beyond 60 it stays, far above everything it is compared with.
#[inline]
fn growth(x: f32) -> f32 {
    let y = x.clamp(0.0, 60.0) * 0.25;
    let quarter = 1.0 + y * (1.0 + y * (0.5 + y * (1.0 / 6.0)));
    let half = quarter * quarter;
    half * half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_near_the_exponential() {
        for (x, within) in [(0.0, 0.0), (0.1, 0.001), (1.0, 0.001), (2.5, 0.02), (5.0, 0.17)] {
            let exact = f32::exp(x);
            assert!((exact / growth(x) - 1.0).abs() <= within, "{x}: {exact} {}", growth(x));
        }
        assert!(growth(f32::MAX).is_finite() && growth(59.0) < growth(61.0));
    }

    #[test]
    fn follows_latencies_by_their_age() {
        let rule = Ewma::default();
        // At once: a tenth. After tau: 1 - 1/e.
        assert!((rule.after(0.100, 0.200, 0.0) - 0.110).abs() < 1e-5);
        assert!((rule.after(0.100, 0.200, 5.0) - 0.1632).abs() < 1e-3);
        assert!((rule.aged(0.100, 5.0) - 0.0368).abs() < 1e-3);
        // Where the age begins to count, it counts for what it is.
        assert!(rule.aged(0.100, 0.049) == 0.100 && (rule.aged(0.100, 0.051) - 0.0990).abs() < 1e-4);
    }

    #[test]
    fn peak_jumps_up_and_comes_down_slowly() {
        let rule = Ewma::peak();
        assert_eq!(rule.after(0.100, 0.200, 0.0), 0.200);
        assert_eq!(rule.after(0.200, 0.100, 0.0), 0.200);
        assert!((rule.after(0.200, 0.100, 10.0) - 0.1368).abs() < 1e-3);
        let quick = rule.tau(Duration::from_secs(1));
        assert!(quick.after(0.200, 0.100, 1.0) < 0.14);
    }
}
