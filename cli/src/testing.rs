//! Snapshots for unit tests, as a registry makes them.

use std::sync::Arc;

use callsign::{Instance, Registry, Snapshot};

/// What a registry of nothing but these shows.
pub(crate) async fn snapshot(service: &str, instances: Vec<Instance>) -> Arc<Snapshot> {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let name = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let registry: Registry = callsign::open(&format!("memory:cli-tests-{name}")).unwrap();
    let mut registrations = Vec::new();
    for instance in instances {
        registrations.push(registry.register(instance).await.unwrap());
    }
    let mut watch = registry.watch(&service.parse().unwrap());
    let mut snapshot = watch.ready().await.unwrap();
    while snapshot.len() < registrations.len() {
        snapshot = watch.changed().await.unwrap();
    }
    snapshot
}
