//! What one change among ten thousand instances costs, all of it off the path of picks: time on a processor of the thread that
//! follows the registry's news, until handles pick from the new set.

use std::hint::black_box;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use callsign_bench_figures::{Figures, Result, quantile, thread_time};
use callsign_core::{Instance, InstanceWatch, Removal, Update};
use callsign_lb::{
    Balancer, Endpointer, Maglev, P2cPending, P3cEwma, Policy, RoundRobin, WeightedRandom, WeightedRoundRobin,
};
#[cfg(feature = "pingora")]
use futures_util::FutureExt;
use tokio::runtime::{Builder, Runtime};

use crate::instances::{DIALS, endpoints, instance, listed};
use crate::support::Script;

const SIZE: usize = 10_000;
const CASE: &str = "10000 instances";

pub(crate) fn measure(figures: &mut Figures, changes: usize) -> Result<()> {
    // The registry's own tasks have a thread for themselves.
    let registries = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (script, registry, watch) = registries.block_on(async { Script::open() });
    script.says(Ok(Update::Full(listed(SIZE)?)));
    // All that follows it has this one.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut on =
            Changes { script: script.clone(), watch: watch.clone(), changes, figures: &mut *figures };
        on.by("endpoints alone", |_| ()).await?;
        on.by("round robin", balanced(RoundRobin::default())).await?;
        on.by("P2cPending", balanced(P2cPending::default())).await?;
        on.by("P3cEwma", balanced(P3cEwma::default())).await?;
        on.by("weighted round robin", balanced(WeightedRoundRobin::default())).await?;
        on.by("weighted random", balanced(WeightedRandom::default())).await?;
        on.by("Maglev", balanced(Maglev::default())).await
    })?;
    stalls(&runtime, &script, &watch, figures)?;
    drop(registry);
    kit(figures, changes);
    #[cfg(feature = "pingora")]
    pingora(figures, changes)?;
    Ok(())
}

fn balanced<P: Policy>(policy: P) -> impl FnOnce(Endpointer<usize>) -> Balancer<usize, P> {
    |endpoints| Balancer::new(endpoints, policy)
}

struct Changes<'a> {
    script: Script,
    watch: InstanceWatch,
    changes: usize,
    figures: &'a mut Figures,
}

impl Changes<'_> {
    async fn by<T>(&mut self, who: &str, follow: impl FnOnce(Endpointer<usize>) -> T) -> Result<()> {
        let endpoints = endpoints(self.watch.clone(), SIZE).await?;
        let follower = follow(endpoints.clone());
        let (mut weights, mut joins, mut waits) = (Vec::new(), Vec::new(), Vec::new());
        let before = DIALS.load(Ordering::Relaxed);
        for change in 0..self.changes {
            let heavier = instance(SIZE / 2)?.with_weight(2 + change as u32 % 2);
            weights.push(self.see(&endpoints, put(heavier)).await.0);
        }
        let dials = DIALS.load(Ordering::Relaxed) - before;
        for _ in 0..self.changes / 2 {
            let new = instance(SIZE)?;
            let id = new.id().clone();
            let (work, wait) = self.see(&endpoints, put(new)).await;
            joins.push(work);
            waits.push(wait);
            self.see(&endpoints, Update::Delta { put: vec![], gone: vec![(id, Removal::Announced)] }).await;
        }
        drop(follower);
        let dialled = DIALS.load(Ordering::Relaxed) - before - dials;
        self.figures.add("work of a change of weight", CASE, who, "us", &weights);
        self.figures.add("work of a new instance", CASE, who, "us", &joins);
        self.figures.add("from the news of an instance to its first pick", CASE, who, "us", &waits);
        self.figures.count("dials of a change of weight", CASE, who, "", dials as f64 / self.changes as f64);
        self.figures.count("dials of a new instance", CASE, who, "", dialled as f64 / joins.len() as f64);
        Ok(())
    }

    /// The microseconds of work, and those that passed, until the set that can be picked from is another one.
    async fn see(&self, endpoints: &Endpointer<usize>, update: Update) -> (f64, f64) {
        let before = endpoints.ready_set();
        let (begun, worked) = (Instant::now(), thread_time());
        self.script.says(Ok(update));
        endpoints.wait_for(|set| !std::ptr::eq(set, &*before)).await;
        let (work, wait) = (thread_time() - worked, begun.elapsed());
        (work.as_secs_f64() * 1e6, wait.as_secs_f64() * 1e6)
    }
}

fn put(instance: Instance) -> Update {
    Update::Delta { put: vec![instance], gone: vec![] }
}

/// Picks of a batch: short enough for one wait to be seen in it.
const BATCH: u32 = 16;
const LASTS: Duration = Duration::from_millis(400);

/// How long picks take on another thread, while nothing changes and while something does every 2 ms.
fn stalls(runtime: &Runtime, script: &Script, watch: &InstanceWatch, figures: &mut Figures) -> Result<()> {
    let endpoints = runtime.block_on(endpoints(watch.clone(), SIZE))?;
    let balancer = Balancer::new(endpoints, RoundRobin::default());
    for (case, changing) in [("10000 instances, quiet", false), ("10000 instances, changes", true)] {
        let mut balancer = balancer.clone();
        let picker = thread::spawn(move || {
            let (mut times, begun) = (Vec::with_capacity(1 << 22), Instant::now());
            while begun.elapsed() < LASTS {
                let batch = Instant::now();
                for _ in 0..BATCH {
                    black_box(balancer.pick().is_ok());
                }
                times.push(batch.elapsed().as_nanos() as f64 / f64::from(BATCH));
            }
            times
        });
        runtime.block_on(async {
            let mut weight = 4;
            while !picker.is_finished() {
                if changing {
                    weight ^= 1;
                    script.says(Ok(put(instance(SIZE / 2)?.with_weight(weight))));
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        })?;
        let times = picker.join().map_err(|_| "the picker panicked")?;
        figures.count("median of picks", case, "round robin", "ns", quantile(&times, 0.5));
        figures.count("p99.9 of picks", case, "round robin", "ns", quantile(&times, 0.999));
    }
    Ok(())
}

/// Go kit's way: a new list from the map of all endpoints, put in under the lock.
fn kit(figures: &mut Figures, changes: usize) {
    let known: std::collections::HashMap<String, Arc<usize>> =
        (0..SIZE).map(|n| (format!("10.{}.{}.{}:80", n >> 16, n >> 8 & 255, n & 255), Arc::new(n))).collect();
    let list = RwLock::new(Vec::new());
    let change = || {
        let worked = thread_time();
        // Go kit's cache sorts by address each time.
        let mut addresses: Vec<_> = known.keys().collect();
        addresses.sort();
        let new: Vec<_> = addresses.iter().map(|address| Arc::clone(&known[*address])).collect();
        if let Ok(mut list) = list.write() {
            *list = new;
            black_box(&*list);
        }
        (thread_time() - worked).as_secs_f64() * 1e6
    };
    let samples: Vec<_> = (0..changes).map(|_| change()).collect();
    figures.add("work of a change of weight", CASE, "Go kit's way", "us", &samples);
}

/// pingora reads its whole list for each change, and builds its selection anew if it is another one.
#[cfg(feature = "pingora")]
fn pingora(figures: &mut Figures, changes: usize) -> Result<()> {
    let balancer = crate::contestants::pingora::changing(SIZE)?;
    let mut samples = Vec::new();
    for _ in 0..changes {
        let worked = thread_time();
        balancer.update().now_or_never().ok_or("a list at hand takes no time")??;
        samples.push((thread_time() - worked).as_secs_f64() * 1e6);
    }
    figures.add("work of a change of weight", CASE, "pingora round robin", "us", &samples);
    Ok(())
}
