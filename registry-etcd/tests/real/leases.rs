//! Leases: lost, taken, left behind, and refused.

use std::time::Duration;

use callsign_core::{ErrorKind, Status};
use callsign_testkit::record::Recorder;
use callsign_testkit::wait::{eventually, until, until_status};
use tokio::task::JoinSet;

use crate::{book, fresh, ids, instance, measured, open_at, secs, start};

/// Go kit's keys too are back at once after their lease was revoked or they were deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_away_returns_at_once() {
    let (etcd, raw) = start(&[]).await;
    let registry = open_at(etcd.addr(), "/services?format=gokit");
    let _others =
        [registry.register(instance(1)).await.unwrap(), registry.register(instance(2)).await.unwrap()];
    let mut registration = registry.register(instance(3)).await.unwrap();
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(5), "three", fresh(3)).await;
    let recorder = Recorder::start(watch.clone());
    let key = "/services/book/127.0.0.1:3";
    let there =
        async || raw.list("/services/book/").await.unwrap().into_iter().find(|entry| entry.key == key);
    for _ in 0..3 {
        raw.revoke(there().await.unwrap().lease).await.unwrap();
        measured("back after its lease was revoked", {
            eventually(secs(2), "the entry is back", async || there().await.is_some()).await
        });
        until_status(&mut registration, secs(2), "registered", Status::is_registered).await;
        raw.delete(key).await.unwrap();
        measured("back after it was deleted", {
            eventually(secs(2), "the entry is back", async || there().await.is_some()).await
        });
        until_status(&mut registration, secs(2), "registered", Status::is_registered).await;
    }
    until(&mut watch, secs(5), "three", fresh(3)).await;
    recorder.check_never_empty();
    assert_eq!(raw.leases().await.unwrap().len(), 3, "one lease for each");
}

/// A key that was put over ours without a lease is somebody else's from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn written_over_by_hand_is_another_owner() {
    let (etcd, raw) = start(&[]).await;
    let registry = open_at(etcd.addr(), "");
    let mut registration = registry.register(instance(1)).await.unwrap();
    raw.put("services/book/127.0.0.1:1", b"127.0.0.1:9", 0).await.unwrap();
    until_status(&mut registration, secs(2), "superseded", |s| matches!(s, Status::Superseded)).await;
    let refused = registration.update(instance(1).with_weight(9)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Superseded);
    registration.deregister().await.unwrap();
    assert_eq!(raw.list("").await.unwrap()[0].value, b"127.0.0.1:9");
    eventually(secs(5), "its lease is revoked", async || raw.leases().await.unwrap().is_empty()).await;
}

/// etcd keeps leases over a restart, with their full TTL: nothing is written anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn back_with_its_data_nothing_is_written_anew() {
    let (mut etcd, raw) = start(&[]).await;
    let registry = open_at(etcd.addr(), "?ttl=5s");
    let mut registrations = Vec::new();
    for port in 1..=4 {
        registrations.push(registry.register(instance(port)).await.unwrap());
    }
    let before = raw.list("").await.unwrap();
    for down in [0, 8] {
        etcd.kill();
        tokio::time::sleep(secs(down)).await;
        etcd.start().await.unwrap();
        for registration in &mut registrations {
            until_status(registration, secs(6), "registered", Status::is_registered).await;
        }
    }
    // Longer than the TTL, and what was not renewed would be gone.
    tokio::time::sleep(secs(6)).await;
    assert_eq!(raw.list("").await.unwrap(), before);
    assert_eq!(raw.leases().await.unwrap().len(), 4);
}

/// etcd is restored from a backup in which the key is an earlier process's. That one is gone, and its entry is no newer
/// owner's: the registration waits until it has expired, and is back. One that lives keeps what it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restored_from_a_backup_of_before() {
    let (mut etcd, raw) = start(&[]).await;
    let key = "services/book/127.0.0.1:1";
    let old = raw.grant(3).await.unwrap();
    raw.put(key, b"127.0.0.1:1", old).await.unwrap();
    etcd.stop().await.unwrap();
    let backup = etcd.backup().unwrap();
    etcd.start().await.unwrap();

    let registry = open_at(etcd.addr(), "?ttl=3s");
    let mut registration = registry.register(instance(1)).await.unwrap();
    etcd.restore(&backup).unwrap();
    etcd.start().await.unwrap();
    let entry = async || raw.list(key).await.ok().and_then(|mut entries| entries.pop());
    // Its lease has its full TTL again, and then the driver's pause may be over at any moment.
    let is_ours = async || entry().await.is_some_and(|entry| entry.lease != old);
    measured("back after a restore", eventually(secs(14), "the entry is ours again", is_ours).await);
    until_status(&mut registration, secs(2), "registered", Status::is_registered).await;

    etcd.restore(&backup).unwrap();
    etcd.start().await.unwrap();
    let renewing = async {
        loop {
            raw.keep_alive(old).await.unwrap();
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
    };
    tokio::select! {
        () = renewing => {}
        _ = until_status(&mut registration, secs(30), "superseded", |s| matches!(s, Status::Superseded)) => {}
    }
    assert_eq!(entry().await.unwrap().lease, old);
}

/// Wherever a registration is broken off, its entry and its lease end with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registrations_broken_off_leave_nothing() {
    let (etcd, raw) = start(&[]).await;
    let registry = open_at(etcd.addr(), "?ttl=30s");
    let mut rng = fastrand::Rng::with_seed(5);
    let mut tries = JoinSet::new();
    for port in 1..=100 {
        let (registry, give_up) = (registry.clone(), Duration::from_micros(rng.u64(0..30_000)));
        tries.spawn(async move {
            drop(tokio::time::timeout(give_up, registry.register(instance(port))).await);
        });
    }
    tries.join_all().await;
    registry.close(secs(10)).await.unwrap();
    assert!(raw.list("").await.unwrap().is_empty());
    // A grant that was still under way when its registration ended has no key, and expires.
    let leases = raw.leases().await.unwrap().len();
    measured("leases left by 100 registrations broken off", leases);
    assert!(leases <= 10, "{leases}");
}

/// Row 17: with its quota used up, etcd keeps what is registered, and refuses what is new with a reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_17_a_full_disk_keeps_what_is_registered() {
    let (etcd, raw) = start(&["--quota-backend-bytes", "2000000"]).await;
    let registry = open_at(etcd.addr(), "?ttl=3s&verify=1s");
    let registration = registry.register(instance(1)).await.unwrap();
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(5), "one", fresh(1)).await;
    let filler = vec![b'x'; 100_000];
    eventually(secs(20), "etcd is full", async || raw.put("filler", &filler, 0).await.is_err()).await;
    let mut refused = registry.keep_registered(instance(2));
    let says_why = |s: &Status| s.error().is_some_and(|error| error.kind() == ErrorKind::Exhausted);
    until_status(&mut refused, secs(5), "told why", says_why).await;
    // Nor does an update that is refused put it at risk: the entry is renewed, and not taken for lost.
    let before = raw.list("services/").await.unwrap();
    let update = registration.update(instance(1).with_weight(9)).await.unwrap_err();
    assert_eq!(update.kind(), ErrorKind::Timeout, "{}", update.chain());
    let says_why = std::error::Error::source(&update).unwrap().to_string();
    assert!(says_why.contains("space exceeded"), "{says_why}");
    assert_eq!(raw.list("services/").await.unwrap(), before);
    assert_eq!(ids(&watch.snapshot()), ["127.0.0.1:1"]);
    registration.deregister().await.unwrap();
    assert_eq!(raw.count("services/").await.unwrap(), 0);
}
