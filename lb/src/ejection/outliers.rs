//! [`Outliers`]: gRPC's outlier detection (gRFC A50), which is Envoy's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::later;
use crate::gate::Opening;
use crate::stats::{Stats, Tally};

/// gRPC's outlier detection (gRFC A50): in intervals of 10 s it counts how the calls to each instance ended, and leaves
/// out
/// - by success rate: whose share of successes is below the average by more than 1.9 standard deviations, if five
///   instances or more had 100 calls each in the interval;
/// - by failure percentage: of whose calls more than 85 % failed, if five instances or more had 50 calls each.
///
/// One is out for 30 s, longer by as much each time up to 300 s, and for a shorter time again for each interval that it
/// is in. At most a tenth are out, and one in any case; unlike gRPC's, it never leaves out the last one, and lets all in
/// when only such as are out are left. Settings are clamped to what makes sense, not refused.
///
/// It takes hundreds of calls in an interval to find anything: the default rule of [`Ejection`](super::Ejection) is for
/// clients that make fewer.
#[derive(Debug, Clone, Copy)]
pub struct OutlierDetection {
    interval: Duration,
    first: Duration,
    longest: Duration,
    most: f64,
    success: Option<SuccessRate>,
    failure: Option<FailurePercentage>,
}

#[derive(Debug, Clone, Copy)]
struct SuccessRate {
    /// In standard deviations.
    below: f64,
    enforced: u32,
    hosts: usize,
    calls: u64,
}

#[derive(Debug, Clone, Copy)]
struct FailurePercentage {
    above: f64,
    enforced: u32,
    hosts: usize,
    calls: u64,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            first: Duration::from_secs(30),
            longest: Duration::from_secs(300),
            most: 0.1,
            success: Some(SuccessRate { below: 1.9, enforced: 100, hosts: 5, calls: 100 }),
            failure: Some(FailurePercentage { above: 0.85, enforced: 100, hosts: 5, calls: 50 }),
        }
    }
}

impl OutlierDetection {
    /// How long calls are counted, 1 ms at least; 10 s. gRPC's `interval`.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(Duration::from_millis(1));
        self
    }

    /// For how long one is out the first time, and at most; 30 s and 300 s. gRPC's `base_ejection_time` and
    /// `max_ejection_time`.
    #[must_use]
    pub fn time(mut self, first: Duration, longest: Duration) -> Self {
        (self.first, self.longest) = (first, longest.max(first));
        self
    }

    /// Which share of the instances may be out before no more go, from 0 to 1; a tenth. gRPC's `max_ejection_percent`,
    /// of a hundred.
    #[must_use]
    pub fn most(mut self, share: f64) -> Self {
        self.most = share.clamp(0.0, 1.0);
        self
    }

    /// By how many thousandths of a standard deviation the share of successes must be below the average, and how many
    /// instances must have had how many calls; 1,900, 5 and 100. gRPC's `stdev_factor`, `minimum_hosts` and
    /// `request_volume`.
    #[must_use]
    pub fn success_rate(mut self, stdev_factor: u32, hosts: usize, calls: u64) -> Self {
        let enforced = self.success.map_or(100, |rule| rule.enforced);
        self.success = Some(SuccessRate { below: f64::from(stdev_factor) / 1000.0, enforced, hosts, calls });
        self
    }

    /// Of how many of a hundred calls more must have failed, and how many instances must have had how many calls; 85, 5
    /// and 50. gRPC's `threshold`, `minimum_hosts` and `request_volume`.
    #[must_use]
    pub fn failure_percentage(mut self, threshold: u32, hosts: usize, calls: u64) -> Self {
        let enforced = self.failure.map_or(100, |rule| rule.enforced);
        let above = f64::from(threshold) / 100.0;
        self.failure = Some(FailurePercentage { above, enforced, hosts, calls });
        self
    }

    /// Which percentage of those that are to go by success rate and by failure percentage really go; 100 and 100, and
    /// with 0 that part is off. gRPC's `enforcement_percentage` of each.
    #[must_use]
    pub fn enforced(mut self, success_rate: u32, failure_percentage: u32) -> Self {
        self.success = self.success.map(|rule| SuccessRate { enforced: success_rate, ..rule });
        self.failure = self.failure.map(|rule| FailurePercentage { enforced: failure_percentage, ..rule });
        self
    }
}

#[derive(Debug)]
struct Entry {
    stats: Arc<Stats>,
    /// When it was left out, if it is.
    out: Option<Instant>,
    multiplier: u32,
    /// How its calls of the last interval ended.
    counted: Tally,
}

impl Entry {
    fn rate(&self) -> f64 {
        self.counted.succeeded as f64 / self.counted.calls() as f64
    }
}

/// Decides who is left out, once in each interval.
#[derive(Debug)]
pub(crate) struct Outliers {
    rule: OutlierDetection,
    rng: fastrand::Rng,
    entries: HashMap<u64, Entry>,
    /// When the interval ends.
    sweep: Option<Instant>,
}

impl Outliers {
    pub(super) fn new(rule: OutlierDetection, rng: fastrand::Rng) -> Self {
        Self { rule, rng, entries: HashMap::new(), sweep: None }
    }

    pub(super) fn is_out(&self, number: u64) -> bool {
        self.entries.get(&number).is_some_and(|entry| entry.out.is_some())
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.sweep
    }

    /// Takes the members in, and decides if the interval is over.
    pub(super) fn judge(&mut self, pool: &[(u64, Arc<Stats>)], now: Instant) {
        self.follow(pool);
        let sweep = *self.sweep.get_or_insert(later(now, self.rule.interval));
        if sweep <= now {
            self.sweep = Some(later(now, self.rule.interval));
            self.sweep(pool, now);
        }
        if self.outside() == pool.len() {
            for entry in self.entries.values_mut() {
                entry.out = None;
                entry.stats.gate().set(Opening::Open);
            }
        }
    }

    fn follow(&mut self, pool: &[(u64, Arc<Stats>)]) {
        let present: HashSet<u64> = pool.iter().map(|(number, _)| *number).collect();
        self.entries.retain(|number, entry| {
            let stays = present.contains(number);
            if !stays {
                // It may be back, and then it is new.
                entry.stats.gate().set(Opening::Open);
            }
            stays
        });
        for (number, stats) in pool {
            self.entries.entry(*number).or_insert_with(|| {
                stats.count();
                let counted = Tally::default();
                Entry { stats: Arc::clone(stats), out: None, multiplier: 0, counted }
            });
        }
    }

    fn sweep(&mut self, pool: &[(u64, Arc<Stats>)], now: Instant) {
        for entry in self.entries.values_mut() {
            entry.counted = entry.stats.take_tally();
        }
        if let Some(rule) = self.rule.success {
            self.by_success_rate(rule, pool, now);
        }
        if let Some(rule) = self.rule.failure {
            self.by_failure_percentage(rule, pool, now);
        }
        let (first, longest) = (self.rule.first, self.rule.longest);
        for entry in self.entries.values_mut() {
            match entry.out {
                None => entry.multiplier = entry.multiplier.saturating_sub(1),
                Some(since) => {
                    let time = first.saturating_mul(entry.multiplier).min(longest);
                    if now.saturating_duration_since(since) > time {
                        entry.out = None;
                        entry.stats.gate().set(Opening::Open);
                    }
                }
            }
        }
    }

    fn by_success_rate(&mut self, rule: SuccessRate, pool: &[(u64, Arc<Stats>)], now: Instant) {
        let rates = self.entries.values().filter(|entry| entry.counted.calls() >= rule.calls.max(1));
        let rates: Vec<f64> = rates.map(Entry::rate).collect();
        if rates.is_empty() || rates.len() < rule.hosts {
            return;
        }
        let mean = rates.iter().sum::<f64>() / rates.len() as f64;
        let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / rates.len() as f64;
        let least = mean - rule.below * variance.sqrt();
        self.eject(pool, now, rule.enforced, |entry| {
            entry.counted.calls() >= rule.calls.max(1) && entry.rate() < least
        });
    }

    fn by_failure_percentage(&mut self, rule: FailurePercentage, pool: &[(u64, Arc<Stats>)], now: Instant) {
        let enough = |entry: &Entry| entry.counted.calls() >= rule.calls.max(1);
        if self.entries.values().filter(|entry| enough(entry)).count() < rule.hosts {
            return;
        }
        self.eject(pool, now, rule.enforced, |entry| enough(entry) && 1.0 - entry.rate() > rule.above);
    }

    /// Leaves out, in the order of the pool, those of whom `goes` says so, as long as there may be more.
    fn eject(
        &mut self,
        pool: &[(u64, Arc<Stats>)],
        now: Instant,
        enforced: u32,
        goes: impl Fn(&Entry) -> bool,
    ) {
        let mut outside = self.outside();
        for (number, _) in pool {
            if outside as f64 >= self.rule.most * pool.len() as f64 || outside + 1 >= pool.len() {
                return;
            }
            let Some(entry) = self.entries.get_mut(number).filter(|entry| entry.out.is_none()) else {
                continue;
            };
            if goes(entry) && self.rng.u32(..100) < enforced {
                entry.out = Some(now);
                entry.multiplier = entry.multiplier.saturating_add(1);
                entry.stats.gate().set(Opening::Shut);
                outside += 1;
            }
        }
    }

    fn outside(&self) -> usize {
        self.entries.values().filter(|entry| entry.out.is_some()).count()
    }
}

#[cfg(test)]
#[path = "outliers_tests.rs"]
mod tests;
