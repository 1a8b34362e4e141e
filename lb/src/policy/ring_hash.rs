//! [`RingHash`]: the same key to the same instance, by a ring.

use twox_hash::XxHash64;

use super::{Choice, Members, Policy, draw, weights};
use crate::call::Key;

/// The [key](crate::Key) of a call says where it goes: to the next point on a ring on which each instance has points
/// by its weight. "Ketama", with the points of gRPC (gRFC A42) and Envoy: the XXH64 of `ID_0`, `ID_1` and so on,
/// where the id of an instance is its address unless it was given another. A client of theirs with a ring of the same
/// size makes the same choice.
///
/// When an instance goes, only its keys move, to the next points. Its shares are more uneven than those of
/// [`Maglev`](super::Maglev), and a pick is slower. A call without a key goes anywhere.
#[derive(Debug, Clone, Copy)]
pub struct RingHash {
    size: Size,
}

#[derive(Debug, Clone, Copy)]
enum Size {
    Each(usize),
    Between(usize, usize),
}

/// The most points of a ring: Envoy's default.
const MOST: usize = 8 << 20;

impl Default for RingHash {
    /// With 160 points for each instance on average.
    fn default() -> Self {
        Self { size: Size::Each(160) }
    }
}

impl RingHash {
    /// A ring of gRPC's size: from 1,024 to 4,096 points, as many as it takes to respect the weights. It is uneven
    /// from a few hundred instances on.
    #[must_use]
    pub fn grpc() -> Self {
        Self::default().size(1_024, 4_096)
    }

    /// With so many points for each instance on average, 1 at least.
    #[must_use]
    pub fn points(mut self, each: usize) -> Self {
        self.size = Size::Each(each.max(1));
        self
    }

    /// With `least` to `most` points in all, as many as it takes to respect the weights; 8,388,608 at most.
    #[must_use]
    pub fn size(mut self, least: usize, most: usize) -> Self {
        self.size = Size::Between(least.clamp(1, MOST), most.clamp(1, MOST));
        self
    }
}

/// What [`RingHash`] knows of a ready set.
#[derive(Debug)]
pub struct Ring {
    /// Sorted by the hash.
    points: Vec<(u64, u32)>,
    weights: Vec<u32>,
}

impl Policy for RingHash {
    type Table = Ring;
    type Local = fastrand::Rng;

    #[allow(clippy::cast_precision_loss, reason = "gRPC's rule is in floating point")]
    fn build(&self, members: &Members<'_, Ring>) -> Ring {
        let weights = weights::of(members);
        let sum = weights::sum(&weights) as f64;
        let least = f64::from(weights.iter().copied().filter(|&weight| weight > 0).min().unwrap_or(1)) / sum;
        let size = match self.size {
            Size::Each(each) => each.saturating_mul(weights.len()).min(MOST) as f64,
            // As large as it takes for the smallest weight to have a whole number of points.
            Size::Between(low, high) => ((least * low as f64).ceil() / least).min(high as f64),
        };
        let (mut points, mut target) = (Vec::new(), 0.0);
        for (index, (member, &weight)) in (0_u32..).zip(members.iter().zip(&weights)) {
            if weight == 0 {
                continue;
            }
            target += size * f64::from(weight) / sum;
            let mut name = format!("{}_", member.instance.id());
            let stem = name.len();
            // A weight that is too small for a point has one all the same.
            let mut point = 0;
            while point == 0 || (points.len() as f64) < target {
                name.truncate(stem);
                name.push_str(&point.to_string());
                points.push((XxHash64::oneshot(0, name.as_bytes()), index));
                point += 1;
            }
        }
        points.sort_unstable();
        Ring { points, weights }
    }

    fn local(&self, seed: u64) -> fastrand::Rng {
        draw::rng(seed)
    }

    fn pick(&self, ring: &Ring, rng: &mut fastrand::Rng, choice: &Choice<'_>) -> Option<usize> {
        let hash = choice.key().map_or_else(|| rng.u64(..), Key::hash);
        let start = ring.points.partition_point(|(point, _)| *point < hash);
        let walk = ring.points[start..].iter().chain(&ring.points[..start]).map(|&(_, index)| index as usize);
        // As far as it takes to meet somebody else, in all likelihood.
        let found = walk.take(1_024).find(|&index| index < choice.len() && choice.allows(index));
        found.or_else(|| weights::among(&ring.weights, hash, choice))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use callsign_core::Instance;

    use super::super::testing::{Scene, instance, keeps_the_contract};
    use super::*;
    use crate::call::Call;

    #[test]
    fn keeps_to_the_contract() {
        keeps_the_contract(&RingHash::default());
        keeps_the_contract(&RingHash::grpc());
    }

    /// The ring of six hosts with two points each in Envoy's own test (`ring_hash_lb_test.cc`).
    #[test]
    fn has_the_points_of_envoy() {
        let hosts =
            (90..96).map(|port| Arc::new(Instance::new("book", format!("127.0.0.1:{port}")).unwrap()));
        let mut scene = Scene::of(RingHash::default().size(12, 12), hosts.collect());
        let ring: Vec<_> = scene.table.points.iter().map(|&(hash, index)| (hash, index + 90)).collect();
        let envoy: [(u64, u32); 12] = [
            (833_437_586_790_550_860, 94),
            (928_266_305_478_181_108, 92),
            (1_033_482_794_131_418_490, 90),
            (3_551_244_743_356_806_947, 95),
            (3_851_675_632_748_031_481, 93),
            (5_583_722_120_771_150_861, 91),
            (6_311_230_543_546_372_928, 91),
            (7_700_377_290_971_790_572, 93),
            (13_144_177_310_400_110_813, 95),
            (13_444_792_449_719_432_967, 92),
            (15_516_499_411_664_133_160, 94),
            (16_117_243_373_044_804_889, 90),
        ];
        assert_eq!(ring, envoy);
        for (hash, host) in
            [(0, 94), (u64::MAX, 94), (3_551_244_743_356_806_947, 95), (3_551_244_743_356_806_948, 93)]
        {
            let call = Call::new().with_key(Key::from_hash(hash));
            assert_eq!(scene.pick(&call), Some(host - 90));
        }
        // The next one on the ring where the first was tried.
        let mut call = Call::new().with_key(Key::from_hash(0));
        call.avoid_number(4);
        assert_eq!(scene.pick(&call), Some(2));
    }

    #[test]
    fn points_are_shared_out_by_weight() {
        let mut scene = Scene::new(RingHash::default(), &[1, 2, 3, 4]);
        let mut points = [0; 4];
        scene.table.points.iter().for_each(|&(_, index)| points[index as usize] += 1);
        assert_eq!(points, [64, 128, 192, 256]);
        let counts = scene.key_counts(100_000);
        for (count, weight) in counts.iter().zip([1.0, 2.0, 3.0, 4.0]) {
            assert!((*count as f64 / (weight * 10_000.0) - 1.0).abs() < 0.25, "{counts:?}");
        }
        // gRPC: as many points as it takes for the smallest to have whole ones, 4,096 at most.
        assert_eq!(Scene::new(RingHash::grpc(), &[1; 3]).table.points.len(), 1_026);
        assert_eq!(Scene::new(RingHash::grpc(), &[1, 2_000]).table.points.len(), 2_001);
        assert_eq!(Scene::new(RingHash::grpc(), &[1, 65_535]).table.points.len(), 4_096);
    }

    #[test]
    fn only_the_keys_of_the_one_that_goes_move() {
        let all: Vec<_> = (0..20).map(|number| instance(number, 1)).collect();
        let mut rest = all.clone();
        rest.remove(7);
        let (mut before, mut after) =
            (Scene::of(RingHash::default(), all), Scene::of(RingHash::default(), rest));
        for key in 0..20_000 {
            let was = before.pick_key(key).unwrap();
            let is = after.pick_key(key).unwrap();
            assert!(was == 7 || before.instances[was].id() == after.instances[is].id());
        }
    }

    /// Of a hundred instances none has more than 1.3 times its share.
    #[test]
    fn shares_are_as_even_as_was_measured() {
        let counts = Scene::new(RingHash::default(), &[1; 100]).key_counts(200_000);
        assert!(*counts.iter().max().unwrap() < 2_600, "{counts:?}");
    }
}
