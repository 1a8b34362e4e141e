//! What there is to pick from.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use callsign_bench_figures::Result;
use callsign_core::{Instance, InstanceWatch};
use callsign_lb::Endpointer;

pub(crate) fn instance(number: usize) -> Result<Instance> {
    let address = format!("10.{}.{}.{}:80", number >> 16, number >> 8 & 255, number & 255);
    Ok(Instance::new("book", address)?.with_weight(1 + number as u32 % 3))
}

pub(crate) fn listed(count: usize) -> Result<Vec<Instance>> {
    (0..count).map(instance).collect()
}

/// How many endpoints were made.
pub(crate) static DIALS: AtomicUsize = AtomicUsize::new(0);

async fn connect(_: Arc<Instance>) -> std::io::Result<usize> {
    Ok(DIALS.fetch_add(1, Ordering::Relaxed))
}

/// Endpoints of all instances, when they are there.
pub(crate) async fn endpoints(watch: InstanceWatch, count: usize) -> Result<Endpointer<usize>> {
    let endpoints = Endpointer::builder(watch, connect).concurrent_dials(1024).build();
    tokio::time::timeout(Duration::from_secs(60), endpoints.wait_for(|set| set.len() == count)).await?;
    Ok(endpoints)
}
