//! [`P2cPending`]: of two, the one with less in flight.

use std::sync::Arc;

use super::draw::Cost;
use super::weights::inverse;
use super::{Choice, Members, Policy, draw};
use crate::stats::Stats;

/// Draws two and takes the one with fewer calls in flight for its weight: "power of two choices", gRPC's
/// `least_request` (gRFC A48) and Envoy's `LEAST_REQUEST`.
///
/// Unlike theirs, the two are never the same one, so that of two instances the busier one gets nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct P2cPending {}

/// What [`P2cPending`] knows of a ready set.
#[derive(Debug)]
pub struct P2cTable(Vec<(Arc<Stats>, f32)>);

impl Policy for P2cPending {
    type Table = P2cTable;
    type Local = fastrand::Rng;

    fn build(&self, members: &Members<'_, P2cTable>) -> P2cTable {
        let inverse = inverse(members);
        P2cTable(members.iter().map(|member| Arc::clone(member.stats)).zip(inverse).collect())
    }

    fn local(&self, seed: u64) -> fastrand::Rng {
        draw::rng(seed)
    }

    #[inline]
    #[allow(clippy::cast_precision_loss, reason = "what is in flight is far below 2^24")]
    fn pick(&self, table: &P2cTable, rng: &mut fastrand::Rng, choice: &Choice<'_>) -> Option<usize> {
        draw::least_of::<2>(choice, rng, |index| {
            let busy = table.0.get(index).map(|(stats, inverse)| (stats.in_flight() + 1) as f32 * inverse);
            Cost { latency: Some(1.0), factor: busy.unwrap_or(f32::INFINITY) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, keeps_the_contract};
    use super::*;
    use crate::call::Call;

    #[test]
    fn keeps_to_the_contract() {
        keeps_the_contract(&P2cPending::default());
    }

    #[test]
    fn of_two_the_busier_one_gets_nothing() {
        let mut scene = Scene::new(P2cPending::default(), &[1, 1]);
        scene.stats[0].begin();
        assert_eq!(scene.counts(1_000, &Call::new()), [0, 1_000]);
        // With twice the weight two calls are as much as one.
        let mut scene = Scene::new(P2cPending::default(), &[2, 1]);
        scene.stats[0].begin();
        let counts = scene.counts(1_000, &Call::new());
        assert!(counts.iter().all(|count| (400..600).contains(count)), "{counts:?}");
    }

    /// Balls in bins, which stay: the most that one has, above the average. What theory says of two choices is
    /// ln ln n / ln 2 + O(1), and of one 6.7 on average for as many balls as bins.
    #[test]
    fn nobody_gets_much_more_than_the_average() {
        let mut one = Scene::new(P2cPending::default(), &[1; 10_000]);
        for _ in 0..10_000 {
            let index = one.pick(&Call::new()).unwrap();
            one.stats[index].begin();
        }
        assert!(one.stats.iter().map(|stats| stats.in_flight()).max().unwrap() <= 4);
        let mut many = Scene::new(P2cPending::default(), &[1; 100]);
        for _ in 0..100_000 {
            let index = many.pick(&Call::new()).unwrap();
            many.stats[index].begin();
        }
        assert!(many.stats.iter().map(|stats| stats.in_flight()).max().unwrap() <= 1_000 + 3);
    }
}
