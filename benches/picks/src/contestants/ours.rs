//! callsign, through its real `Endpointer` and `Balancer`.

use std::hint::black_box;
use std::sync::Arc;

use callsign_bench_figures::Result;
use callsign_lb::{
    Balancer, Call, Endpointer, Key, Maglev, Outcome, P2cPending, P3cEwma, Policy, RoundRobin,
    WeightedRandom, WeightedRoundRobin,
};
use tokio::runtime::Runtime;

use super::{Contestant, Handle};
use crate::instances::{self, listed};

/// Reads one thing of what was chosen, in its place.
fn choices<P: Policy>(name: &'static str, endpoints: &Endpointer<usize>, policy: P) -> Contestant {
    let balancer = Balancer::with_seed(endpoints.clone(), policy, 1);
    Contestant::new(name, move |_| -> Handle {
        let mut balancer = balancer.clone();
        Box::new(move |picks| {
            let call = Call::new();
            for _ in 0..picks {
                black_box(balancer.choose(&call).map(|slot| Arc::as_ptr(slot.stats())));
            }
        })
    })
}

fn picks<P: Policy>(name: &'static str, endpoints: &Endpointer<usize>, policy: P) -> Contestant {
    let balancer = Balancer::with_seed(endpoints.clone(), policy, 1);
    Contestant::new(name, move |_| -> Handle {
        let mut balancer = balancer.clone();
        Box::new(move |picks| {
            for _ in 0..picks {
                if let Ok(picked) = balancer.pick() {
                    black_box(*picked);
                    picked.report(Outcome::Success);
                }
            }
        })
    })
}

/// Another key each time.
fn keyed<P: Policy>(name: &'static str, endpoints: &Endpointer<usize>, policy: P) -> Contestant {
    let balancer = Balancer::with_seed(endpoints.clone(), policy, 1);
    Contestant::new(name, move |_| -> Handle {
        let mut balancer = balancer.clone();
        let mut key = 0_u64;
        Box::new(move |picks| {
            for _ in 0..picks {
                key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
                if let Ok(picked) = balancer.pick_for(&Call::new().with_key(Key::from_hash(key))) {
                    black_box(*picked);
                    picked.report(Outcome::Success);
                }
            }
        })
    })
}

pub(super) fn contestants(runtime: &Runtime, count: usize) -> Result<Vec<Contestant>> {
    // One for each, so that nobody's statistics are in another's way. All of them follow one list.
    let (script, registry, watch) = runtime.block_on(async { crate::support::Script::open() });
    script.says(Ok(callsign_core::Update::Full(listed(count)?)));
    let endpoints = || runtime.block_on(instances::endpoints(watch.clone(), count));
    let contestants = vec![
        choices("callsign round robin, choice alone", &endpoints()?, RoundRobin::default()),
        choices("callsign P2cPending, choice alone", &endpoints()?, P2cPending::default()),
        choices("callsign P3cEwma, choice alone", &endpoints()?, P3cEwma::default()),
        picks("callsign round robin", &endpoints()?, RoundRobin::default()),
        picks("callsign weighted round robin", &endpoints()?, WeightedRoundRobin::default()),
        picks("callsign weighted random", &endpoints()?, WeightedRandom::default()),
        keyed("callsign Maglev", &endpoints()?, Maglev::default()),
        picks("callsign P2cPending", &endpoints()?, P2cPending::default()),
        picks("callsign P3cEwma", &endpoints()?, P3cEwma::default()),
    ];
    // What was listed stays.
    drop((script, registry));
    Ok(contestants)
}
