//! Watching: the first list, the end, and nothing left running.

use std::time::Duration;

use callsign_core::ErrorKind;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::{open, service};
use crate::fixture::Fixture;
use crate::wait::{eventually, ok};

pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Nothing is known at first, and that says so; a service that nobody registered is fresh and empty.
pub async fn pending_then_fresh(fixture: &impl Fixture) {
    let (registry, service) = (open(fixture), service());
    let mut watch = registry.watch(&service);
    let first = watch.snapshot();
    // On a multi-threaded runtime it may have been listed already.
    assert!(first.freshness().is_pending() || first.revision() > 0, "{first:?}");
    let snapshot = ok(timeout(SOON, watch.ready()).await.expect("no first list"), "ready");
    assert!(snapshot.freshness().is_fresh() && snapshot.is_empty(), "{snapshot:?}");
    assert!(snapshot.revision() > 0);
    assert_eq!((watch.service(), snapshot.service()), (service.clone(), &service));
    // At once, from now on, for a later subscriber too.
    let mut late = registry.watch(&service);
    assert!(late.snapshot().freshness().is_fresh());
    assert!(timeout(SOON, late.ready()).await.is_ok());
}

/// Waiting can be broken off at any point, many times over, and costs nothing.
pub async fn cancelled_waits_leak_nothing(fixture: &impl Fixture) {
    let mut random = fastrand::Rng::with_seed(11);
    let before = tasks();
    {
        let registry = open(fixture);
        for _ in 0..200 {
            let mut watch = registry.watch(&service());
            let pause = Duration::from_micros(random.u64(0..2000));
            // Whether it was ready by then is chance.
            let _ = timeout(pause, watch.ready()).await;
            let _ = timeout(pause / 2, watch.changed()).await;
        }
    }
    eventually(SOON, "all tasks ended", async || tasks() <= before).await;
}

/// A watch of a closed registry says that it ends, and so does one that is begun later.
pub async fn closed_says_so(fixture: &impl Fixture) {
    let (registry, service) = (open(fixture), service());
    let mut watch = registry.watch(&service);
    ok(timeout(SOON, watch.ready()).await.expect("no first list"), "ready");
    ok(timeout(SOON, registry.close(Duration::from_secs(5))).await.expect("close hangs"), "close");
    let changed = timeout(SOON, watch.changed()).await.expect("no end");
    assert_eq!(changed.unwrap_err().kind(), ErrorKind::Closed);
    // One that joins the ended watch may be shown the last set before.
    let mut late = registry.watch(&service);
    let first = timeout(SOON, late.changed()).await.expect("no end");
    let changed = match first {
        Ok(_) => timeout(SOON, late.changed()).await.expect("no end"),
        closed => closed,
    };
    assert_eq!(changed.unwrap_err().kind(), ErrorKind::Closed);
    drop((watch, late));
    let ready = timeout(SOON, registry.watch(&service).ready()).await.expect("no end");
    assert_eq!(ready.unwrap_err().kind(), ErrorKind::Closed);
    // Closing is idempotent.
    ok(timeout(SOON, registry.close(Duration::from_secs(5))).await.expect("close hangs"), "close again");
}

/// Subscribers share one source; the last one to go ends it, and the service can be watched again.
pub async fn ends_with_its_last_subscriber(fixture: &impl Fixture) {
    let before = tasks();
    let (registry, service) = (open(fixture), service());
    for _ in 0..3 {
        let mut first = registry.watch(&service);
        ok(timeout(SOON, first.ready()).await.expect("no first list"), "ready");
        let with_one = tasks();
        let more: Vec<_> =
            (0..50).map(|n| if n % 2 == 0 { first.clone() } else { registry.watch(&service) }).collect();
        // A client may still be about to begin one or two of its own.
        assert!(tasks() < with_one + 10, "a subscriber costs a task");
        drop(first);
        assert!(more.iter().all(|watch| watch.snapshot().freshness().is_fresh()));
    }
    drop(registry);
    eventually(SOON, "all tasks ended", async || tasks() <= before).await;
}

/// Following what others publish.
pub mod following {
    use std::time::Duration;

    use tokio::time::{Instant, timeout};

    use super::SOON;
    use crate::conformance::{full, instance, open, service};
    use crate::fixture::Fixture;
    use crate::wait::{ok, until};

    /// A service that did not exist when its watch began.
    pub async fn created_later(fixture: &impl Fixture) {
        let (servers, clients, service) = (open(fixture), open(fixture), service());
        let mut watch = clients.watch(&service);
        assert!(ok(timeout(SOON, watch.ready()).await.expect("no first list"), "ready").is_empty());
        let registration = ok(servers.register(instance(&service, 1)).await, "register");
        until(&mut watch, fixture.caps().visible, "seen", |s| s.len() == 1).await;
        ok(registration.deregister().await, "deregister");
        until(&mut watch, fixture.caps().visible, "gone", callsign_core::Snapshot::is_empty).await;
    }

    /// A subscriber that does not read holds up neither the others nor the writer, and then sees the latest at once.
    pub async fn late_and_slow_subscribers(fixture: &impl Fixture) {
        let (servers, clients, service) = (open(fixture), open(fixture), service());
        let registration = ok(servers.register(instance(&service, 1)).await, "register");
        let mut brisk = clients.watch(&service);
        until(&mut brisk, fixture.caps().visible, "seen", |s| s.len() == 1).await;
        let mut slow = brisk.clone();
        let id = registration.id();
        for weight in 2..=12 {
            ok(registration.update(instance(&service, 1).with_weight(weight)).await, "update");
            let seen =
                |s: &callsign_core::Snapshot| s.get(&id).is_some_and(|listed| listed.weight() == weight);
            until(&mut brisk, fixture.caps().visible, "the update is seen", seen).await;
        }
        let seen = ok(timeout(SOON, slow.changed()).await.expect("the slow one hangs"), "changed");
        assert_eq!(seen.get(&id).map(|listed| listed.weight()), Some(12));
        // It has the latest: there is nothing more to tell.
        assert!(timeout(Duration::from_millis(300), slow.changed()).await.is_err());
        let late = clients.watch(&service);
        assert_eq!(late.snapshot().get(&id).map(|listed| listed.weight()), Some(12));
    }

    /// What is written between the first list and the arming of the watch is not lost. Each seed is another
    /// moment of the write.
    pub async fn written_in_the_gap(fixture: &impl Fixture) {
        let rounds = if full() { 1000 } else { fixture.caps().seeds * 10 };
        let (servers, clients) = (open(fixture), open(fixture));
        for seed in 0..rounds {
            let (service, mut random) = (service(), fastrand::Rng::with_seed(seed));
            let write = async {
                let start = Instant::now();
                let pause = Duration::from_micros(random.u64(0..5000));
                while start.elapsed() < pause {
                    tokio::task::yield_now().await;
                }
                ok(servers.register(instance(&service, 1)).await, seed)
            };
            let read = async {
                let mut watch = clients.watch(&service);
                until(&mut watch, SOON, &format!("seed {seed}: seen"), |s| s.len() == 1).await;
            };
            let (registration, ()) = tokio::join!(write, read);
            drop(registration);
        }
    }
}
