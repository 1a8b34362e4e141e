use callsign_core::{ErrorKind, InstanceId, State};

use crate::server::Etcd;
use crate::{book, fresh, ids, instance, open, until};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs CALLSIGN_ETCD_BIN"]
async fn gokit_is_exactly_the_tutorials_keys() {
    let etcd = Etcd::start().await;
    let registry = open(&etcd.url("/services?format=gokit&drain=300ms"));
    let one = registry.register(instance(50051)).await.unwrap();
    let two = registry.register(instance(50052)).await.unwrap();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let all = [
        pair("/services/book/127.0.0.1:50051", "127.0.0.1:50051"),
        pair("/services/book/127.0.0.1:50052", "127.0.0.1:50052"),
    ];
    assert_eq!(etcd.all(), all);
    let mut watch = registry.watch(&book());
    until(&mut watch, 5, fresh(2)).await;
    etcd.ctl(&["put", "/services/book/by-hand", "http://127.0.0.1:50053"]);
    // Nobody's: neither a service of that name nor one whose name begins so.
    etcd.ctl(&["put", "/services/book2/x", "127.0.0.1:50054"]);
    etcd.ctl(&["put", "/services/book", "127.0.0.1:50055"]);
    until(&mut watch, 5, fresh(3)).await;
    let by_hand = watch.snapshot();
    let by_hand = by_hand.get(&InstanceId::new("by-hand").unwrap()).unwrap();
    assert_eq!((by_hand.protocol(), by_hand.address().port()), (Some("http"), 50053));
    // No state to hold: who drains is withdrawn, and returns with the next update.
    one.drain().await.unwrap();
    until(&mut watch, 5, fresh(2)).await;
    one.update(instance(50051)).await.unwrap();
    until(&mut watch, 5, fresh(3)).await;
    assert_eq!(etcd.all()[1], all[0]);
    one.deregister().await.unwrap();
    two.deregister().await.unwrap();
    let rest: Vec<_> = etcd.all().into_iter().map(|(key, _)| key).collect();
    assert_eq!(rest, ["/services/book", "/services/book/by-hand", "/services/book2/x"]);
    assert!(etcd.leases().is_empty(), "{:?}", etcd.leases());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs CALLSIGN_ETCD_BIN"]
async fn grpc_carries_everything_in_gos_shape() {
    let etcd = Etcd::start().await;
    let registry = open(&etcd.url("?drain=500ms"));
    let plain = registry.register(instance(1)).await.unwrap();
    assert_eq!(
        etcd.all(),
        [(
            "services/book/127.0.0.1:1".to_owned(),
            r#"{"Op":0,"Addr":"127.0.0.1:1","Metadata":null}"#.to_owned()
        )]
    );
    let full = instance(2)
        .with_id("a/b %")
        .and_then(|i| i.with_zone("z1"))
        .and_then(|i| i.with_metadata("书", "21天精通php & <x>"))
        .and_then(|i| i.with_metadata("big", "x".repeat(60_000)))
        .unwrap()
        .with_weight(0);
    let second = registry.register(full.clone()).await.unwrap();
    let mut watch = registry.watch(&book());
    until(&mut watch, 5, fresh(2)).await;
    assert_eq!(**watch.snapshot().get(full.id()).unwrap().instance(), full);
    // In place: never absent between.
    let history = crate::History::of(&watch);
    second.update(full.clone().with_weight(7)).await.unwrap();
    until(&mut watch, 5, |snapshot| snapshot.get(full.id()).is_some_and(|i| i.weight() == 7)).await;
    history.never("an update removed it", |snapshot| snapshot.len() < 2);
    // In two phases.
    second.deregister().await.unwrap();
    until(&mut watch, 5, |snapshot| ids(snapshot).len() == 1).await;
    history
        .ever("draining", |snapshot| snapshot.get(full.id()).is_some_and(|i| i.state() == State::Draining));
    plain.deregister().await.unwrap();
    assert!(etcd.all().is_empty());
    assert!(etcd.leases().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs CALLSIGN_ETCD_BIN"]
async fn both_prefixes_are_one_service() {
    let etcd = Etcd::start().await;
    let (gokit, grpc) = (open(&etcd.url("/services?format=gokit")), open(&etcd.url("/services")));
    let _a = gokit.register(instance(1)).await.unwrap();
    let b = grpc.register(instance(2).with_weight(3)).await.unwrap();
    let mut watch = gokit.watch(&book());
    until(&mut watch, 5, fresh(2)).await;
    // One id below both: it goes with its last key, and the other's content is back at once.
    etcd.ctl(&["put", "/services/book/127.0.0.1:2", "127.0.0.1:2"]);
    let two = InstanceId::new("127.0.0.1:2").unwrap();
    until(&mut watch, 5, |snapshot| snapshot.get(&two).is_some_and(|i| i.weight() == 1)).await;
    etcd.ctl(&["del", "/services/book/127.0.0.1:2"]);
    until(&mut watch, 5, |snapshot| snapshot.get(&two).is_some_and(|i| i.weight() == 3 && !i.is_held()))
        .await;
    let names: Vec<_> = gokit.services().await.unwrap();
    assert_eq!(names, [book()]);
    drop(b);
    until(&mut watch, 5, fresh(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs CALLSIGN_ETCD_BIN"]
async fn what_is_broken_is_skipped_and_counted() {
    let etcd = Etcd::start().await;
    etcd.ctl(&["put", "/services/book/a", "127.0.0.1:1"]);
    for (key, value) in [("port0", "h:0"), ("port70000", "h:70000"), ("json", "{\"Addr\":"), ("null", "null")]
    {
        etcd.ctl(&["put", &format!("services/book/{key}"), value]);
    }
    etcd.ctl(&["put", "services/book/big", &"x".repeat(100_000)]);
    let registry = open(&etcd.url(""));
    let mut watch = registry.watch(&book());
    until(&mut watch, 5, |snapshot| fresh(1)(snapshot) && snapshot.skipped() == 5).await;
    etcd.ctl(&["put", "services/book/null", "h:1"]);
    until(&mut watch, 5, |snapshot| fresh(2)(snapshot) && snapshot.skipped() == 4).await;
    etcd.ctl(&["del", "services/book/json"]);
    until(&mut watch, 5, |snapshot| fresh(2)(snapshot) && snapshot.skipped() == 3).await;
    etcd.ctl(&["put", "services/book/null", "{}"]);
    until(&mut watch, 5, |snapshot| ids(snapshot).len() == 1 && snapshot.skipped() == 4).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs CALLSIGN_ETCD_BIN"]
async fn services_remove_and_check() {
    let etcd = Etcd::start().await;
    let registry = open(&etcd.url("/deep/prefix?format=gokit"));
    assert!(registry.services().await.unwrap().is_empty());
    for key in [
        "/deep/prefix/a/1",
        "deep/prefix/b.c/1",
        "/deep/prefix/b.c/2",
        "/deep/prefix/b-/x%2Fy",
        "/deep/prefix/",
    ] {
        etcd.ctl(&["put", key, "h:1"]);
    }
    let names: Vec<_> = registry.services().await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a", "b-", "b.c"]);
    registry.remove(&"b-".parse().unwrap(), &InstanceId::new("x/y").unwrap()).await.unwrap();
    let missing =
        registry.remove(&"b-".parse().unwrap(), &InstanceId::new("x/y").unwrap()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let (before, report) = (etcd.all(), registry.check().await);
    assert!(report.is_ok(), "{report}");
    assert!(report.reach.to_string().contains("etcd 3."), "{report}");
    assert_eq!(etcd.all(), before);
    assert!(etcd.leases().is_empty());
    let down = open("etcd://127.0.0.1:1").check().await;
    assert!(down.reach.is_refused() && !down.read.is_refused(), "{down}");
    assert!(down.to_string().contains("127.0.0.1:1") && down.to_string().contains("refused"), "{down}");
}
