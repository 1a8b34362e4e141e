//! [`Report`]: what became of the calls of a simulation.

use std::time::Duration;

/// What became of the calls, without those of the first two seconds, in which clients learn.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Report {
    /// How many there were.
    pub calls: u64,
    /// How many were answered with an error.
    pub errors: u64,
    /// How many had no answer within their second.
    pub timeouts: u64,
    /// How many found no server at all.
    pub unplaced: u64,
    /// How many were made while a server failed.
    pub while_failing: u64,
    /// How many of those went to it.
    pub to_failing: u64,
    /// Sorted; those that timed out took a second.
    latencies: Vec<Duration>,
}

impl Report {
    pub(crate) fn took(&mut self, latency: Duration) {
        self.latencies.push(latency);
    }

    pub(crate) fn finish(mut self) -> Self {
        self.latencies.sort_unstable();
        self
    }

    /// How long calls took, those that were answered with an error left out: `quantile` of them that or less.
    #[must_use]
    pub fn latency(&self, quantile: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last as f64 * quantile) as usize).copied().unwrap_or_default()
    }

    /// Which share of the calls that were made while a server failed went to it.
    #[must_use]
    pub fn failing_share(&self) -> f64 {
        share(self.to_failing, self.while_failing)
    }

    /// Which share of the calls was answered with an error.
    #[must_use]
    pub fn error_share(&self) -> f64 {
        share(self.errors + self.unplaced, self.calls)
    }

    /// Which share of the calls timed out.
    #[must_use]
    pub fn timeout_share(&self) -> f64 {
        share(self.timeouts, self.calls)
    }
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
