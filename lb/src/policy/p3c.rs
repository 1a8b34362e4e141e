//! [`P3cEwma`]: of three, the one that will answer soonest.

use std::sync::Arc;
use std::time::Duration;

use super::draw::Cost;
use super::weights::inverse;
use super::{Choice, Members, Policy, draw};
use crate::ewma::Ewma;
use crate::stats::Stats;

/// Draws three and takes the one with the least `latency * (in flight + 1) / weight`, where the latency is an average
/// by the rule of [`Ewma`]. One that has not answered yet is taken to be as fast as the fastest of the three.
///
/// Slow, failing and paused instances get next to no calls, and are tried again from time to time. The "Peak EWMA" of
/// Finagle and linkerd is the same with two, in [peak mode](Self::peak), and with a fixed guess for new ones; without
/// a penalty for failures it prefers an instance that fails at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct P3cEwma {
    rule: Ewma,
}

impl P3cEwma {
    /// By the rule of Finagle and linkerd, which jumps up to every latency above the average and has a `tau` of 10 s.
    #[must_use]
    pub fn peak() -> Self {
        Self { rule: Ewma::peak() }
    }

    /// How fast what was measured is forgotten; 5 s, and 10 s in peak mode.
    #[must_use]
    pub fn tau(mut self, tau: Duration) -> Self {
        self.rule = self.rule.tau(tau);
        self
    }
}

/// What [`P3cEwma`] knows of a ready set.
#[derive(Debug)]
pub struct P3cTable(Vec<(Arc<Stats>, f32)>);

impl Policy for P3cEwma {
    type Table = P3cTable;
    type Local = fastrand::Rng;

    fn build(&self, members: &Members<'_, P3cTable>) -> P3cTable {
        let inverse = inverse(members);
        P3cTable(members.iter().map(|member| Arc::clone(member.stats)).zip(inverse).collect())
    }

    fn local(&self, seed: u64) -> fastrand::Rng {
        draw::rng(seed)
    }

    fn ewma(&self) -> Option<Ewma> {
        Some(self.rule)
    }

    #[inline]
    #[allow(clippy::cast_precision_loss, reason = "what is in flight is far below 2^24")]
    fn pick(&self, table: &P3cTable, rng: &mut fastrand::Rng, choice: &Choice<'_>) -> Option<usize> {
        let now = choice.now();
        draw::least_of::<3>(choice, rng, |index| match table.0.get(index) {
            Some((stats, inverse)) => Cost {
                latency: stats.expected(&self.rule, now),
                factor: (stats.in_flight() + 1) as f32 * inverse,
            },
            None => Cost { latency: None, factor: f32::INFINITY },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BinaryHeap;

    use super::super::testing::{Scene, keeps_the_contract};
    use super::*;
    use crate::call::Call;
    use crate::clock::Tick;
    use crate::stats::Outcome;

    fn at(millis: u64) -> Tick {
        Tick::at(Duration::from_millis(millis))
    }

    #[test]
    fn keeps_to_the_contract() {
        keeps_the_contract(&P3cEwma::default());
        keeps_the_contract(&P3cEwma::peak().tau(Duration::ZERO));
    }

    /// How often each was called in `calls` calls, one begun each millisecond, where instance `n` answers after
    /// `answers(n)`: its latency in milliseconds, and what became of the call.
    fn run(scene: &mut Scene<P3cEwma>, calls: u64, answers: impl Fn(usize) -> (u64, Outcome)) -> Vec<usize> {
        let rule = scene.policy.rule;
        let mut ends = BinaryHeap::new();
        let mut counts = vec![0; scene.stats.len()];
        for now in 0..calls {
            while let Some(&(std::cmp::Reverse(end), index)) = ends.peek()
                && end <= now
            {
                ends.pop();
                let (latency, outcome) = answers(index);
                let stats: &Stats = &scene.stats[index];
                stats.end(None);
                stats.measure(&rule, at(end), Duration::from_millis(latency), outcome, None);
            }
            let call = Call::new();
            let choice = Choice::new(&scene.numbers, &call).at(at(now));
            let index = scene.policy.pick(&scene.table, &mut scene.local, &choice).unwrap();
            counts[index] += 1;
            scene.stats[index].begin();
            ends.push((std::cmp::Reverse(now + answers(index).0), index));
        }
        counts
    }

    /// Rust peers 6: an instance that fails at once draws no calls. Without a penalty it would get more than its 1,000.
    #[test]
    fn one_that_fails_at_once_gets_next_to_nothing() {
        let mut scene = Scene::new(P3cEwma::default(), &[1; 20]);
        let counts =
            run(
                &mut scene,
                20_000,
                |index| if index == 7 { (1, Outcome::Failure) } else { (10, Outcome::Success) },
            );
        assert!(counts[7] <= 100, "{counts:?}");
        assert!(counts[7] >= 1, "it is tried again from time to time: {counts:?}");
        let others = counts.iter().enumerate().filter(|(index, _)| *index != 7);
        assert!(others.clone().all(|(_, count)| (700..1_500).contains(count)), "{counts:?}");
    }

    /// Rust peers 11: a slow one gets less than its fair share of 2,000; here a tenth as fast as the others.
    #[test]
    fn a_slow_one_gets_less() {
        for policy in [P3cEwma::default(), P3cEwma::peak()] {
            let mut scene = Scene::new(policy, &[1; 10]);
            let counts =
                run(&mut scene, 20_000, |index| (if index == 2 { 200 } else { 20 }, Outcome::Success));
            assert!((1..400).contains(&counts[2]), "{counts:?}");
        }
    }

    /// One that does not answer at all has calls in flight, and gets few more.
    #[test]
    fn a_paused_one_gets_a_handful() {
        let mut scene = Scene::new(P3cEwma::default(), &[1; 10]);
        let counts =
            run(&mut scene, 10_000, |index| (if index == 2 { 1_000_000 } else { 10 }, Outcome::Success));
        assert!(counts[2] < 30, "{counts:?}");
    }

    #[test]
    fn weights_count() {
        let mut scene = Scene::new(P3cEwma::default(), &[1, 1, 4]);
        let counts = run(&mut scene, 30_000, |_| (50, Outcome::Success));
        // 50 in flight, shared out 1:1:4.
        assert!((18_000..22_000).contains(&counts[2]), "{counts:?}");
    }

    /// A service that answers in 1 ms: whoever joins is found out about at once.
    #[test]
    fn a_new_one_is_called_however_fast_the_others_are() {
        let mut scene = Scene::new(P3cEwma::default(), &[1; 20]);
        for stats in &scene.stats[..19] {
            stats.measure(&scene.policy.rule, at(0), Duration::from_millis(1), Outcome::Success, None);
        }
        let counts = run(&mut scene, 1_000, |_| (1, Outcome::Success));
        assert!((20..100).contains(&counts[19]), "{counts:?}");
    }

    /// Balls in bins: of ten thousand with as many calls in flight nobody has more than three.
    #[test]
    fn three_choices_are_a_little_better_than_two() {
        let mut scene = Scene::new(P3cEwma::default(), &[1; 10_000]);
        for _ in 0..10_000 {
            let index = scene.pick(&Call::new()).unwrap();
            scene.stats[index].begin();
        }
        assert_eq!(scene.stats.iter().map(|stats| stats.in_flight()).max(), Some(3));
    }
}
