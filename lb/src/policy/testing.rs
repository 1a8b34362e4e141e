//! Ready sets by hand, for the tests of policies.

use std::sync::Arc;

use callsign_core::Instance;

use super::{Choice, Member, Members, Policy};
use crate::call::{Call, Key};
use crate::stats::Stats;

/// Weights that trip up balancers: the traps are Go kit's and pingora's, of the first two empty and zero sets.
pub(crate) fn awkward_weights() -> Vec<Vec<u32>> {
    vec![
        vec![],
        vec![0],
        vec![0, 0, 0],
        vec![1],
        vec![u32::MAX],
        vec![65_535, 1],
        vec![1, 65_535],
        vec![0, 1],
        vec![0, 0, 5, 0],
        vec![u32::MAX, 1, u32::MAX],
        vec![1; 100],
    ]
}

/// A set of instances `10.0.0.N:80` with these weights.
pub(crate) struct Scene<P: Policy> {
    pub(crate) policy: P,
    pub(crate) instances: Vec<Arc<Instance>>,
    pub(crate) stats: Vec<Arc<Stats>>,
    pub(crate) numbers: Vec<u64>,
    pub(crate) table: P::Table,
    pub(crate) local: P::Local,
}

pub(crate) fn instance(number: usize, weight: u32) -> Arc<Instance> {
    let address = format!("10.{}.{}.{}:80", number >> 16, number >> 8 & 255, number & 255);
    Arc::new(Instance::new("book", address).unwrap().with_weight(weight))
}

impl<P: Policy> Scene<P> {
    pub(crate) fn new(policy: P, weights: &[u32]) -> Self {
        let instances = weights.iter().enumerate().map(|(n, &weight)| instance(n, weight)).collect();
        Self::of(policy, instances)
    }

    pub(crate) fn of(policy: P, instances: Vec<Arc<Instance>>) -> Self {
        let stats: Vec<_> = instances.iter().map(|_| Arc::new(Stats::default())).collect();
        let members: Vec<_> = instances.iter().zip(&stats).map(|(i, s)| Member::new(i, s)).collect();
        let table = policy.build(&Members::new(&members, None));
        let local = policy.local(1);
        let numbers = (0..instances.len() as u64).collect();
        Self { policy, stats, numbers, table, local, instances }
    }

    pub(crate) fn pick(&mut self, call: &Call) -> Option<usize> {
        self.policy.pick(&self.table, &mut self.local, &Choice::new(&self.numbers, call))
    }

    pub(crate) fn pick_key(&mut self, key: u64) -> Option<usize> {
        self.pick(&Call::new().with_key(Key::new(key.to_le_bytes())))
    }

    /// How often each is picked.
    pub(crate) fn counts(&mut self, picks: usize, call: &Call) -> Vec<usize> {
        let mut counts = vec![0; self.numbers.len()];
        for _ in 0..picks {
            if let Some(index) = self.pick(call) {
                counts[index] += 1;
            }
        }
        counts
    }

    /// How many of the keys from 0 each gets.
    pub(crate) fn key_counts(&mut self, keys: u64) -> Vec<usize> {
        let mut counts = vec![0; self.numbers.len()];
        for key in 0..keys {
            counts[self.pick_key(key).unwrap()] += 1;
        }
        counts
    }
}

/// What every policy keeps to: whatever the weights, a pick is a member that is allowed, and there is one as long as
/// one is.
pub(crate) fn keeps_the_contract<P: Policy>(policy: &P) {
    for weights in awkward_weights() {
        let mut scene = Scene::new(policy.clone(), &weights);
        for key in [None, Some(Key::from_hash(0)), Some(Key::new("k"))] {
            let mut call = key.map_or(Call::new(), |key| Call::new().with_key(key));
            let all = scene.numbers.len().min(8);
            for avoided in 0..=all {
                for _ in 0..20 {
                    match scene.pick(&call) {
                        Some(index) => {
                            assert!(
                                index >= avoided && index < weights.len(),
                                "{policy:?} {weights:?} {index}"
                            );
                        }
                        None => assert!(avoided == weights.len(), "{policy:?} {weights:?} {avoided}"),
                    }
                }
                call.avoid_number(avoided as u64);
            }
        }
        // A table and a set that do not belong together are no reason to panic either.
        let numbers: Vec<u64> = (0..150).collect();
        let call = Call::new().with_key(Key::new("k"));
        for len in [0, 1, 2, 3, 4, 150] {
            policy.pick(&scene.table, &mut scene.local, &Choice::new(&numbers[..len], &call));
        }
    }
    // The same instance twice.
    let mut scene = Scene::of(policy.clone(), vec![instance(1, 2), instance(1, 2), instance(2, 2)]);
    for key in 0..100 {
        assert!(scene.pick_key(key).unwrap() < 3);
    }
}
