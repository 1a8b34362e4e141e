//! Draws some members and takes the cheapest: what [`P2cPending`](super::P2cPending) and [`P3cEwma`](super::P3cEwma)
//! share.

use fastrand::Rng;

use super::Choice;

/// How often members are drawn that may not be picked before all are looked at.
const DRAWS: usize = 4;

/// A generator for the seed of a handle. Neighbouring seeds are the rule: without the factor their first numbers
/// would be alike.
pub(super) fn rng(seed: u64) -> Rng {
    Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// What a call to a member would cost: the product of both.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// How long a call takes, if that is known.
    pub(super) latency: Option<f32>,
    /// How busy the member is for its weight.
    pub(super) factor: f32,
}

/// Draws `D` members, no two the same, all of them where there are not more, and returns the one of least cost. Of
/// several of the same cost any.
#[inline]
pub(super) fn least_of<const D: usize>(
    choice: &Choice<'_>,
    rng: &mut Rng,
    cost: impl Fn(usize) -> Cost,
) -> Option<usize> {
    let len = choice.len();
    if len < D {
        return least_of_all(choice, rng, cost);
    }
    for _ in 0..DRAWS {
        let mut best = Best::default();
        for index in distinct::<D>(len, rng) {
            if choice.allows(index) {
                best.see(index, cost(index));
            }
        }
        if let Some(index) = best.index() {
            return Some(index);
        }
    }
    least_of_all(choice, rng, cost)
}

#[cold]
fn least_of_all(choice: &Choice<'_>, rng: &mut Rng, cost: impl Fn(usize) -> Cost) -> Option<usize> {
    let len = choice.len();
    // From anywhere, so that the first is not preferred among those of the same cost.
    let start = if len > 1 { rng.usize(..len) } else { 0 };
    let (mut best, mut index) = (Best::default(), start);
    for _ in 0..len {
        if choice.allows(index) {
            best.see(index, cost(index));
        }
        index = if index + 1 == len { 0 } else { index + 1 };
    }
    best.index()
}

/// The cheapest of some members. One whose latency is not known is taken to be as fast as the fastest of the others:
/// any fixed number would be wrong by a hundredfold somewhere, and where it is too much, the member is never called
/// and never known.
struct Best {
    known: Least,
    /// By the factor alone.
    unknown: Least,
    fastest: f32,
}

impl Default for Best {
    fn default() -> Self {
        Self { known: Least::default(), unknown: Least::default(), fastest: f32::INFINITY }
    }
}

impl Best {
    #[inline]
    fn see(&mut self, index: usize, cost: Cost) {
        match cost.latency {
            Some(latency) => {
                self.known.see(index, latency * cost.factor);
                self.fastest = self.fastest.min(latency);
            }
            None => self.unknown.see(index, cost.factor),
        }
    }

    #[inline]
    fn index(&self) -> Option<usize> {
        if self.unknown.index == NOBODY {
            return (self.known.index != NOBODY).then_some(self.known.index);
        }
        // What is not known is to become so.
        let prefers_known = self.known.index != NOBODY && self.known.cost < self.unknown.cost * self.fastest;
        Some(if prefers_known { self.known.index } else { self.unknown.index })
    }
}

/// The cheapest member so far, of several of the same cost the last one. Without a branch that depends on the cost:
/// it would be guessed wrong as often as right.
struct Least {
    index: usize,
    cost: f32,
}

const NOBODY: usize = usize::MAX;

impl Default for Least {
    fn default() -> Self {
        Self { index: NOBODY, cost: f32::INFINITY }
    }
}

impl Least {
    #[inline]
    fn see(&mut self, index: usize, cost: f32) {
        let cheaper = cost <= self.cost;
        self.index = if cheaper { index } else { self.index };
        self.cost = if cheaper { cost } else { self.cost };
    }
}

/// `D` numbers below `len`, no two the same, each order as likely as every other: the last one wins among equals.
/// `len` is `D` at least.
///
/// Without branches, and of as few random numbers as will do: what the first draw leaves of one is good for the next, as
/// long as what is drawn is far below 2^64 together.
#[inline]
fn distinct<const D: usize>(len: usize, rng: &mut Rng) -> [usize; D] {
    let (mut drawn, mut sorted) = ([usize::MAX; D], [usize::MAX; D]);
    let mut random = rng.u64(..);
    for at in 0..D {
        if at > 0 && len > 1 << 16 {
            random = rng.u64(..);
        }
        let wide = u128::from(random) * (len - at) as u128;
        // Below `len`, and what is left.
        #[allow(clippy::cast_possible_truncation, reason = "the halves of a product")]
        let (mut number, left) = ((wide >> 64) as usize, wide as u64);
        random = left;
        // One of those that are left, counted past those that were drawn, which are sorted.
        for before in &sorted[..at] {
            number += usize::from(*before <= number);
        }
        let mut carried = number;
        for place in &mut sorted[..at] {
            (*place, carried) = ((*place).min(carried), (*place).max(carried));
        }
        sorted[at] = carried;
        drawn[at] = number;
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Call;

    #[test]
    fn draws_every_sequence_equally_often() {
        let mut rng = rng(1);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..60_000 {
            *counts.entry(distinct::<3>(5, &mut rng)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 60, "{counts:?}");
        assert!(counts.values().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn equal_costs_are_shared_out_and_what_is_avoided_is_left_out() {
        let (mut rng, mut call) = (rng(2), Call::new());
        let cost = Cost { latency: Some(1.0), factor: f32::INFINITY };
        call.avoid_number(2);
        for len in [2, 3, 4, 9] {
            let numbers: Vec<u64> = (0..len).collect();
            let choice = Choice::new(&numbers, &call);
            let mut counts = vec![0; numbers.len()];
            for _ in 0..9_000 {
                counts[least_of::<3>(&choice, &mut rng, |_| cost).unwrap()] += 1;
            }
            let allowed = counts.iter().enumerate().filter(|(index, _)| *index != 2);
            let fair = 9_000 / allowed.clone().count();
            // A gap at the member that is left out goes to its neighbour where all are looked at.
            assert!(allowed.clone().all(|(_, &count)| count > fair * 3 / 5), "{counts:?}");
            assert!(counts.get(2).is_none_or(|&count| count == 0));
        }
    }

    #[test]
    fn what_is_not_known_is_as_fast_as_the_fastest() {
        let best = |costs: &[(Option<f32>, f32)]| {
            let mut best = Best::default();
            for (index, &(latency, factor)) in costs.iter().enumerate() {
                best.see(index, Cost { latency, factor });
            }
            best.index()
        };
        assert_eq!(best(&[]), None);
        assert_eq!(best(&[(None, 2.0), (None, 1.0)]), Some(1));
        assert_eq!(best(&[(Some(1.0), f32::INFINITY), (None, f32::INFINITY)]), Some(1));
        assert_eq!(best(&[(Some(0.001), 1.0), (None, 1.0), (Some(0.002), 1.0)]), Some(1));
        assert_eq!(best(&[(Some(0.001), 1.0), (None, 2.0), (Some(0.002), 1.0)]), Some(0));
        assert_eq!(best(&[(Some(0.001), 9.0), (None, 5.0), (Some(0.002), 1.0)]), Some(2));
    }
}
