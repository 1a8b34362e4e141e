//! [`WeightedRandom`]: any, by weight.

use super::{Choice, Members, Policy, draw, weights};

/// Any of them, each with a probability by its weight. Takes the same time however many there are: an alias table
/// (A. J. Walker, 1974, as M. D. Vose builds it, 1991).
#[derive(Debug, Clone, Copy, Default)]
pub struct WeightedRandom {}

/// What [`WeightedRandom`] knows of a ready set.
#[derive(Debug)]
pub struct AliasTable {
    rows: Vec<Row>,
    weights: Vec<u32>,
}

/// One of as many equal parts of the whole as there are members.
#[derive(Debug, Clone, Copy)]
struct Row {
    /// How much of it is the member's own, of 2^32.
    own: u64,
    /// Whose the rest is.
    rest: usize,
}

const WHOLE: u64 = 1 << 32;

impl AliasTable {
    fn new(weights: Vec<u32>) -> Self {
        let len = weights.len();
        let total = u128::from(weights::sum(&weights));
        // In parts of which the whole has `total` and each row `total / len`: multiplied by `len`, so that nothing is
        // rounded.
        let mut parts: Vec<u128> = weights.iter().map(|&weight| u128::from(weight) * len as u128).collect();
        let mut rows: Vec<Row> = (0..len).map(|index| Row { own: WHOLE, rest: index }).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..len).partition(|&index| parts[index] < total);
        while let (Some(index), Some(&giver)) = (small.pop(), large.last()) {
            let own = u64::try_from(parts[index] * u128::from(WHOLE) / total).unwrap_or(WHOLE);
            rows[index] = Row { own, rest: giver };
            parts[giver] -= total - parts[index];
            if parts[giver] < total {
                large.pop();
                small.push(giver);
            }
        }
        Self { rows, weights }
    }
}

impl Policy for WeightedRandom {
    type Table = AliasTable;
    type Local = fastrand::Rng;

    fn build(&self, members: &Members<'_, AliasTable>) -> AliasTable {
        AliasTable::new(weights::of(members))
    }

    fn local(&self, seed: u64) -> fastrand::Rng {
        draw::rng(seed)
    }

    #[inline]
    fn pick(&self, table: &AliasTable, rng: &mut fastrand::Rng, choice: &Choice<'_>) -> Option<usize> {
        for _ in 0..8 {
            let random = rng.u64(..);
            let wide = u128::from(random) * table.rows.len() as u128;
            // The upper half is a row, the lower one a place in it.
            #[allow(clippy::cast_possible_truncation, reason = "the halves of a product")]
            let (index, place) = ((wide >> 64) as usize, wide as u64 >> 32);
            let row = table.rows.get(index)?;
            let picked = if place < row.own { index } else { row.rest };
            if picked < choice.len() && choice.allows(picked) {
                return Some(picked);
            }
        }
        weights::among(&table.weights, rng.u64(..), choice)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, keeps_the_contract};
    use super::*;
    use crate::call::Call;

    #[test]
    fn keeps_to_the_contract() {
        keeps_the_contract(&WeightedRandom::default());
    }

    /// The table is exact: what belongs to each member adds up to its weight.
    #[test]
    fn every_member_has_its_share_of_the_table() {
        for weights in [vec![5, 1, 1], vec![65_535, 1], vec![0, 3, 0, 9], (1..=100).collect()] {
            let total = weights::sum(&weights);
            let table = AliasTable::new(weights.clone());
            let mut shares = vec![0; weights.len()];
            for (index, row) in table.rows.iter().enumerate() {
                shares[index] += row.own;
                shares[row.rest] += WHOLE - row.own;
            }
            for (index, &weight) in weights.iter().enumerate() {
                let exact =
                    u128::from(weight) * u128::from(WHOLE) * weights.len() as u128 / u128::from(total);
                assert!(u128::from(shares[index]).abs_diff(exact) <= weights.len() as u128, "{weights:?}");
            }
        }
    }

    /// PEERS, Rust peers 15: weights count also after an instance was tried in vain.
    #[test]
    fn weights_count_also_among_what_is_left() {
        let mut scene = Scene::new(WeightedRandom::default(), &[1_000_000, 1, 3]);
        let mut call = Call::new();
        call.avoid_number(0);
        let counts = scene.counts(40_000, &call);
        assert!(counts[0] == 0 && (9_500..10_500).contains(&counts[1]), "{counts:?}");
    }
}
