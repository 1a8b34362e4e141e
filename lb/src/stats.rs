//! [`Stats`]: what is known of the calls to one instance.

use std::time::Duration;

use crate::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::clock::Tick;
use crate::ewma::{Ewma, PENALTY};
use crate::gate::Gate;

/// What became of a call, as far as it says something about the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The instance did its part, also if it answered that the question was wrong.
    Success,
    /// The instance failed: it could not be reached, was overloaded, broke down, or gave no answer in time.
    Failure,
}

/// What is known of the calls to one instance. It outlives rebuilds of the ready set and new connections: it
/// ends when the instance leaves, or moves to another address.
// A cache line of its own, so that calls to different instances do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Stats {
    /// How many calls are in flight in the lower half; the last outcomes in the upper: a bit each, 1 for a failure,
    /// behind a 1 that says where they begin. Together, so that the end of a call and its outcome are one step.
    calls: AtomicU64,
    /// The average latency, an f32 of seconds, in the upper half; when it was renewed, in milliseconds, in the lower.
    /// 0: nothing was measured yet.
    latency: AtomicU64,
    /// The number of the last endpoint of the instance that is of no more use; those before it are of none either.
    cut: AtomicU64,
    /// How calls ended since it was taken last: failures in the upper half, successes in the lower. Only if it is wanted.
    tally: AtomicU64,
    counts: AtomicBool,
    gate: Gate,
}

/// How many calls ended well, and how many did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
}

impl Tally {
    pub(crate) fn calls(self) -> u64 {
        self.succeeded + self.failed
    }
}

impl Stats {
    /// How many calls to the instance have begun and not ended.
    #[must_use]
    #[inline]
    pub fn in_flight(&self) -> u32 {
        lower(self.calls.load(Ordering::Relaxed))
    }

    /// The average latency as it is at a moment, by the rule that it is kept by; `None` before the first one. Only
    /// balancers whose [policy](crate::Policy::ewma) wants it measure it.
    #[must_use]
    pub fn latency(&self, rule: &Ewma, now: Tick) -> Option<Duration> {
        Duration::try_from_secs_f32(self.expected(rule, now)?).ok()
    }

    /// The same in seconds.
    #[inline]
    pub(crate) fn expected(&self, rule: &Ewma, now: Tick) -> Option<f32> {
        let (average, at) = unpack(self.latency.load(Ordering::Relaxed))?;
        Some(rule.aged(average, age(now, at)))
    }

    /// The last outcomes that were reported: how many of them failed, and how many there are, 30 at most.
    #[must_use]
    pub fn outcomes(&self) -> (u32, u32) {
        let outcomes = upper(self.calls.load(Ordering::Relaxed)).max(1);
        let count = outcomes.ilog2();
        ((outcomes ^ 1 << count).count_ones(), count)
    }

    /// How many of the last outcomes, up to now, were failures with none between.
    pub(crate) fn failed_in_a_row(&self) -> u32 {
        let outcomes = upper(self.calls.load(Ordering::Relaxed)).max(1);
        outcomes.trailing_ones().min(outcomes.ilog2())
    }

    /// Whether calls are let through.
    #[inline]
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Notes that an endpoint is of no more use. Returns whether that is news.
    pub(crate) fn cut(&self, endpoint: u64) -> bool {
        self.cut.fetch_max(endpoint, Ordering::AcqRel) < endpoint
    }

    /// Whether an endpoint is of no more use.
    #[inline]
    pub(crate) fn is_cut(&self, endpoint: u64) -> bool {
        self.cut.load(Ordering::Acquire) >= endpoint
    }

    /// Forgets all outcomes.
    pub(crate) fn forgive(&self) {
        self.calls.fetch_and(LOWER, Ordering::Relaxed);
    }

    /// Notes that a call begins. A [`Balancer`](crate::Balancer) does; this is for testing a policy.
    #[inline]
    pub fn begin(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a call ended that [began](Self::begin), and what became of it, if that is known.
    #[inline]
    pub fn end(&self, outcome: Option<Outcome>) {
        match outcome {
            None => {
                self.calls.fetch_sub(1, Ordering::Relaxed);
            }
            Some(outcome) => {
                update(&self.calls, |calls| judged(calls, outcome) - 1);
                self.tell(outcome);
            }
        }
    }

    /// Notes what became of a call that ends by itself.
    pub(crate) fn judge(&self, outcome: Outcome) {
        update(&self.calls, |calls| judged(calls, outcome));
        self.tell(outcome);
    }

    #[inline]
    fn tell(&self, outcome: Outcome) {
        if self.counts.load(Ordering::Relaxed) {
            let one = if outcome == Outcome::Failure { 1 << 32 } else { 1 };
            self.tally.fetch_add(one, Ordering::Relaxed);
        }
    }

    /// Counts calls from now on, beside the last outcomes.
    pub(crate) fn count(&self) {
        self.counts.store(true, Ordering::Relaxed);
    }

    /// How calls ended since it was taken last.
    pub(crate) fn take_tally(&self) -> Tally {
        let tally = self.tally.swap(0, Ordering::Relaxed);
        Tally { succeeded: lower(tally).into(), failed: upper(tally).into() }
    }

    /// Takes the latency of a call that ended now into the average, by `rule`. Where it failed, `allowed` is how long
    /// it might have taken; 1 s if it might have taken for ever.
    pub fn measure(
        &self,
        rule: &Ewma,
        now: Tick,
        latency: Duration,
        outcome: Outcome,
        allowed: Option<Duration>,
    ) {
        self.learn(rule, now, latency.as_secs_f32(), outcome, allowed.map(|allowed| allowed.as_secs_f32()));
    }

    /// The same in seconds.
    #[inline]
    pub(crate) fn learn(&self, rule: &Ewma, now: Tick, latency: f32, outcome: Outcome, allowed: Option<f32>) {
        let failed = outcome == Outcome::Failure;
        let latency = if failed { latency.max(allowed.unwrap_or(PENALTY)) } else { latency };
        // An average of 0 would be picked whatever is in flight.
        let latency = latency.max(1e-9);
        let packed = self.latency.load(Ordering::Relaxed);
        let average = match unpack(packed) {
            None => latency,
            Some((average, _)) if failed => average.max(latency),
            Some((average, at)) => rule.after(average, latency, age(now, at)),
        };
        // Of two calls that end in the same nanoseconds one is not averaged: not worth what an exchange costs.
        let packed = u64::from(average.to_bits()) << 32 | u64::from(now.millis());
        self.latency.store(packed, Ordering::Relaxed);
    }
}

const LOWER: u64 = 0xffff_ffff;

/// How many outcomes are remembered.
const REMEMBERED: u32 = 30;

/// The same with one more outcome.
#[inline]
fn judged(calls: u64, outcome: Outcome) -> u64 {
    let before = upper(calls).max(1);
    let next = before << 1 | u32::from(outcome == Outcome::Failure);
    let next = if before >> REMEMBERED == 0 { next } else { next & !(2 << REMEMBERED) | 1 << REMEMBERED };
    u64::from(next) << 32 | u64::from(lower(calls))
}

#[allow(clippy::cast_possible_truncation, reason = "the lower half is meant")]
#[inline]
fn lower(packed: u64) -> u32 {
    packed as u32
}

#[allow(clippy::cast_possible_truncation, reason = "32 bits are left")]
#[inline]
fn upper(packed: u64) -> u32 {
    (packed >> 32) as u32
}

#[inline]
fn unpack(packed: u64) -> Option<(f32, u32)> {
    (packed != 0).then(|| (f32::from_bits(upper(packed)), lower(packed)))
}

#[inline]
fn update(cell: &AtomicU64, mut next: impl FnMut(u64) -> u64) {
    // `next` never says no.
    let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| Some(next(before)));
}

/// Seconds since `at`. A thread may be a little behind another one: that is no time at all, and not 49 days.
#[inline]
#[allow(clippy::cast_precision_loss, reason = "seconds and minutes count, not milliseconds after days")]
fn age(now: Tick, at: u32) -> f32 {
    let millis = now.millis().wrapping_sub(at);
    if millis > u32::MAX - 60_000 { 0.0 } else { millis as f32 * 0.001 }
}
