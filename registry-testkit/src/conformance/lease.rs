//! Leasing: entries that expire, kept alive, and claimed again once the registry forgot them.

use std::time::Duration;

use callsign_core::Status;
use tokio::time::{Instant, sleep, timeout};

use super::watch::SOON;
use super::{instance, open, service};
use crate::fixture::Fixture;
use crate::record::Recorder;
use crate::wait::{eventually, ok, until, until_status};

/// For ten TTLs nothing happens, and nothing is seen to happen.
pub async fn ten_idle_ttls(fixture: &impl Fixture) {
    let ttl = fixture.caps().ttl.expect("a registry of leases has a TTL");
    let (servers, clients, service) = (open(fixture), open(fixture), service());
    let mut held = Vec::new();
    for n in 0..5 {
        held.push(ok(servers.register(instance(&service, n)).await, n));
    }
    let mut watch = clients.watch(&service);
    let before = until(&mut watch, fixture.caps().visible, "seen", |s| s.len() == 5).await;
    let recorder = Recorder::start(watch.clone());
    let until_then = Instant::now() + ttl * 10;
    while Instant::now() < until_then {
        sleep(ttl / 4).await;
        for registration in &held {
            let status = registration.status();
            assert!(status.is_registered(), "{status:?}, {:?} before the end", until_then - Instant::now());
        }
    }
    let last = watch.snapshot();
    assert_eq!(last.revision(), before.revision(), "{:?}", recorder.history());
    recorder.check_safety();
}

/// A lease that the registry forgets is noticed and claimed again, more than once.
pub async fn forgotten_by_the_registry(fixture: &impl Fixture) {
    let (servers, clients, service) = (open(fixture), open(fixture), service());
    // What shares its lease is forgotten with it.
    let others = if fixture.caps().one_session { open(fixture) } else { servers.clone() };
    let mut one = ok(servers.register(instance(&service, 1)).await, "register");
    let two = ok(others.register(instance(&service, 2)).await, "register");
    let mut watch = clients.watch(&service);
    until(&mut watch, fixture.caps().visible, "seen", |s| s.len() == 2).await;
    let recorder = Recorder::start(watch.clone());
    for _ in 0..3 {
        fixture.revoke(&service, &one.id()).await.unwrap();
        let restored = fixture.caps().restored;
        eventually(restored, "it is back", async || fixture.count(&service).await.unwrap() == 2).await;
        until_status(&mut one, restored, "registered again", Status::is_registered).await;
        let both = |s: &callsign_core::Snapshot| s.iter().filter(|listed| !listed.is_held()).count() == 2;
        until(&mut watch, fixture.caps().visible, "both are confirmed", both).await;
    }
    recorder.check_never_missing(&[two.id()]);
    recorder.check_safety();
    ok(timeout(SOON, one.deregister()).await.expect("hangs"), "deregister");
    sleep(Duration::from_millis(500)).await;
    assert_eq!(fixture.count(&service).await.unwrap(), 1);
}
