//! [`Rendezvous`]: the same key to the same instance, with no table.

use twox_hash::XxHash64;

use super::maglev::mix;
use super::{Choice, Members, Policy, draw, weights};
use crate::call::Key;

/// The [key](crate::Key) of a call says where it goes: to the instance that scores highest with it. "Highest random
/// weight" (D. G. Thaler and C. V. Ravishankar, 1998), by weight as J. Resch has it (`-weight / ln(hash)`).
///
/// Shares are exact, and when an instance goes or its weight changes only the keys move that must. A pick looks at
/// every instance: for up to some thirty of them. A call without a key goes anywhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rendezvous {}

/// What [`Rendezvous`] knows of a ready set.
#[derive(Debug)]
pub struct RendezvousTable(Vec<(u64, f64)>);

impl Policy for Rendezvous {
    type Table = RendezvousTable;
    type Local = fastrand::Rng;

    fn build(&self, members: &Members<'_, RendezvousTable>) -> RendezvousTable {
        let hash =
            members.iter().map(|member| XxHash64::oneshot(0, member.instance.id().as_str().as_bytes()));
        RendezvousTable(hash.zip(weights::of(members).into_iter().map(f64::from)).collect())
    }

    fn local(&self, seed: u64) -> fastrand::Rng {
        draw::rng(seed)
    }

    fn pick(&self, table: &RendezvousTable, rng: &mut fastrand::Rng, choice: &Choice<'_>) -> Option<usize> {
        let key = choice.key().map_or_else(|| rng.u64(..), Key::hash);
        let members = table.0.iter().take(choice.len()).enumerate();
        let scores = members
            .filter(|(index, _)| choice.allows(*index))
            .map(|(index, &(hash, weight))| (index, weight / -unit(mix(key ^ hash)).ln()));
        scores.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(index, _)| index)
    }
}

/// A number between 0 and 1, and neither of them.
#[allow(clippy::cast_precision_loss, reason = "53 bits are exact")]
fn unit(hash: u64) -> f64 {
    ((hash >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, instance, keeps_the_contract};
    use super::*;

    #[test]
    fn keeps_to_the_contract() {
        keeps_the_contract(&Rendezvous::default());
        assert!(unit(0) > 0.0 && unit(u64::MAX) < 1.0);
    }

    #[test]
    fn shares_go_by_weight() {
        let counts = Scene::new(Rendezvous::default(), &[1, 2, 3, 4, 0]).key_counts(100_000);
        assert_eq!(counts[4], 0);
        for (count, weight) in counts.iter().zip([1.0, 2.0, 3.0, 4.0]) {
            assert!((*count as f64 / (weight * 10_000.0) - 1.0).abs() < 0.04, "{counts:?}");
        }
    }

    /// A weight that grows draws keys from all others, and moves none between them.
    #[test]
    fn only_keys_that_must_move() {
        let all: Vec<_> = (0..20).map(|number| instance(number, 2)).collect();
        let (mut rest, mut heavier) = (all.clone(), all.clone());
        rest.remove(7);
        heavier[7] = instance(7, 6);
        let mut before = Scene::of(Rendezvous::default(), all);
        let mut without = Scene::of(Rendezvous::default(), rest);
        let mut with_more = Scene::of(Rendezvous::default(), heavier);
        for key in 0..20_000 {
            let was = before.pick_key(key).unwrap();
            let is = without.pick_key(key).unwrap();
            assert!(was == 7 || before.instances[was].id() == without.instances[is].id());
            let is = with_more.pick_key(key).unwrap();
            assert!(is == was || is == 7);
        }
    }
}
