//! [`Maglev`]: the same key to the same instance, by a table.

use twox_hash::XxHash64;

use super::{Choice, Members, Policy, draw, weights};
use crate::call::Key;

/// The [key](crate::Key) of a call says where it goes, by one look into a table: Google's Maglev (D. E. Eisenbud et
/// al., NSDI 2016, section 3.4), with Envoy's hashes and its way with weights. Of equal weights no instance has more
/// than one entry more than another. When an instance goes, its keys are shared out, and few others move.
///
/// The table has 65,537 entries for up to 655 instances and 655,373 for more, the paper's sizes: between these
/// numbers nearly all keys move, unless a [size](Self::size) is set. A call without a key goes anywhere. An instance
/// is known by its id.
#[derive(Debug, Clone, Copy, Default)]
pub struct Maglev {
    size: Option<usize>,
}

/// The sizes of tables. One that grew with every instance would move nearly all keys each time.
const SMALL: u64 = 65_537;
const LARGE: u64 = 655_373;
/// The largest there is, as in Envoy.
const LARGEST: u64 = 5_000_011;
/// How many entries there are for each instance in the small table, so that shares are even: the paper's 100.
const ENTRIES_EACH: u64 = 100;
/// How often a key is hashed again whose instance is not allowed.
const JUMPS: u64 = 32;

impl Maglev {
    /// A fixed size of the table, up to 5,000,011: the next prime is taken. A hundred times as many as there will
    /// ever be instances keep shares even; it is doubled until each can have one entry.
    #[must_use]
    pub fn size(mut self, entries: usize) -> Self {
        self.size = Some(entries);
        self
    }

    fn entries(self, members: u64) -> u64 {
        let size = match self.size {
            None if members * ENTRIES_EACH <= SMALL => SMALL,
            None => LARGE,
            Some(size) => next_prime((size as u64).clamp(2, LARGEST)),
        };
        let sizes = std::iter::successors(Some(size), |size| Some(next_prime(size * 2)));
        sizes.into_iter().find(|size| *size >= members).unwrap_or(size)
    }

    pub(super) fn table<T>(self, members: &Members<'_, T>) -> MaglevTable {
        let weights = weights::of(members);
        if weights.is_empty() {
            return MaglevTable { entries: Vec::new(), weights };
        }
        let size = self.entries(weights.len() as u64);
        let permutations: Vec<_> = members
            .iter()
            .map(|member| {
                let id = member.instance.id().as_str().as_bytes();
                (XxHash64::oneshot(0, id) % size, XxHash64::oneshot(1, id) % (size - 1) + 1)
            })
            .collect();
        MaglevTable { entries: populate(&permutations, &weights, size), weights }
    }
}

/// What [`Maglev`] knows of a ready set.
#[derive(Debug)]
pub struct MaglevTable {
    entries: Vec<u32>,
    pub(super) weights: Vec<u32>,
}

impl MaglevTable {
    /// Where a hash goes.
    #[inline]
    pub(super) fn get(&self, hash: u64) -> Option<usize> {
        // Below the length, which is a usize.
        #[allow(clippy::cast_possible_truncation)]
        let at = hash.checked_rem(self.entries.len() as u64)? as usize;
        self.entries.get(at).map(|&index| index as usize)
    }

    /// Where a hash goes if not to the first that comes: every key has an order of its own, so that what one instance
    /// loses is shared out among all others.
    pub(super) fn jumps(&self, hash: u64) -> impl Iterator<Item = usize> {
        (0..JUMPS).filter_map(move |jump| self.get(if jump == 0 { hash } else { mix(hash ^ mix(jump)) }))
    }
}

/// Scatters the bits of a number (the finish of `SplitMix64`).
#[inline]
pub(super) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// Fills a table: members take turns, each takes the next entry of its permutation `offset + n * skip` that is free.
/// A member has its turn number n not before its weight is due it: Envoy's rule.
fn populate(permutations: &[(u64, u64)], weights: &[u32], size: u64) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    let len = usize::try_from(size).unwrap_or(usize::MAX);
    let mut entries = vec![FREE; len];
    let mut places: Vec<u64> = permutations.iter().map(|&(offset, _)| offset).collect();
    let mut take = |member: usize| {
        let skip = permutations[member].1;
        loop {
            // Below `size`, which is the length.
            #[allow(clippy::cast_possible_truncation)]
            let at = places[member] as usize;
            places[member] += skip;
            if places[member] >= size {
                places[member] -= size;
            }
            if entries[at] == FREE {
                entries[at] = u32::try_from(member).unwrap_or(FREE);
                return;
            }
        }
    };
    let most = u64::from(weights.iter().copied().max().unwrap_or(0));
    if weights.iter().all(|&weight| u64::from(weight) == most) {
        (0..permutations.len()).cycle().take(len).for_each(take);
        return entries;
    }
    // In which round a member has its next turn: a list of members for each round, as each is in one at a time.
    // Rounds in which the heaviest would take more than there is never come.
    let mut rounds = vec![NOBODY; len + 2];
    let mut next = vec![NOBODY; weights.len()];
    let mut taken = vec![0_u64; weights.len()];
    for member in (0..weights.len()).rev().filter(|&member| weights[member] > 0) {
        next[member] = std::mem::replace(&mut rounds[1], member);
    }
    let (mut left, mut round) = (len, 1);
    while left > 0 && round < rounds.len() {
        let mut member = std::mem::replace(&mut rounds[round], NOBODY);
        while member != NOBODY && left > 0 {
            take(member);
            left -= 1;
            taken[member] += 1;
            let due = (taken[member] * most).div_ceil(u64::from(weights[member]));
            let due = usize::try_from(due).unwrap_or(usize::MAX).max(round + 1);
            let following = next[member];
            if let Some(first) = rounds.get_mut(due) {
                next[member] = std::mem::replace(first, member);
            }
            member = following;
        }
        round += 1;
    }
    entries
}

/// The end of a list of members.
const NOBODY: usize = usize::MAX;

fn next_prime(from: u64) -> u64 {
    let prime =
        |number: &u64| (2..).take_while(|f| f * f <= *number).all(|factor| !number.is_multiple_of(factor));
    (from.max(2)..).find(prime).unwrap_or(65_537)
}

impl Policy for Maglev {
    type Table = MaglevTable;
    type Local = fastrand::Rng;

    fn build(&self, members: &Members<'_, MaglevTable>) -> MaglevTable {
        self.table(members)
    }

    fn local(&self, seed: u64) -> fastrand::Rng {
        draw::rng(seed)
    }

    #[inline]
    fn pick(&self, table: &MaglevTable, rng: &mut fastrand::Rng, choice: &Choice<'_>) -> Option<usize> {
        let hash = choice.key().map_or_else(|| rng.u64(..), Key::hash);
        let first = table.get(hash)?;
        if first < choice.len() && choice.allows(first) {
            return Some(first);
        }
        let other = table.jumps(hash).find(|&index| index < choice.len() && choice.allows(index));
        other.or_else(|| weights::among(&table.weights, mix(hash), choice))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, instance, keeps_the_contract};
    use super::*;
    use crate::call::Call;

    #[test]
    fn keeps_to_the_contract() {
        keeps_the_contract(&Maglev::default());
        keeps_the_contract(&Maglev::default().size(0));
    }

    /// Table 1 of the paper: three backends, a table of seven, and what becomes of it when B1 goes.
    #[test]
    fn fills_the_table_of_the_paper() {
        let (b0, b1, b2) = ((3, 4), (0, 2), (3, 1));
        assert_eq!(populate(&[b0, b1, b2], &[1, 1, 1], 7), [1, 0, 1, 0, 2, 2, 0]);
        assert_eq!(populate(&[b0, b2], &[1, 1], 7), [0, 0, 0, 0, 1, 1, 1]);
    }

    fn entries(table: &MaglevTable, members: usize) -> Vec<usize> {
        let mut counts = vec![0; members];
        table.entries.iter().for_each(|&index| counts[index as usize] += 1);
        counts
    }

    #[test]
    fn equal_weights_have_the_same_number_of_entries_or_one_more() {
        for members in [1, 2, 3, 100, 655] {
            let scene = Scene::new(Maglev::default(), &vec![7; members]);
            assert_eq!(scene.table.entries.len(), 65_537);
            let counts = entries(&scene.table, members);
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }
        // What was measured for N = 1000.
        let scene = Scene::new(Maglev::default().size(65_537), &[1; 1_000]);
        let counts = entries(&scene.table, 1_000);
        assert_eq!((*counts.iter().min().unwrap(), *counts.iter().max().unwrap()), (65, 66));
        let scene = Scene::new(Maglev::default(), &[1; 1_000]);
        assert_eq!(scene.table.entries.len(), 655_373);
    }

    #[test]
    fn weights_are_shares_of_the_table() {
        let weights = [1, 2, 3, 10, 0, 84];
        let scene = Scene::new(Maglev::default(), &weights);
        for (&count, &weight) in entries(&scene.table, 6).iter().zip(&weights) {
            let due = f64::from(weight) * 655.37;
            assert!((count as f64 - due).abs() <= 3.0, "{count} of {due}");
        }
        let scene = Scene::new(Maglev::default(), &[65_535, 1]);
        assert_eq!(entries(&scene.table, 2)[1], 2);
    }

    /// The paper, section 5.3, and what was measured for N = 1000: when one goes, at most 1 % of the others' keys move.
    #[test]
    fn few_others_move_when_one_goes() {
        let all: Vec<_> = (0..1_000).map(|number| instance(number, 1)).collect();
        let mut rest = all.clone();
        rest.remove(500);
        let maglev = Maglev::default().size(65_537);
        let (mut before, mut after) = (Scene::of(maglev, all), Scene::of(maglev, rest));
        let (mut kept, mut moved) = (0, 0);
        for key in 0..50_000 {
            let was = before.pick_key(key).unwrap();
            let is = after.pick_key(key).unwrap();
            if was != 500 {
                kept += 1;
                moved += usize::from(before.instances[was].id() != after.instances[is].id());
            }
        }
        assert!(moved * 100 <= kept, "{moved} of {kept}");
    }

    #[test]
    fn a_key_goes_to_one_instance_and_what_it_loses_is_shared_out() {
        let mut scene = Scene::new(Maglev::default(), &[1; 10]);
        let mut counts = [0; 10];
        for number in 0..3_000_u64 {
            let key = Call::new().with_key(Key::new(number.to_le_bytes()));
            let first = scene.pick(&key).unwrap();
            assert_eq!(scene.pick(&key), Some(first));
            if first == 3 {
                let mut call = key;
                call.avoid_number(3);
                counts[scene.pick(&call).unwrap()] += 1;
            }
        }
        assert!(counts[3] == 0 && counts.iter().filter(|&&count| count > 10).count() == 9, "{counts:?}");
        // Without a key: anywhere.
        assert!(scene.counts(1_000, &Call::new()).iter().all(|&count| count > 60));
    }
}
