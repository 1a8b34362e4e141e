use std::time::Duration;

use callsign_core::{ErrorKind, Status};
use tokio::task::JoinSet;

use crate::server::Etcd;
use crate::{History, book, fresh, ids, instance, measured, open, until, until_so, until_status};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs CALLSIGN_ETCD_BIN"]
async fn what_is_taken_away_returns_at_once() {
    let etcd = Etcd::start().await;
    for format in ["grpc", "gokit"] {
        let registry = open(&etcd.url(&format!("/services?format={format}")));
        let others =
            [registry.register(instance(1)).await.unwrap(), registry.register(instance(2)).await.unwrap()];
        let mut registration = registry.register(instance(3)).await.unwrap();
        let mut watch = registry.watch(&book());
        until(&mut watch, 5, fresh(3)).await;
        let history = History::of(&watch);
        let (key, _) = etcd.all().pop().unwrap();
        for round in 0..3 {
            let lease = etcd.ctl(&["get", &key, "--write-out=fields"]);
            let lease = lease.lines().find_map(|line| line.strip_prefix("\"Lease\" : ")).unwrap();
            let lease = format!("{:x}", lease.parse::<i64>().unwrap());
            etcd.ctl(&["lease", "revoke", &lease]);
            let took = until_so(2, "the entry is back", || !etcd.ctl(&["get", &key]).is_empty()).await;
            measured(&format!("{format}: back after lease revoke {round}"), took);
            until_status(&mut registration, 2, Status::is_registered).await;
            etcd.ctl(&["del", &key]);
            let took = until_so(2, "the entry is back", || !etcd.ctl(&["get", &key]).is_empty()).await;
            measured(&format!("{format}: back after del {round}"), took);
            until_status(&mut registration, 2, Status::is_registered).await;
        }
        until(&mut watch, 5, fresh(3)).await;
        history.never("empty", callsign_core::Snapshot::is_empty);
        assert_eq!(etcd.leases().len(), 3);
        drop((registration, others));
        registry.close(Duration::from_secs(5)).await.unwrap();
        assert!(etcd.all().is_empty() && etcd.leases().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs CALLSIGN_ETCD_BIN"]
async fn the_newest_owner_wins_and_the_loser_knows() {
    let etcd = Etcd::start().await;
    let (first, second) = (open(&etcd.url("")), open(&etcd.url("")));
    let mut old = first.register(instance(1).with_weight(1)).await.unwrap();
    let new = second.register(instance(1).with_weight(2)).await.unwrap();
    let took = until_status(&mut old, 2, |status| matches!(status, Status::Superseded)).await;
    measured("superseded", took);
    assert_eq!(old.update(instance(1).with_weight(9)).await.unwrap_err().kind(), ErrorKind::Superseded);
    old.deregister().await.unwrap();
    assert!(etcd.all()[0].1.contains("\"weight\":2"), "{:?}", etcd.all());
    until_so(5, "the loser's lease is revoked", || etcd.leases().len() == 1).await;
    // Written over by hand, without a lease: somebody else's from now on.
    let mut new = new;
    etcd.ctl(&["put", "services/book/127.0.0.1:1", "127.0.0.1:9"]);
    until_status(&mut new, 2, |status| matches!(status, Status::Superseded)).await;
    new.deregister().await.unwrap();
    assert_eq!(etcd.all().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs CALLSIGN_ETCD_BIN"]
async fn ten_ttls_idle_are_no_event() {
    let etcd = Etcd::start().await;
    let registry = open(&etcd.url("?ttl=2s"));
    let registration = registry.register(instance(1)).await.unwrap();
    let mut watch = registry.watch(&book());
    until(&mut watch, 5, fresh(1)).await;
    let revision = watch.snapshot().revision();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(watch.snapshot().revision(), revision);
    assert!(registration.status().is_registered());
    assert_eq!(etcd.leases().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs CALLSIGN_ETCD_BIN"]
async fn registrations_broken_off_leave_nothing() {
    let etcd = Etcd::start().await;
    let registry = open(&etcd.url("?ttl=30s"));
    let mut rng = fastrand::Rng::with_seed(5);
    let mut tries = JoinSet::new();
    for port in 1..=100 {
        let (registry, give_up) = (registry.clone(), Duration::from_micros(rng.u64(0..30_000)));
        tries.spawn(async move {
            drop(tokio::time::timeout(give_up, registry.register(instance(port))).await);
        });
    }
    tries.join_all().await;
    registry.close(Duration::from_secs(10)).await.unwrap();
    assert!(etcd.all().is_empty(), "{:?}", etcd.all());
    // A grant that was still under way when its registration ended has no key, and expires.
    let leases = etcd.leases().len();
    measured("leases left by 100 registrations broken off", leases);
    assert!(leases <= 10, "{leases}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs CALLSIGN_ETCD_BIN"]
async fn a_crash_is_an_expiry() {
    let etcd = Etcd::start().await;
    let registry = open(&etcd.url(""));
    // Two stay, so that the one that goes is less than half.
    let _stay =
        [registry.register(instance(1)).await.unwrap(), registry.register(instance(2)).await.unwrap()];
    let mut watch = registry.watch(&book());
    until(&mut watch, 5, fresh(2)).await;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = etcd.url("?ttl=3s");
    let held = runtime.spawn(async move { open(&url).register(instance(3)).await.unwrap() }).await.unwrap();
    until(&mut watch, 5, fresh(3)).await;
    // Neither released nor renewed from here on.
    runtime.shutdown_background();
    let took = until(&mut watch, 5, fresh(2)).await;
    measured("gone after a crash, TTL 3 s", took);
    assert_eq!(ids(&watch.snapshot()), ["127.0.0.1:1", "127.0.0.1:2"]);
    drop(held);
}
