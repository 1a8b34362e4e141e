//! [`WeightedRoundRobin`]: one after the other, those of more weight more often.

use super::{Choice, Members, Policy, weights};

/// One after the other, each as often as its weight says, and evenly spread: gRPC's static stride scheduler (gRFC
/// A58; grpc-go `balancer/weightedroundrobin/scheduler.go`), with the weights of the registry. Each handle has a
/// counter of its own.
///
/// Weights are scaled so that the greatest is 65,535; what would become less than 1 is 1. After any number of picks
/// of one handle each member has had what is due to it, give or take two and a half: two for up to ten members from
/// the beginning of the sequence, but handles begin anywhere, so that clients do not go in step. Handles that make a
/// single call each, as is the habit with tonic clients, or a few, share calls out evenly too.
#[derive(Debug, Clone, Copy, Default)]
pub struct WeightedRoundRobin {}

/// What [`WeightedRoundRobin`] knows of a ready set.
#[derive(Debug)]
pub struct StrideTable {
    /// Scaled; empty where all are alike.
    strides: Vec<u64>,
    weights: Vec<u32>,
    /// The sum of the weights up to each member, itself included.
    sums: Vec<u64>,
}

/// Where a handle of [`WeightedRoundRobin`] is.
#[derive(Debug, Clone, Copy)]
pub struct StrideLocal {
    /// How many handles came before it, as long as it has not picked: its first pick is its turn among them.
    turn: Option<u64>,
    sequence: u64,
}

const MOST: u64 = 65_535;
const OFFSET: u64 = MOST / 2;

impl StrideTable {
    fn new(weights: Vec<u32>) -> Self {
        let most = u64::from(weights.iter().copied().max().unwrap_or(0)).max(1);
        let scaled = |&weight: &u32| match u64::from(weight) {
            0 => 0,
            weight => ((weight * MOST + most / 2) / most).max(1),
        };
        let strides = match weights.first() {
            Some(first) if weights.iter().any(|weight| weight != first) => {
                weights.iter().map(scaled).collect()
            }
            _ => Vec::new(),
        };
        let mut sum = 0;
        let sums = weights.iter().map(|&weight| {
            sum += u64::from(weight);
            sum
        });
        Self { sums: sums.collect(), strides, weights }
    }

    /// The next in the sequence of the scheduler: `None` where nothing that is allowed comes for long.
    #[inline]
    fn next(&self, sequence: &mut u64, choice: &Choice<'_>) -> Option<usize> {
        let len = choice.len() as u64;
        // Among all of them somebody has the greatest weight, which is never passed over.
        let steps = if choice.call.allows_all() { 2 * len } else { 16 * len };
        for _ in 0..steps {
            let (index, generation) = (*sequence % len, *sequence / len);
            *sequence = sequence.wrapping_add(1);
            // Below `len`, which came from a usize.
            #[allow(clippy::cast_possible_truncation)]
            let at = index as usize;
            let passes = match self.strides.get(at) {
                // Everything is below 2^32, so that nothing overflows.
                Some(&stride) => {
                    (stride * (generation % MOST) + (index % MOST) * OFFSET) % MOST < MOST - stride
                }
                None => false,
            };
            if !passes && choice.allows(at) {
                return Some(at);
            }
        }
        None
    }

    /// Where the sequence goes on behind a pick of a member, its next one from some generation on. From any other place
    /// whoever comes behind members of little weight is picked in their stead, by all handles that make a few calls only.
    fn after(&self, index: usize, from: u64, len: usize) -> u64 {
        let (index, len) = (index as u64, len as u64);
        let generation = from % MOST;
        let waits = match self.strides.get(index as usize) {
            Some(&stride) if stride > 0 => {
                let place = (stride * generation + (index % MOST) * OFFSET) % MOST;
                (MOST - stride).saturating_sub(place).div_ceil(stride)
            }
            _ => 0,
        };
        (generation + waits) * len + index + 1
    }

    /// Whose turn it is among handles that pick once: turns follow the golden ratio through the sum of the weights,
    /// which spreads any number of them evenly.
    fn turn(&self, turn: u64) -> Option<usize> {
        let place = weights::scale(spread(turn), *self.sums.last()?);
        Some(self.sums.partition_point(|&sum| sum <= place))
    }
}

fn spread(turn: u64) -> u64 {
    turn.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Policy for WeightedRoundRobin {
    type Table = StrideTable;
    type Local = StrideLocal;

    fn build(&self, members: &Members<'_, StrideTable>) -> StrideTable {
        StrideTable::new(weights::of(members))
    }

    fn local(&self, seed: u64) -> StrideLocal {
        StrideLocal { turn: Some(seed), sequence: spread(seed) }
    }

    #[inline]
    fn pick(&self, table: &StrideTable, local: &mut StrideLocal, choice: &Choice<'_>) -> Option<usize> {
        if choice.is_empty() {
            return None;
        }
        if let Some(turn) = local.turn.take() {
            // What handles start with must be right for those that start only.
            let first = table.turn(turn).filter(|&index| index < choice.len() && choice.allows(index));
            if let Some(first) = first {
                local.sequence = table.after(first, local.sequence, choice.len());
                return Some(first);
            }
            // To go on from one that is not allowed would give the next one all of its calls, as would the same number.
            return weights::among(&table.weights, spread(spread(turn)), choice);
        }
        table
            .next(&mut local.sequence, choice)
            .or_else(|| weights::among(&table.weights, spread(local.sequence), choice))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, keeps_the_contract};
    use super::*;
    use crate::call::Call;

    fn sequence(weights: &[u32], picks: usize) -> Vec<usize> {
        let mut scene = Scene::new(WeightedRoundRobin::default(), weights);
        scene.local = StrideLocal { turn: None, sequence: 0 };
        (0..picks).map(|_| scene.pick(&Call::new()).unwrap()).collect()
    }

    #[test]
    fn keeps_to_the_contract() {
        keeps_the_contract(&WeightedRoundRobin::default());
    }

    /// gRPC's rule, written down as in grpc-go's `nextIndex`, step by step.
    #[test]
    fn is_the_static_stride_scheduler() {
        fn grpc(weights: &[u32], picks: usize) -> Vec<usize> {
            let most = f64::from(*weights.iter().max().unwrap());
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let scaled: Vec<u64> =
                weights.iter().map(|&w| (65_535.0 / most * f64::from(w)).round() as u64).collect();
            let (mut sequence, mut picked) = (0_u64, Vec::new());
            while picked.len() < picks {
                let (index, generation) = (sequence % scaled.len() as u64, sequence / scaled.len() as u64);
                sequence += 1;
                let weight = scaled[index as usize];
                if (weight * generation + index * 32_767) % 65_535 >= 65_535 - weight {
                    picked.push(index as usize);
                }
            }
            picked
        }
        let many = vec![318, 16, 368, 633, 28, 18, 485, 782, 846, 89, 12, 951, 367, 150, 346, 944, 4];
        for weights in [vec![5, 1, 1], vec![1, 2, 3, 4], vec![10, 10, 3], vec![7, 65_535, 20_000], many] {
            assert_eq!(sequence(&weights, 2_000), grpc(&weights, 2_000), "{weights:?}");
        }
        assert_eq!(sequence(&[5, 1, 1], 7), [0, 2, 0, 0, 1, 0, 0]);
        assert_eq!(sequence(&[3, 3, 3], 5), [0, 1, 2, 0, 1]);
    }

    /// How far from what is due to it anybody ever is, in a run from `start`.
    fn worst(weights: &[u32], start: u64) -> f64 {
        let total = weights::sum(weights) as f64;
        let mut scene = Scene::new(WeightedRoundRobin::default(), weights);
        scene.local = StrideLocal { turn: None, sequence: start };
        let (mut served, mut worst) = (vec![0.0; weights.len()], 0.0_f64);
        for picks in 1..2_000 {
            served[scene.pick(&Call::new()).unwrap()] += 1.0;
            for (served, &weight) in served.iter().zip(weights) {
                worst = worst.max((served - f64::from(picks) * f64::from(weight) / total).abs());
            }
        }
        worst
    }

    /// So a bound of two is not to be had with its sequence: these weights are among those that it is compared on above.
    #[test]
    fn the_scheduler_of_grpc_itself_is_off_by_more_than_two() {
        let weights = [318, 16, 368, 633, 28, 18, 485, 782, 846, 89, 12, 951, 367, 150, 346, 944, 4];
        let served = sequence(&weights, 547).into_iter().filter(|&index| index == 15).count();
        let due = 547.0 * 944.0 / weights::sum(&weights) as f64;
        assert_eq!(served, 79);
        assert!((served as f64 - due).abs() > 2.2, "{due}");
    }

    #[test]
    fn serves_what_is_due_within_two_and_from_anywhere_a_little_more() {
        let mut rng = fastrand::Rng::with_seed(3);
        for members in (1..30).cycle().take(300) {
            let weights: Vec<u32> = (0..members).map(|_| rng.u32(1..1_000)).collect();
            let (first, anywhere) = (worst(&weights, 0), worst(&weights, rng.u64(..)));
            assert!(first <= if members <= 10 { 2.0 } else { 2.5 }, "{first} {weights:?}");
            assert!(anywhere <= 2.5, "{anywhere} {weights:?}");
        }
    }

    /// A handle for each call, as tonic's users have it.
    #[test]
    fn handles_that_pick_once_serve_what_is_due_too() {
        let weights = [5, 1, 1, 20, 0, 3];
        let total = weights::sum(&weights) as f64;
        let mut scene = Scene::new(WeightedRoundRobin::default(), &weights);
        let (mut served, first) = ([0.0; 6], fastrand::Rng::with_seed(9).u64(..));
        for picks in 1..=3_000_u32 {
            scene.local = scene.policy.local(first.wrapping_add(u64::from(picks)));
            served[scene.pick(&Call::new()).unwrap()] += 1.0;
            for (served, &weight) in served.iter().zip(&weights) {
                let due = f64::from(picks) * f64::from(weight) / total;
                assert!((served - due).abs() <= 4.0, "{picks}: {served} of {due}");
            }
        }
    }

    /// A handle for each request, which makes some calls: each of them is shared out as the weights say, also where some of
    /// little weight lie before one of much.
    #[test]
    fn handles_that_pick_a_few_times_serve_what_is_due_each_time() {
        for weights in [&[100, 1, 1, 1, 1, 1, 1, 1, 1, 100][..], &[1, 9], &[9, 1, 9, 0], &[7; 4]] {
            let total = weights::sum(weights) as f64;
            let mut scene = Scene::new(WeightedRoundRobin::default(), weights);
            let mut served = [(); 4].map(|()| vec![0.0; weights.len()]);
            for seed in 0..20_000 {
                scene.local = scene.policy.local(seed);
                for served in &mut served {
                    served[scene.pick(&Call::new()).unwrap()] += 1.0;
                }
            }
            for (index, &weight) in weights.iter().enumerate() {
                let (due, served) =
                    (20_000.0 * f64::from(weight) / total, served.each_ref().map(|s| s[index]));
                assert!(served.iter().all(|served| (served - due).abs() < 300.0), "{served:?} of {due}");
            }
        }
    }

    #[test]
    fn a_weight_that_is_next_to_nothing_is_served_all_the_same() {
        let mut scene = Scene::new(WeightedRoundRobin::default(), &[1, 65_535]);
        let counts = scene.counts(65_536 * 2, &Call::new());
        assert!((1..=4).contains(&counts[0]), "{counts:?}");
        let mut scene = Scene::new(WeightedRoundRobin::default(), &[u32::MAX, 1]);
        assert!(scene.counts(65_536 * 3, &Call::new())[1] >= 1);
    }
}
