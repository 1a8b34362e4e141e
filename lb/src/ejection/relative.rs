//! [`Relative`]: leaves out who fails more than the others, as soon as that is sure enough. The default rule.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Comparison;
use crate::clock::{FOR_EVER, later};
use crate::gate::Opening;
use crate::stats::Stats;

/// The least share of failures that others are taken to have: nobody is perfect.
const FLOOR: f64 = 0.01;
/// How much worse than the others one must be: in share, in standard deviations, and in failures.
const WORSE: f64 = 0.2;
const DEVIATIONS: f64 = 6.0;
const LEAST: u32 = 3;
/// How many calls there must be, and how many failures in a row are enough.
const ENOUGH: u32 = 5;
/// How likely it may be at most that as many fail in a row by bad luck.
const LUCK: f64 = 3e-6;

/// How long an answer must go on, once it has begun, for its instance to be back before its end.
const GOES_ON: Duration = Duration::from_secs(1);

/// What is known of others: how many of their last calls failed, and how many there were.
#[derive(Debug, Clone, Copy)]
struct Others {
    failed: u64,
    seen: u64,
}

impl Others {
    /// The share that fails, at most, as far as that can be told from some hundred calls: Wilson's upper bound at
    /// so many standard deviations.
    fn share(self, deviations: f64) -> f64 {
        let (failed, seen, square) = (self.failed as f64, self.seen as f64, deviations * deviations);
        let spread = (failed * (seen - failed) / seen.max(1.0) + square / 4.0).sqrt();
        ((failed + square / 2.0 + deviations * spread) / (seen + square)).max(FLOOR)
    }
}

/// What has become of a member that was ejected once.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// Called as all others, since then.
    In(Instant),
    /// Not called until then.
    Out(Instant),
    /// One call is let through, or under way.
    Probed,
    /// Its answer has begun, and may go on for hours: that will do then.
    Answered(Instant),
}

#[derive(Debug)]
struct Entry {
    stats: Arc<Stats>,
    state: State,
    /// How often in a row it was ejected.
    times: u32,
}

/// Decides who is left out by comparing each with the others. Members are told apart by a number.
#[derive(Debug)]
pub(crate) struct Relative {
    rule: Comparison,
    rng: fastrand::Rng,
    entries: HashMap<u64, Entry>,
}

impl Relative {
    pub(super) fn new(rule: Comparison, rng: fastrand::Rng) -> Self {
        Self { rule, rng, entries: HashMap::new() }
    }

    /// Whether a member is not to be in the ready set.
    pub(super) fn is_out(&self, number: u64) -> bool {
        // Mostly there are none, and then nothing is to be hashed.
        !self.entries.is_empty()
            && self.entries.get(&number).is_some_and(|entry| matches!(entry.state, State::Out(_)))
    }

    /// Whether nobody was left out, of those that are there.
    pub(super) fn is_idle(&self) -> bool {
        self.entries.is_empty()
    }

    /// When somebody's time is over next.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let until = self.entries.values().filter_map(|entry| match entry.state {
            State::Out(until) | State::Answered(until) => Some(until),
            State::In(_) | State::Probed => None,
        });
        until.min()
    }

    /// Looks at all that could be called: who comes back, who goes.
    pub(super) fn judge(&mut self, pool: &[(u64, Arc<Stats>)], now: Instant) {
        let present: HashSet<u64> = pool.iter().map(|(number, _)| *number).collect();
        self.entries.retain(|number, entry| {
            let stays = present.contains(number);
            if !stays {
                // It may be back, and then it is new.
                entry.stats.gate().set(Opening::Open);
            }
            stays
        });
        self.readmit(now);
        let mut inside = pool.len() - self.outside();
        if (inside as f64) < self.rule.panic * pool.len() as f64 {
            for entry in self.entries.values_mut().filter(|entry| !matches!(entry.state, State::In(_))) {
                entry.let_in(now);
            }
            return;
        }
        let least = pool.len() - (self.rule.most * pool.len() as f64) as usize;
        while inside > least.max(1) {
            let Some(worst) = self.worst(pool) else { break };
            self.eject(worst, pool, now);
            inside -= 1;
        }
    }

    /// Those whose time is over are probed, those whose probe has ended are in or out.
    fn readmit(&mut self, now: Instant) {
        let (rule, rng) = (self.rule, &mut self.rng);
        for entry in self.entries.values_mut() {
            match (entry.state, entry.stats.gate().opening()) {
                (State::Out(until), _) if until <= now => {
                    entry.stats.gate().set(Opening::Probe);
                    entry.state = State::Probed;
                }
                (State::Probed | State::Answered(_), Opening::Passed) => entry.let_in(now),
                (State::Probed | State::Answered(_), Opening::Failed) => entry.shut(&rule, rng, now),
                (State::Probed, Opening::Answered) => entry.state = State::Answered(now + GOES_ON),
                (State::Answered(until), Opening::Answered) if until <= now => entry.let_in(now),
                (State::Answered(_), Opening::Probe | Opening::Probing) => entry.state = State::Probed,
                _ => {}
            }
        }
    }

    /// How many are not called as all others are.
    fn outside(&self) -> usize {
        self.entries.values().filter(|entry| !matches!(entry.state, State::In(_))).count()
    }

    fn is_in(&self, number: u64) -> bool {
        self.entries.get(&number).is_none_or(|entry| matches!(entry.state, State::In(_)))
    }

    /// The one with the most failures for its calls of those that are to go.
    fn worst(&self, pool: &[(u64, Arc<Stats>)]) -> Option<usize> {
        let inside = || pool.iter().enumerate().filter(|(_, (number, _))| self.is_in(*number));
        let (failed, seen) = inside().fold((0, 0), |(failed, seen), (_, (_, stats))| {
            let (f, n) = stats.outcomes();
            (failed + u64::from(f), seen + u64::from(n))
        });
        let guilty = inside().filter_map(|(index, (_, stats))| {
            let (f, n) = stats.outcomes();
            let others = Others { failed: failed - u64::from(f), seen: seen - u64::from(n) };
            fails(f, n, stats.failed_in_a_row(), others).then(|| (index, f64::from(f) / f64::from(n)))
        });
        guilty.reduce(|a, b| if b.1 > a.1 { b } else { a }).map(|(index, _)| index)
    }

    fn eject(&mut self, index: usize, pool: &[(u64, Arc<Stats>)], now: Instant) {
        let (number, stats) = &pool[index];
        let entry = self.entries.entry(*number).or_insert_with(|| Entry {
            stats: Arc::clone(stats),
            state: State::In(now),
            times: 0,
        });
        if let State::In(since) = entry.state
            && now.saturating_duration_since(since) > self.rule.longest
        {
            entry.times = 0;
        }
        entry.shut(&self.rule, &mut self.rng, now);
    }
}

impl Entry {
    fn let_in(&mut self, now: Instant) {
        self.stats.forgive();
        self.stats.gate().set(Opening::Open);
        self.state = State::In(now);
    }

    fn shut(&mut self, rule: &Comparison, rng: &mut fastrand::Rng, now: Instant) {
        let time = rule.first.saturating_mul(1 << self.times.min(16)).min(rule.longest).min(FOR_EVER);
        self.times = self.times.saturating_add(1);
        // Clients that saw the same failures must not come back in step.
        self.state = State::Out(later(now, time.mul_f64(0.9 + 0.2 * rng.f64())));
        self.stats.gate().set(Opening::Shut);
    }
}

/// Whether `failed` of `seen` calls are too many, `in_a_row` of them the last ones.
fn fails(failed: u32, seen: u32, in_a_row: u32, others: Others) -> bool {
    if in_a_row >= ENOUGH {
        let share = others.share(1.0);
        if share < WORSE && share.powf(f64::from(in_a_row)) < LUCK {
            return true;
        }
    }
    if failed < LEAST || seen < ENOUGH {
        return false;
    }
    // Were the others' share taken as it was measured, it would be too low by luck as often as too high.
    let (seen, share) = (f64::from(seen), others.share(1.5));
    let more = f64::from(failed) / seen - share;
    more > WORSE && more > DEVIATIONS * (share * (1.0 - share) / seen).sqrt()
}

/// Whether it is worth asking an [`Relative`] about an instance. Its answer depends on the others.
pub(crate) fn is_suspect(failed: u32, seen: u32, in_a_row: u32) -> bool {
    fails(failed, seen, in_a_row, Others { failed: 0, seen: u64::MAX })
}

#[cfg(test)]
#[path = "relative_tests.rs"]
mod tests;
