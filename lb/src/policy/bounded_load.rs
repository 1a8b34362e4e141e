//! [`BoundedLoad`]: the same key to the same instance, unless that one has too much to do.

use std::sync::Arc;

use super::maglev::{Maglev, MaglevTable, mix};
use super::{Choice, Members, Policy, draw, weights};
use crate::call::Key;
use crate::stats::Stats;

/// As [`Maglev`], but an instance that has a quarter more in flight than its share is passed over: "consistent
/// hashing with bounded loads" (V. Mirrokni, M. Thorup and M. Zadimoghaddam, 2018). Each key goes on in an order of
/// its own, as in Envoy, so that what is too much for one is shared out among all.
///
/// The share is of the calls that all handles have in flight. Up to 32 instances it is counted at each pick; of more,
/// each handle counts anew after one pick for every 32 instances.
#[derive(Debug, Clone, Copy)]
pub struct BoundedLoad {
    maglev: Maglev,
    factor: f64,
}

impl Default for BoundedLoad {
    fn default() -> Self {
        Self { maglev: Maglev::default(), factor: 1.25 }
    }
}

/// For so many instances one of the picks counts.
const COUNTED: usize = 32;

impl BoundedLoad {
    /// How many times its share an instance may have in flight, from 1 to 100; 1.25. Less spreads more keys, more
    /// lets instances be busier.
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = if factor.is_nan() { 1.25 } else { factor.clamp(1.0, 100.0) };
        self
    }

    /// A fixed size of the table, as [`Maglev::size`].
    #[must_use]
    pub fn size(mut self, entries: usize) -> Self {
        self.maglev = self.maglev.size(entries);
        self
    }
}

/// What [`BoundedLoad`] knows of a ready set.
#[derive(Debug)]
pub struct BoundedTable {
    maglev: MaglevTable,
    /// With the share of each member, of 1.
    stats: Vec<(Arc<Stats>, f64)>,
}

impl BoundedTable {
    fn in_flight(&self) -> u64 {
        self.stats.iter().map(|(stats, _)| u64::from(stats.in_flight())).sum()
    }
}

/// What a handle of [`BoundedLoad`] carries.
#[derive(Debug)]
pub struct BoundedLocal {
    rng: fastrand::Rng,
    in_flight: u64,
    /// For how many picks it is taken for that.
    good_for: usize,
}

impl Policy for BoundedLoad {
    type Table = BoundedTable;
    type Local = BoundedLocal;

    #[allow(clippy::cast_precision_loss, reason = "a share is rounded anyway")]
    fn build(&self, members: &Members<'_, BoundedTable>) -> BoundedTable {
        let maglev = self.maglev.table(members);
        let sum = weights::sum(&maglev.weights) as f64;
        let shares = maglev.weights.iter().map(|&weight| f64::from(weight) / sum);
        let stats = members.iter().map(|member| Arc::clone(member.stats)).zip(shares).collect();
        BoundedTable { maglev, stats }
    }

    fn local(&self, seed: u64) -> BoundedLocal {
        BoundedLocal { rng: draw::rng(seed), in_flight: 0, good_for: 0 }
    }

    #[allow(clippy::cast_precision_loss, reason = "what is in flight is far below 2^53")]
    fn pick(&self, table: &BoundedTable, local: &mut BoundedLocal, choice: &Choice<'_>) -> Option<usize> {
        let hash = choice.key().map_or_else(|| local.rng.u64(..), Key::hash);
        if local.good_for == 0 {
            local.in_flight = table.in_flight();
            local.good_for = (table.stats.len() / COUNTED).max(1);
        }
        local.good_for -= 1;
        // This call included.
        let calls = (local.in_flight + 1) as f64 * self.factor;
        let load = |index: usize| match table.stats.get(index).filter(|_| index < choice.len()) {
            Some((stats, share)) if *share > 0.0 => f64::from(stats.in_flight()) / share,
            _ => f64::INFINITY,
        };
        let fits = |&index: &usize| {
            table.stats.get(index).is_some_and(|(stats, share)| {
                index < choice.len()
                    && choice.allows(index)
                    && f64::from(stats.in_flight()) < (calls * share).ceil()
            })
        };
        if let Some(index) = table.maglev.jumps(hash).find(fits) {
            return Some(index);
        }
        // Few are left: the one with the least to do for its weight.
        let allowed = || (0..table.stats.len().min(choice.len())).filter(|&index| choice.allows(index));
        let least = allowed().map(|index| (index, load(index))).reduce(|a, b| if b.1 < a.1 { b } else { a });
        match least {
            Some((_, load)) if load.is_infinite() => weights::among(&table.maglev.weights, mix(hash), choice),
            least => least.map(|(index, _)| index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, keeps_the_contract};
    use super::*;
    use crate::call::Call;

    #[test]
    fn keeps_to_the_contract() {
        keeps_the_contract(&BoundedLoad::default());
        keeps_the_contract(&BoundedLoad::default().factor(f64::NAN));
        keeps_the_contract(&BoundedLoad::default().factor(0.0));
    }

    /// After any number of calls, none of which ends, nobody has more than the bound, whatever the keys.
    #[test]
    fn nobody_has_more_than_the_bound() {
        for (factor, weights) in [(1.25, vec![1; 20]), (1.0, vec![1; 7]), (1.1, vec![1, 2, 3, 4])] {
            let mut scene = Scene::new(BoundedLoad::default().factor(factor), &weights);
            let sum: u32 = weights.iter().sum();
            let mut rng = fastrand::Rng::with_seed(4);
            for calls in 1..=3_000_u32 {
                // Half of them with the same key.
                let key = if rng.bool() { 1 } else { rng.u64(..) };
                let index = scene.pick_key(key).unwrap();
                scene.stats[index].begin();
                let share = f64::from(weights[index]) / f64::from(sum);
                let bound = (factor * f64::from(calls) * share).ceil();
                assert!(f64::from(scene.stats[index].in_flight()) <= bound);
            }
        }
    }

    #[test]
    fn goes_where_maglev_goes_while_there_is_room() {
        let (mut bounded, mut maglev) =
            (Scene::new(BoundedLoad::default(), &[1; 9]), Scene::new(Maglev::default(), &[1; 9]));
        for key in 0..1_000 {
            assert_eq!(bounded.pick_key(key), maglev.pick_key(key));
        }
        // A busy one is passed over, for the keys that hash to it alone.
        bounded.stats[2].begin();
        bounded.stats[2].begin();
        let mut call = Call::new();
        call.avoid_number(2);
        for key in 0..1_000 {
            let (was, is) = (maglev.pick_key(key).unwrap(), bounded.pick_key(key).unwrap());
            assert!(if was == 2 { is != 2 } else { is == was });
        }
    }
}
