//! pingora's selection by turns.

use std::collections::{BTreeSet, HashMap};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use callsign_bench_figures::Result;
use futures_util::FutureExt;
use pingora_load_balancing::discovery::ServiceDiscovery;
use pingora_load_balancing::selection::RoundRobin;
use pingora_load_balancing::{Backend, Backends, LoadBalancer};

use super::{Contestant, Handle};

/// A list at hand, in which one backend has another weight each time it is asked for.
struct Alternating {
    lists: [BTreeSet<Backend>; 2],
    turn: AtomicUsize,
}

#[async_trait]
impl ServiceDiscovery for Alternating {
    async fn discover(&self) -> pingora_error::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Ok((self.lists[turn % 2].clone(), HashMap::new()))
    }
}

/// A balancer that finds one of its instances changed each time it is updated.
pub(crate) fn changing(instances: usize) -> Result<LoadBalancer<RoundRobin>> {
    let list = |weight: usize| {
        let backend = |n: usize| {
            let address = format!("10.{}.{}.{}:80", n >> 16, n >> 8 & 255, n & 255);
            Backend::new_with_weight(&address, if n == 1 { weight } else { 1 })
        };
        (0..instances).map(backend).collect::<pingora_error::Result<_>>()
    };
    let alternating = Alternating { lists: [list(1)?, list(2)?], turn: AtomicUsize::new(0) };
    let balancer = LoadBalancer::from_backends(Backends::new(Box::new(alternating)));
    balancer.update().now_or_never().ok_or("a list at hand takes no time")??;
    Ok(balancer)
}

pub(super) fn contestant(instances: usize) -> Result<Contestant> {
    let balancer = Arc::new(changing(instances)?);
    Ok(Contestant::new("pingora round robin", move |_| -> Handle {
        let balancer = Arc::clone(&balancer);
        Box::new(move |picks| {
            for _ in 0..picks {
                black_box(balancer.select(b"", 16));
            }
        })
    }))
}
