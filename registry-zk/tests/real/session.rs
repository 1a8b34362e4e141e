//! The one session, and the ways around what the client library gets wrong.

use std::time::Duration;

use callsign_core::testing::source;
use callsign_core::{
    ErrorKind, Instance, InstanceId, Registration, Registry, ServiceName, Settings, Snapshot, Update,
};
use callsign_testkit::fixture::{Fixture, Served, Tuning};
use callsign_testkit::wait::{eventually, ok, until};
use callsign_testkit::zookeeper::ZooKeeperFixture;
use callsign_zk::ZooKeeper;
use tokio::time::sleep;

use crate::{SOON, fixture, open};

const TUNING: Tuning =
    Tuning { ttl: Some(Duration::from_secs(10)), grace: None, drain: Some(Duration::ZERO), verify: None };

fn id(n: usize) -> InstanceId {
    InstanceId::new(&format!("10.0.0.1:{}", n + 1)).unwrap()
}

async fn put(fixture: &ZooKeeperFixture, service: &ServiceName, n: usize) {
    fixture.inject(service, &id(n), id(n).as_str()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_share_one_connection() {
    let fixture = fixture().await;
    let registry = ok(fixture.open(&TUNING), "open");
    let mut held = Vec::new();
    for n in 0..100 {
        let instance = Instance::new(format!("s{n}").as_str(), "10.0.0.1:80").unwrap();
        held.push((registry.keep_registered(instance), registry.watch(&format!("s{n}").parse().unwrap())));
    }
    for (registration, watch) in &mut held {
        ok(registration.registered().await, "registered");
        until(watch, SOON, "seen", |s| s.len() == 1).await;
    }
    let link = fixture.link().unwrap();
    assert_eq!((link.accepted(), link.open()), (1, 1));
    drop(held);
    registry.close(SOON).await.unwrap();
    drop(registry);
    eventually(SOON, "the session has ended", async || link.open() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_among_ten_thousand_costs_one_read() {
    const MANY: usize = 10_000;
    let fixture = fixture().await;
    let service: ServiceName = "book".parse().unwrap();
    fixture.write_many(&service, &(0..MANY).collect::<Vec<_>>(), 0).await.unwrap();
    let registry = ok(fixture.open(&TUNING), "open");
    let mut watch = registry.watch(&service);
    // How soon is for row 19 to say, which has the machine to itself.
    until(&mut watch, Duration::from_secs(30), "listed", |s| s.len() == MANY).await;
    let link = fixture.link().unwrap();
    for at in 1..=3 {
        let (up, down) = (link.bytes_up(), link.bytes_down());
        fixture.write_many(&service, &[77], at).await.unwrap();
        let at = at.to_string();
        let changed = |s: &Snapshot| s.iter().any(|listed| listed.metadata().get("at") == Some(&at));
        until(&mut watch, SOON, "seen", changed).await;
        // A read that is not needed would come after it.
        sleep(Duration::from_millis(300)).await;
        let (up, down) = (link.bytes_up() - up, link.bytes_down() - down);
        // Its length, number, kind, the path with its length, and whether to watch.
        let read = 4 + 4 + 4 + 4 + (fixture.path(&service).len() + 1 + "10.0.0.77:50051".len()) as u64 + 1;
        // What keeps the session alive comes every three seconds or so, and is 12 bytes long.
        assert!((read..read + 2 * 12 + 1).contains(&up), "{up} bytes up, and a read has {read}");
        assert!(down < 1_000, "{down} bytes down");
    }
}

/// The client library does not set a persistent watch again when it reconnects.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_heard_after_a_reset() {
    let fixture = fixture().await;
    let service: ServiceName = "book".parse().unwrap();
    let registry = ok(fixture.open(&TUNING), "open");
    let mut watch = registry.watch(&service);
    ok(watch.ready().await, "ready");
    let link = fixture.link().unwrap();
    for round in 0..5 {
        let before = link.accepted();
        link.reset();
        eventually(SOON, "it reconnects", async || link.accepted() > before).await;
        // The first may be found by a list, the second is heard of.
        for n in [2 * round, 2 * round + 1] {
            put(&fixture, &service, n).await;
            until(&mut watch, SOON, "seen", |s| s.get(&id(n)).is_some() && s.freshness().is_fresh()).await;
        }
    }
    assert_eq!(watch.snapshot().len(), 10);
}

/// `Duration::MAX` stands for never, and is no moment of any clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_never_compared_is_listed_all_the_same() {
    let fixture = fixture().await;
    let mut settings = Settings::default();
    settings.verify = Duration::MAX;
    let address = fixture.link().unwrap().addr().to_string();
    let registry = ZooKeeper::builder().host(address.as_str()).unwrap().base("/tests/services");
    let registry = registry.settings(settings).build().unwrap();
    let mut watch = registry.watch(&"book".parse().unwrap());
    assert!(ok(watch.ready().await, "ready").freshness().is_fresh());
}

/// Above 128 KiB of watched paths the client library loses its session at the next reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_nodes_than_can_be_watched_survive_a_reset() {
    const MANY: usize = 1500;
    let fixture = fixture().await;
    let service: ServiceName = "book".parse().unwrap();
    let mut settings = Settings::default();
    settings.claims_per_second = 10_000;
    settings.drain = Duration::ZERO;
    settings.verify = Duration::from_secs(3);
    let link = fixture.link().unwrap();
    let address = link.addr().to_string();
    let registry = ZooKeeper::builder().host(address.as_str()).unwrap().base("/tests/services");
    let registry = registry.settings(settings).build().unwrap();
    let name = |n: usize| format!("{n:0>80}");
    let held: Vec<_> = (0..MANY).map(|n| registered(&registry, &service, &name(n))).collect();
    for registration in &held {
        ok(registration.registered().await, "registered");
    }
    let path = |n: usize| format!("{}/{}", fixture.path(&service), name(n));
    let owner = fixture.raw().get(&path(0)).await.unwrap().unwrap().owner;
    for _ in 0..3 {
        let before = link.accepted();
        link.reset();
        eventually(SOON, "it reconnects", async || link.accepted() > before).await;
        // Whoever is watched and whoever is not is restored.
        for n in [0, MANY - 1] {
            assert!(fixture.raw().delete(&path(n)).await.unwrap());
        }
        let back = async || fixture.count(&service).await.unwrap() == MANY;
        eventually(Duration::from_secs(10), "all are there", back).await;
    }
    let node = fixture.raw().get(&path(0)).await.unwrap().unwrap();
    assert_eq!(node.owner, owner, "the session has outlived the resets");
    drop(held);
    registry.close(Duration::from_secs(20)).await.unwrap();
}

/// Others may have been forgotten with us: what is listed next must not pass for the whole truth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_session_is_told_before_the_next_list() {
    let fixture = fixture().await;
    let service: ServiceName = "book".parse().unwrap();
    let registry = ok(fixture.open(&TUNING), "open");
    let held = registered(&registry, &service, "own");
    ok(held.registered().await, "registered");
    let path = format!("{}/own", fixture.path(&service));
    let mut source = source(&registry, &service);
    for _ in 0..3 {
        assert!(matches!(ok(source.next().await, "list"), Update::Full(_)));
        let there = async || fixture.raw().get(&path).await.unwrap().is_some();
        eventually(SOON, "it is registered again", there).await;
        let owner = fixture.raw().get(&path).await.unwrap().unwrap().owner;
        fixture.raw().end_session(owner).await.unwrap();
        let error = loop {
            match source.next().await {
                Ok(Update::Full(_)) => panic!("listed anew without a word"),
                Ok(Update::Delta { .. }) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}

fn registered(registry: &Registry, service: &ServiceName, id: &str) -> Registration {
    registry.keep_registered(Instance::new(service, "10.0.0.1:80").unwrap().with_id(id).unwrap())
}

/// It is about to listen at its node when the connection breaks, and with it the session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_before_it_is_listened_for_is_missed_all_the_same() {
    let fixture = fixture().await;
    let registry = ok(fixture.open(&TUNING), "open");
    let service: ServiceName = "book".parse().unwrap();
    let path = format!("{}/own", fixture.path(&service));
    let (link, mut fastest) = (fixture.link().unwrap(), Duration::MAX);
    for _ in 0..5 {
        link.latency(Duration::from_millis(100));
        let held = registered(&registry, &service, "own");
        ok(held.registered().await, "registered");
        let owner = fixture.raw().get(&path).await.unwrap().unwrap().owner;
        fixture.raw().end_session(owner).await.unwrap();
        link.heal();
        let again = async || fixture.raw().get(&path).await.unwrap().is_some_and(|node| node.owner != owner);
        fastest = fastest.min(eventually(SOON, "it is registered again", again).await);
        ok(held.deregister().await, "deregister");
    }
    // It is spread over 0.3 s. That the machine is slow, it is not every time.
    assert!(fastest < Duration::from_millis(900), "{fastest:?}");
}

/// The session goes on for the others, and would keep the node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_failed_is_made_up_for() {
    let fixture = fixture().await;
    let service: ServiceName = "book".parse().unwrap();
    let registry = ok(fixture.open(&TUNING), "open");
    let (stays, leaves) =
        (registered(&registry, &service, "stays"), registered(&registry, &service, "leaves"));
    for registration in [&stays, &leaves] {
        ok(registration.registered().await, "registered");
    }
    let path = format!("{}/stays", fixture.path(&service));
    let before = fixture.raw().get(&path).await.unwrap().unwrap();
    let link = fixture.link().unwrap();
    link.blackhole();
    assert!(leaves.deregister_within(Duration::from_millis(300)).await.is_err(), "nothing can be told");
    link.reset();
    link.heal();
    // A reset link heals into the same session: its timeout is far away.
    let mut watch = registry.watch(&service);
    until(&mut watch, SOON * 2, "the other one is gone", |s| s.len() == 1 && s.freshness().is_fresh()).await;
    eventually(SOON, "its node too", async || fixture.count(&service).await.unwrap() == 1).await;
    assert_eq!(fixture.raw().get(&path).await.unwrap().unwrap(), before, "nothing befell the one that stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_does_not_resolve_is_passed_over() {
    let fixture = fixture().await;
    let url = fixture
        .url_via(fixture.link().unwrap().addr())
        .replace("zk://", "zk://nowhere.invalid:1,127.0.0.1:1,");
    let registry = open(&url).unwrap();
    for n in 0..5 {
        let instance = Instance::new("book", format!("10.0.0.1:{}", 80 + n)).unwrap();
        ok(ok(registry.register(instance).await, "register").deregister().await, "deregister");
    }
    let report = registry.check().await;
    assert!(report.is_ok(), "{report}");
    let nobody = open("zk://127.0.0.1:1").unwrap().check().await;
    assert!(nobody.reach.to_string().contains("127.0.0.1:1"), "{nobody}");
}
