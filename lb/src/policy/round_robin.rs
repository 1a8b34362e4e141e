//! [`RoundRobin`]: one after the other.

use super::{Choice, Members, Policy};

/// One after the other, each handle by a counter of its own.
///
/// The first handle of a balancer starts anywhere, so that many clients do not all call the same instance
/// first. A clone starts one further on than the clone that made its first pick before it, so that handles which make a
/// single call each, as is the habit with tonic clients, take turns too.
#[derive(Debug, Clone, Copy, Default)]
pub struct RoundRobin {}

impl Policy for RoundRobin {
    type Table = ();
    type Local = u64;

    fn build(&self, _: &Members<'_, ()>) {}

    fn local(&self, seed: u64) -> u64 {
        seed
    }

    #[inline]
    fn pick(&self, (): &(), next: &mut u64, choice: &Choice<'_>) -> Option<usize> {
        if choice.call.allows_all() {
            return turn(next, choice.len());
        }
        turn_among(next, choice)
    }
}

/// Whose turn it is among those that are allowed. Apart, so that the usual pick stays small.
#[cold]
fn turn_among(next: &mut u64, choice: &Choice<'_>) -> Option<usize> {
    let allowed = || (0..choice.len()).filter(|&index| choice.allows(index));
    if *next >= choice.len() as u64 {
        // A handle that has not picked yet begins with any: of such as go on from one that is not allowed twice as many
        // would come to the next one.
        let index = allowed().nth(turn(next, allowed().count())?)?;
        *next = if index + 1 == choice.len() { 0 } else { index as u64 + 1 };
        return Some(index);
    }
    (0..choice.len()).find_map(|_| turn(next, choice.len()).filter(|&index| choice.allows(index)))
}

/// Whose turn it is among so many.
#[inline]
fn turn(next: &mut u64, len: usize) -> Option<usize> {
    // A division costs more than all the rest of it: there is one where the handle is new, or the set has shrunk.
    let turn = if *next < len as u64 { *next } else { next.checked_rem(len as u64)? };
    *next = if turn + 1 == len as u64 { 0 } else { turn + 1 };
    // Below `len`, which is a usize.
    #[allow(clippy::cast_possible_truncation)]
    Some(turn as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Call;

    #[test]
    fn takes_turns_and_skips_what_is_avoided() {
        let (policy, numbers) = (RoundRobin::default(), [10, 11, 12]);
        let mut local = policy.local(4);
        let mut call = Call::new();
        let mut picks = |call: &Call| -> Vec<_> {
            (0..4).map(|_| policy.pick(&(), &mut local, &Choice::new(&numbers, call))).collect()
        };
        assert_eq!(picks(&call), [Some(1), Some(2), Some(0), Some(1)]);
        call.avoid_number(12);
        assert_eq!(picks(&call), [Some(0), Some(1), Some(0), Some(1)]);
        call.avoid_number(10);
        call.avoid_number(11);
        assert_eq!(picks(&call), [None; 4]);
        assert_eq!(policy.pick(&(), &mut local, &Choice::new(&[], &Call::new())), None);
    }

    /// Of handles that begin with a call which avoids one, no more come to the next one than to any other; and a handle that
    /// tries elsewhere what the first has failed leaves nobody out.
    #[test]
    fn what_one_cannot_take_is_shared_out() {
        let (policy, numbers) = (RoundRobin::default(), [10, 11, 12, 13]);
        let mut call = Call::new();
        call.avoid_number(11);
        let mut counts = [0; 4];
        for seed in 1_000..4_000 {
            let choice = Choice::new(&numbers, &call);
            counts[policy.pick(&(), &mut policy.local(seed), &choice).unwrap()] += 1;
        }
        assert_eq!(counts, [1_000, 0, 1_000, 1_000]);
        let (mut counts, mut local, first) = ([0; 4], policy.local(1_000), Call::new());
        for _ in 0..3_000 {
            let index = policy.pick(&(), &mut local, &Choice::new(&numbers, &first)).unwrap();
            let again = |_| policy.pick(&(), &mut local, &Choice::new(&numbers, &call)).unwrap();
            counts[Some(index).filter(|&index| index == 1).map_or(index, again)] += 1;
        }
        assert_eq!(counts, [1_000, 0, 1_000, 1_000]);
    }

    /// A handle goes on where it was when the set changes, and begins anew where it was beyond the end.
    #[test]
    fn turns_go_on_in_another_set() {
        let (policy, call) = (RoundRobin::default(), Call::new());
        let mut local = policy.local(u64::MAX);
        let mut picks = |numbers: &[u64]| -> Vec<_> {
            (0..4).map(|_| policy.pick(&(), &mut local, &Choice::new(numbers, &call)).unwrap()).collect()
        };
        assert_eq!(picks(&[1, 2, 3, 4, 5]), [0, 1, 2, 3]);
        assert_eq!(picks(&[1, 2, 3, 4, 5, 6, 7]), [4, 5, 6, 0]);
        assert_eq!(picks(&[1]), [0; 4]);
        assert_eq!(picks(&[1, 2, 3]), [0, 1, 2, 0]);
        let clones = [9, 10, 11, 12]
            .map(|seed| policy.pick(&(), &mut policy.local(seed), &Choice::new(&[1, 2, 3], &call)).unwrap());
        assert_eq!(clones, [0, 1, 2, 0]);
    }
}
