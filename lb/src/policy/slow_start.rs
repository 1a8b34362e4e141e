//! [`SlowStart`]: spares instances that have just come.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Choice, Members, Policy, draw};
use crate::clock::Tick;
use crate::ewma::Ewma;

/// Any policy, but an instance that has just become ready gets a growing part of what is due to it, until it has been
/// there for a while: Envoy's slow start. Its caches are cold, and it would else get as much as everybody at once,
/// or, as it has nothing in flight, more.
///
/// After time `t` of a `window` it gets `max(0.1, (t / window)^(1 / aggression))` of its share: of the calls that the
/// policy gives it the others go elsewhere. Where everything is new, as at the start of a client, nothing is spared.
/// Not for policies that hash: keys would go to and fro.
///
/// ```
/// # use std::time::Duration;
/// use callsign_lb::{P3cEwma, SlowStart};
/// let policy = SlowStart::new(P3cEwma::default(), Duration::from_secs(30));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct SlowStart<P> {
    policy: P,
    window: Duration,
    aggression: f64,
}

/// What the newest instance gets at least: Envoy's `min_weight_percent`.
const LEAST: f64 = 0.1;
/// How often a call is sent elsewhere at most.
const MOVES: usize = 4;

impl<P> SlowStart<P> {
    /// A policy that spares instances for so long.
    #[must_use]
    pub fn new(policy: P, window: Duration) -> Self {
        Self { policy, window, aggression: 1.0 }
    }

    /// How fast their share grows: 1, the default, evenly; more, faster at first. From 0.01 to 100.
    #[must_use]
    pub fn aggression(mut self, aggression: f64) -> Self {
        self.aggression = if aggression.is_nan() { 1.0 } else { aggression.clamp(0.01, 100.0) };
        self
    }

    /// The part of its share that an instance gets that came at `since`.
    fn part(&self, since: Tick, now: Tick) -> f64 {
        let passed = now.since(since).as_secs_f64() / self.window.as_secs_f64();
        // Also where the window is none.
        if passed < 1.0 { passed.powf(1.0 / self.aggression).max(LEAST) } else { 1.0 }
    }
}

/// What [`SlowStart`] knows of a ready set.
#[derive(Debug)]
pub struct SlowStartTable<T> {
    table: T,
    /// When each member came, by its number; `None`: there from the start.
    since: Vec<Option<Tick>>,
    /// The same by its statistics, of which there are one for each instance, whatever set it is in.
    known: HashMap<usize, Option<Tick>>,
    /// When the last one has had its time; `None` where all have.
    until: Option<Tick>,
}

/// What a handle of [`SlowStart`] carries.
#[derive(Debug)]
pub struct SlowStartLocal<L> {
    local: L,
    rng: fastrand::Rng,
}

impl<P: Policy> Policy for SlowStart<P> {
    type Table = SlowStartTable<P::Table>;
    type Local = SlowStartLocal<P::Local>;

    fn build(&self, members: &Members<'_, Self::Table>) -> Self::Table {
        let (now, before) = (members.now(), members.before());
        let known_before = |id: &usize| before.and_then(|before| before.known.get(id));
        let ids: Vec<usize> = members.iter().map(|member| Arc::as_ptr(member.stats) as usize).collect();
        let all_new = !ids.iter().any(|id| known_before(id).is_some());
        let since = ids.iter().map(|id| match known_before(id) {
            Some(since) => *since,
            None if all_new => None,
            None => Some(now),
        });
        let since: Vec<Option<Tick>> = since.collect();
        let until = since.iter().flatten().max().map(|last| last.after(self.window));
        let table = before.map(|before| &before.table);
        Self::Table {
            table: self.policy.build(&members.with_before(table)),
            known: ids.into_iter().zip(since.iter().copied()).collect(),
            since,
            until,
        }
    }

    fn local(&self, seed: u64) -> Self::Local {
        SlowStartLocal { local: self.policy.local(seed), rng: draw::rng(!seed) }
    }

    fn ewma(&self) -> Option<Ewma> {
        self.policy.ewma()
    }

    fn pick(&self, table: &Self::Table, local: &mut Self::Local, choice: &Choice<'_>) -> Option<usize> {
        let first = self.policy.pick(&table.table, &mut local.local, choice)?;
        let Some(until) = table.until else { return Some(first) };
        let now = choice.now();
        if now >= until {
            return Some(first);
        }
        let (mut call, mut index) = (choice.call.clone(), first);
        for _ in 0..MOVES {
            let spared = table.since.get(index).copied().flatten();
            let Some(since) = spared else { return Some(index) };
            if local.rng.f64() < self.part(since, now) {
                return Some(index);
            }
            call.avoid_number(*choice.numbers.get(index)?);
            let elsewhere = Choice { call: &call, now: Some(now), ..*choice };
            // From anywhere: where handles make a single call each, the next one after it would get all that it does not.
            let mut anywhere = self.policy.local(local.rng.u64(..));
            match self.policy.pick(&table.table, &mut anywhere, &elsewhere) {
                // What is avoided here may have pushed out of the call's memory what it has tried.
                Some(other) if choice.allows(other) => index = other,
                _ => break,
            }
        }
        // Only new ones are left: better one of them than none.
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{instance, keeps_the_contract};
    use super::super::{Member, P2cPending, P3cEwma, Random, RoundRobin, WeightedRoundRobin};
    use super::*;
    use crate::call::Call;
    use crate::stats::Stats;

    const WINDOW: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Tick {
        Tick::at(Duration::from_secs(seconds))
    }

    /// The share of the last of four members at some moments, when it joined the others at 100 s.
    fn shares<P: Policy>(policy: &SlowStart<P>, moments: &[u64]) -> Vec<f64> {
        let instances: Vec<_> = (0..4).map(|number| instance(number, 1)).collect();
        let stats: Vec<_> = (0..4).map(|_| Arc::new(Stats::default())).collect();
        let members: Vec<_> = instances.iter().zip(&stats).map(|(i, s)| Member::new(i, s)).collect();
        let first = policy.build(&Members::new(&members[..3], None).at(at(0)));
        let second = policy.build(&Members::new(&members, Some(&first)).at(at(100)));
        // Rebuilt for another reason meanwhile.
        let third = policy.build(&Members::new(&members, Some(&second)).at(at(101)));
        let (mut local, call) = (policy.local(5), Call::new());
        let share = |&moment: &u64| {
            let choice = Choice::new(&[0, 1, 2, 3], &call).at(at(moment));
            let picks = (0..40_000).map(|_| policy.pick(&third, &mut local, &choice).unwrap());
            picks.filter(|&index| index == 3).count() as f64 / 40_000.0
        };
        moments.iter().map(share).collect()
    }

    #[test]
    fn keeps_to_the_contract() {
        keeps_the_contract(&SlowStart::new(RoundRobin::default(), WINDOW));
        keeps_the_contract(&SlowStart::new(P3cEwma::default(), Duration::ZERO));
        keeps_the_contract(&SlowStart::new(WeightedRoundRobin::default(), WINDOW).aggression(f64::NAN));
    }

    #[test]
    fn a_new_instance_gets_its_share_by_and_by() {
        let even = SlowStart::new(Random::default(), WINDOW);
        // Of a quarter: a tenth, a half, all. Others than these get what it does not.
        for (share, part) in shares(&even, &[100, 105, 110, 200]).iter().zip([0.1, 0.5, 1.0, 1.0]) {
            assert!((share - 0.25 * part).abs() < 0.01, "{share} {part}");
        }
        let share = shares(&even.aggression(2.0), &[102])[0];
        assert!((share - 0.25 * 0.2_f64.sqrt()).abs() < 0.01, "{share}");
        let pending = shares(&SlowStart::new(P2cPending::default(), WINDOW), &[101, 110]);
        assert!(pending[0] < 0.04 && pending[1] > 0.23, "{pending:?}");
    }

    /// What a new one is spared is not the next one's alone, whose handles make a single call each.
    #[test]
    fn what_one_is_spared_is_shared_out() {
        fn counts<P: Policy>(policy: &SlowStart<P>) -> [u32; 4] {
            let instances: Vec<_> = (0..4).map(|number| instance(number, 1)).collect();
            let stats: Vec<_> = (0..4).map(|_| Arc::new(Stats::default())).collect();
            let members: Vec<_> = instances.iter().zip(&stats).map(|(i, s)| Member::new(i, s)).collect();
            let first = policy.build(&Members::new(&members[..3], None).at(at(0)));
            let table = policy.build(&Members::new(&members, Some(&first)).at(at(100)));
            let (mut counts, call) = ([0; 4], Call::new());
            let choice = Choice::new(&[0, 1, 2, 3], &call).at(at(100));
            for seed in 0..4_000 {
                counts[policy.pick(&table, &mut policy.local(seed), &choice).unwrap()] += 1;
            }
            counts
        }
        for counts in [
            counts(&SlowStart::new(RoundRobin::default(), WINDOW)),
            counts(&SlowStart::new(WeightedRoundRobin::default(), WINDOW)),
        ] {
            let even = counts[..3].iter().all(|count| (1_200..=1_400).contains(count));
            assert!(even && (60..=140).contains(&counts[3]), "{counts:?}");
        }
    }

    #[test]
    fn where_all_are_new_none_is_spared() {
        let policy = SlowStart::new(RoundRobin::default(), WINDOW);
        let (instance, stats) = (instance(1, 1), Arc::new(Stats::default()));
        let table = policy.build(&Members::new(&[Member::new(&instance, &stats)], None));
        assert!(table.until.is_none());
        let other = Arc::new(Stats::default());
        let table = policy.build(&Members::new(&[Member::new(&instance, &other)], Some(&table)));
        assert!(table.until.is_none());
    }
}
