//! What is wrong in ZooKeeper or too much for it, among what is right.

use std::time::Duration;

use callsign_core::{ErrorKind, Instance, InstanceId, ServiceName, Snapshot};
use callsign_testkit::record::confirmed;
use callsign_testkit::server::{Kind, Server};
use callsign_testkit::wait::{ok, until};
use callsign_testkit::zookeeper::{Flagged, Raw, ZooKeeper};

use crate::{SOON, open};

async fn started<K: Kind>(mut server: Server<K>) -> (Server<K>, Raw) {
    server.start().await.unwrap();
    let raw = Raw::new(server.addr());
    (server, raw)
}

fn book() -> ServiceName {
    "book".parse().unwrap()
}

fn fresh(count: usize, skipped: usize) -> impl Fn(&Snapshot) -> bool {
    move |s| s.freshness().is_fresh() && (s.len(), s.skipped()) == (count, skipped)
}

/// Bad nodes are there before the list, come after it, turn good and go; the good ones are there throughout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_nodes_are_left_out_and_good_ones_kept() {
    let (server, raw) = started(Flagged::server("-Djute.maxbuffer=4194304").unwrap()).await;
    let large =
        [br#"{"address":"10.0.0.1","port":1,"x":""#, "x".repeat(2 << 20).as_bytes(), br#""}"#].concat();
    let path = |name: &str| format!("/services/book/{name}");
    for (name, data) in [
        ("good-1", &b"10.0.0.1:1"[..]),
        ("large", &large),
        ("empty", b""),
        ("bytes", b"\xff\xfe"),
        ("torn", br#"{"address":"#),
        ("good-2", b"10.0.0.1:2"),
    ] {
        raw.put(&path(name), data).await.unwrap();
    }
    let registry = open(&format!("zk://{}/services", server.addr())).unwrap();
    let mut watch = registry.watch(&book());
    until(&mut watch, SOON, "listed", fresh(2, 4)).await;
    raw.put(&path("good-2"), &large).await.unwrap();
    until(&mut watch, SOON, "one more is too large", |s| s.skipped() == 5).await;
    for name in ["good-2", "torn"] {
        raw.put(&path(name), b"10.0.0.1:3").await.unwrap();
    }
    until(&mut watch, SOON, "two are good again", fresh(3, 3)).await;
    for name in ["large", "empty", "bytes"] {
        assert!(raw.delete(&path(name)).await.unwrap());
    }
    until(&mut watch, SOON, "nothing is bad any more", fresh(3, 0)).await;
    assert_eq!(registry.services().await.unwrap(), [book()]);
}

/// Servers hang up on a request that is too large, without a word; what is registered with them stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_the_servers_take_is_told_with_the_setting() {
    let (server, raw) = started(Flagged::server("-Djute.maxbuffer=40000").unwrap()).await;
    let registry = open(&format!("zk://{}/services?drain=0s&ttl=4s", server.addr())).unwrap();
    let small = ok(registry.register(Instance::new("book", "10.0.0.1:1").unwrap()).await, "register");
    let large = Instance::new("book", "10.0.0.1:2").unwrap().with_metadata("x", "x".repeat(60_000)).unwrap();
    let error = registry.register(large).await.unwrap_err();
    let said = error.chain();
    println!("{said}");
    assert!(said.contains("-Djute.maxbuffer=BYTES") && said.contains("every server"), "{said}");
    // As much as is taken is no matter.
    let fits = Instance::new("book", "10.0.0.1:3").unwrap().with_metadata("x", "x".repeat(35_000)).unwrap();
    let fits = ok(registry.register(fits).await, "register");
    until(&mut registry.watch(&book()), SOON, "both are there", |s| s.len() == 2).await;
    assert_eq!(raw.children("/services/book").await.unwrap(), ["10.0.0.1:1", "10.0.0.1:3"]);
    assert!(small.status().is_registered() && fits.status().is_registered());
}

/// A path that there is not is no failure: it is made by whoever registers first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chroot_that_is_missing_is_nobody_until_it_is_made() {
    let (server, raw) = started(ZooKeeper::server().unwrap()).await;
    let url = format!("zk://{}/no/such/chroot?drain=0s", server.addr());
    let (finds, registers) = (open(&url).unwrap(), open(&url).unwrap());
    let mut watch = finds.watch(&book());
    until(&mut watch, SOON, "nobody is there", fresh(0, 0)).await;
    assert!(finds.services().await.unwrap().is_empty());
    assert_eq!(raw.children("/").await.unwrap(), ["zookeeper"], "who only looks makes nothing");
    let nobody = InstanceId::new("10.0.0.1:1").unwrap();
    assert_eq!(finds.remove(&book(), &nobody).await.unwrap_err().kind(), ErrorKind::NotFound);
    let held = ok(registers.register(Instance::new(book(), "10.0.0.1:1").unwrap()).await, "register");
    until(&mut watch, SOON, "it is seen", fresh(1, 0)).await;
    ok(held.deregister().await, "deregister");
    until(&mut watch, SOON, "it is gone", |s| confirmed(s).is_empty()).await;
}

/// A slash in a name would be another node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slash_in_a_name_is_refused_or_written_otherwise() {
    let (server, raw) = started(ZooKeeper::server().unwrap()).await;
    for name in ["book/other", "/book", "..", "book/../../zookeeper"] {
        let error = Instance::new(name, "10.0.0.1:1").unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(name), "{error}");
    }
    let registry = open(&format!("zk://{}/services?drain=0s", server.addr())).unwrap();
    let instance = |id: &str| Instance::new(book(), "10.0.0.1:1").unwrap().with_id(id).unwrap();
    let mut held = Vec::new();
    for id in ["a/b", "../../zookeeper", "..", "a%2Fb"] {
        held.push(ok(registry.register(instance(id)).await, id));
    }
    let mut watch = registry.watch(&book());
    let seen = until(&mut watch, SOON, "all are seen", fresh(4, 0)).await;
    assert!(held.iter().all(|registration| seen.get(&registration.id()).is_some()), "{seen:?}");
    assert_eq!(raw.children("/").await.unwrap(), ["services", "zookeeper"]);
    assert_eq!(raw.children("/services").await.unwrap(), ["book"]);
    for registration in held {
        ok(registration.deregister_within(Duration::from_secs(2)).await, "deregister");
    }
    until(&mut watch, SOON, "all are gone", |s| confirmed(s).is_empty()).await;
}
