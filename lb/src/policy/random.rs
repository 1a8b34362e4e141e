//! [`Random`]: any, all alike.

use super::{Choice, Members, Policy, draw};

/// Any of them, all with the same probability, each handle by random numbers of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Random {}

impl Policy for Random {
    type Table = ();
    type Local = fastrand::Rng;

    fn build(&self, _: &Members<'_, ()>) {}

    fn local(&self, seed: u64) -> fastrand::Rng {
        draw::rng(seed)
    }

    #[inline]
    fn pick(&self, (): &(), rng: &mut fastrand::Rng, choice: &Choice<'_>) -> Option<usize> {
        let len = choice.len();
        if len == 0 {
            return None;
        }
        // Drawing again keeps all that are left equally likely; a walk is for when few are left.
        for _ in 0..8 {
            let index = rng.usize(..len);
            if choice.allows(index) {
                return Some(index);
            }
        }
        let start = rng.usize(..len);
        (start..len).chain(0..start).find(|&index| choice.allows(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Call;

    #[test]
    fn all_are_alike_and_none_is_avoided_in_vain() {
        let (policy, numbers) = (Random::default(), [1, 2, 3, 4]);
        let mut local = policy.local(7);
        let mut call = Call::new();
        call.avoid_number(2);
        let mut counts = [0; 4];
        for _ in 0..30_000 {
            counts[policy.pick(&(), &mut local, &Choice::new(&numbers, &call)).unwrap()] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!([0, 2, 3].iter().all(|&i| (9_500..10_500).contains(&counts[i])), "{counts:?}");
        for number in [1, 3, 4] {
            call.avoid_number(number);
        }
        assert_eq!(policy.pick(&(), &mut local, &Choice::new(&numbers, &call)), None);
        assert_eq!(policy.pick(&(), &mut local, &Choice::new(&[], &Call::new())), None);
    }

    /// Clones are seeded one after the other; their first picks must be spread all the same.
    #[test]
    fn first_picks_of_neighbouring_seeds_are_spread() {
        let (policy, numbers) = (Random::default(), [1, 2, 3, 4]);
        let mut counts = [0; 4];
        for seed in 0..4_000 {
            let mut local = policy.local(seed);
            counts[policy.pick(&(), &mut local, &Choice::new(&numbers, &Call::new())).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
