//! A policy of one's own, with weights, and how to test one: `cargo test -p callsign-lb --example own_policy`.
//!
//! Each call goes to the instance that has the fewest calls in flight for its weight. All are looked at, which is right for a
//! handful of instances.

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::collections::HashMap;
use std::sync::Arc;

use callsign_core::{Instance, RegistryUrl, memory};
use callsign_lb::{Balancer, Choice, Endpointer, Members, Policy, Stats};

#[derive(Debug, Clone, Default)]
struct LeastLoad;

/// What one instance carries, and how many of those it is to.
struct Load {
    stats: Arc<Stats>,
    weight: u64,
}

impl Policy for LeastLoad {
    type Table = Vec<Load>;
    /// Where to begin to look, so that among equals all have their turn.
    type Local = usize;

    fn build(&self, members: &Members<'_, Vec<Load>>) -> Vec<Load> {
        let load = |instance: &Instance, stats| {
            // Weights may all be 0.
            Load { stats, weight: u64::from(instance.weight().max(1)) }
        };
        members.iter().map(|member| load(member.instance, Arc::clone(member.stats))).collect()
    }

    fn local(&self, seed: u64) -> usize {
        seed as usize
    }

    fn pick(&self, table: &Vec<Load>, next: &mut usize, choice: &Choice<'_>) -> Option<usize> {
        *next = next.wrapping_add(1);
        let len = choice.len();
        let turns = (0..len).map(|n| (*next % len + n) % len).filter(|&index| choice.allows(index));
        // As it would be with this call; compared without dividing.
        let would_be = |index: usize| (u64::from(table[index].stats.in_flight()) + 1, table[index].weight);
        turns.min_by(|&one, &other| {
            let ((a, of_a), (b, of_b)) = (would_be(one), would_be(other));
            (a * of_b).cmp(&(b * of_a))
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = memory::open(&RegistryUrl::parse("memory:example")?)?;
    let _large = registry.register(Instance::new("book", "10.0.0.1:80")?.with_weight(3)).await?;
    let _small = registry.register(Instance::new("book", "10.0.0.2:80")?).await?;
    let watch = registry.watch(&"book".parse()?);
    // An endpoint is whatever it takes to call an instance: here its address.
    let endpoints = Endpointer::new(watch, |instance: Arc<Instance>| async move {
        Ok::<_, std::io::Error>(instance.address().to_string())
    });
    let mut balancer = Balancer::new(endpoints, LeastLoad);
    balancer.endpoints().wait_for(|set| set.len() == 2).await;
    let mut calls = HashMap::<String, usize>::new();
    let mut in_flight = Vec::new();
    for _ in 0..8 {
        let picked = balancer.pick()?;
        *calls.entry(picked.to_string()).or_default() += 1;
        in_flight.push(picked);
    }
    println!("{calls:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use callsign_lb::{Call, Member};

    use super::*;

    /// What becomes of so many calls, none of which ends, among instances with these weights.
    fn shares(weights: &[u32], calls: usize, call: &Call) -> Vec<usize> {
        let instance = |n: usize| Instance::new("book", format!("10.0.0.{n}:80"));
        let instances = weights
            .iter()
            .enumerate()
            .map(|(n, &weight)| Arc::new(instance(n).expect("it is one").with_weight(weight)));
        let instances: Vec<_> = instances.collect();
        let stats: Vec<_> = weights.iter().map(|_| Arc::<Stats>::default()).collect();
        let members: Vec<_> = instances.iter().zip(&stats).map(|(i, s)| Member::new(i, s)).collect();
        let numbers: Vec<_> = (0..weights.len() as u64).collect();
        let table = LeastLoad.build(&Members::new(&members, None));
        let mut local = LeastLoad.local(7);
        let mut shares = vec![0; weights.len()];
        for _ in 0..calls {
            let picked = LeastLoad.pick(&table, &mut local, &Choice::new(&numbers, call));
            if let Some(index) = picked {
                stats[index].begin();
                shares[index] += 1;
            }
        }
        shares
    }

    #[test]
    fn calls_are_shared_by_weight() {
        assert_eq!(shares(&[1, 2, 5], 80, &Call::new()), [10, 20, 50]);
        assert_eq!(shares(&[1; 4], 100, &Call::new()), [25; 4]);
    }

    #[test]
    fn weights_may_be_anything() {
        assert_eq!(shares(&[], 1, &Call::new()), [0; 0]);
        assert_eq!(shares(&[0, 0], 10, &Call::new()), [5, 5]);
        assert_eq!(shares(&[u32::MAX, u32::MAX], 10, &Call::new()), [5, 5]);
    }

    #[test]
    fn what_the_call_has_tried_is_left_out() {
        let mut call = Call::new();
        call.avoid_number(0);
        assert_eq!(shares(&[9, 1], 10, &call), [0, 10]);
        call.avoid_number(1);
        assert_eq!(shares(&[9, 1], 10, &call), [0, 0]);
    }
}
