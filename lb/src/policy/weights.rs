//! What weights mean: the same for every policy.

use super::{Choice, Members};

/// The weights of the members, and 1 for each where all are 0.
pub(super) fn of<T>(members: &Members<'_, T>) -> Vec<u32> {
    let weights: Vec<u32> = members.iter().map(|member| member.instance.weight()).collect();
    if weights.iter().all(|&weight| weight == 0) { vec![1; weights.len()] } else { weights }
}

/// One by each weight.
#[allow(clippy::cast_precision_loss, reason = "a cost is rounded anyway")]
pub(super) fn inverse<T>(members: &Members<'_, T>) -> Vec<f32> {
    // Infinite for 0: never while there is another one.
    of(members).into_iter().map(|weight| 1.0 / weight as f32).collect()
}

pub(super) fn sum(weights: &[u32]) -> u64 {
    weights.iter().map(|&weight| u64::from(weight)).sum()
}

/// A number below `below`, as likely as every other for all that matters, from 64 random bits.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "below `below`")]
pub(super) fn scale(random: u64, below: u64) -> u64 {
    ((u128::from(random) * u128::from(below)) >> 64) as u64
}

/// One of the members that are allowed, by their weights, from 64 random bits. Looks at all: for when few are left.
pub(super) fn among(weights: &[u32], random: u64, choice: &Choice<'_>) -> Option<usize> {
    let allowed = || weights.iter().enumerate().take(choice.len()).filter(|(index, _)| choice.allows(*index));
    let total: u64 = allowed().map(|(_, &weight)| u64::from(weight)).sum();
    if total == 0 {
        // Those that are left weigh nothing: the same for all of them.
        let count = allowed().count() as u64;
        return allowed().nth(usize::try_from(scale(random, count.max(1))).ok()?).map(|(index, _)| index);
    }
    let mut left = scale(random, total);
    for (index, &weight) in allowed() {
        match left.checked_sub(u64::from(weight)) {
            Some(rest) => left = rest,
            None => return Some(index),
        }
    }
    None
}
