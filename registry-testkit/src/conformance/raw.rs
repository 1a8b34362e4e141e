//! Raw: entries that others write, and what others see of ours.

use callsign_core::{InstanceId, Listed, Snapshot};
use tokio::time::Instant;

use super::{instance, open, service, tuning};
use crate::fixture::{Fixture, Tuning};
use crate::wait::{eventually, ok, until};

/// An entry that somebody else wrote is found, by a watch that lists it and by one that hears of it, and so is its end.
pub async fn found_and_gone(fixture: &impl Fixture) {
    let grace = std::time::Duration::from_secs(1);
    let tuning = Tuning { grace: Some(grace), ..tuning(fixture) };
    let (clients, later, service) = (ok(fixture.open(&tuning), "open"), open(fixture), service());
    let visible = fixture.caps().visible;
    let mut watch = clients.watch(&service);
    ok(watch.ready().await, "ready");
    let id = InstanceId::new("127.0.0.1:4711").unwrap();
    fixture.inject(&service, &id, "127.0.0.1:4711").await.unwrap();
    let has_it = |s: &Snapshot| s.iter().any(|listed| listed.address().to_string() == "127.0.0.1:4711");
    until(&mut watch, visible, "seen", has_it).await;
    until(&mut later.watch(&service), visible, "listed", has_it).await;
    fixture.delete(&service, &id).await.unwrap();
    until(&mut watch, visible, "gone or flagged", |s| s.iter().all(Listed::is_held)).await;
    until(&mut watch, visible + grace, "gone", Snapshot::is_empty).await;
}

/// What nobody can understand is left out and counted, and hides nothing else.
pub async fn malformed_entries_are_skipped(fixture: &impl Fixture) {
    let (servers, clients, late, service) = (open(fixture), open(fixture), open(fixture), service());
    let good = ok(servers.register(instance(&service, 1)).await, "register");
    let visible = fixture.caps().visible;
    let mut watch = clients.watch(&service);
    until(&mut watch, visible, "seen", |s| s.len() == 1).await;
    let bad = fixture.inject_malformed(&service).await.unwrap();
    assert!(bad >= fixture.caps().malformed, "only {bad} sorts of malformed entries");
    let more = ok(servers.register(instance(&service, 2)).await, "register");
    let all = |s: &Snapshot| s.len() == 2 && s.skipped() == bad;
    until(&mut watch, visible, &format!("two good ones, {bad} skipped"), all).await;
    until(&mut late.watch(&service), visible, &format!("listed: two good ones, {bad} skipped"), all).await;
    let listed = ok(late.services().await, "services");
    assert!(listed.contains(&service));
    drop((good, more));
}

/// An entry that is deleted is restored by its owner, as long as that lives.
pub async fn deleted_behind_its_back(fixture: &impl Fixture) {
    let (servers, service) = (open(fixture), service());
    let registration = ok(servers.register(instance(&service, 1)).await, "register");
    for _ in 0..3 {
        fixture.delete(&service, &registration.id()).await.unwrap();
        let start = Instant::now();
        let restored = fixture.caps().restored;
        eventually(restored, "it is back", async || fixture.count(&service).await.unwrap() == 1).await;
        let left = restored.saturating_sub(start.elapsed());
        tokio::time::timeout(left.max(fixture.caps().visible), registration.registered())
            .await
            .unwrap()
            .unwrap();
    }
    ok(registration.deregister().await, "deregister");
    assert_eq!(fixture.count(&service).await.unwrap(), 0);
}

/// The check of a registry works, and leaves nothing behind.
pub async fn nothing_is_left_behind(fixture: &impl Fixture) {
    let (registry, service) = (open(fixture), service());
    let before = ok(registry.services().await, "services");
    let report = registry.check().await;
    assert!(report.is_ok(), "{report}");
    assert_eq!(ok(registry.services().await, "services"), before);
    assert_eq!(fixture.count(&service).await.unwrap(), 0);
}
