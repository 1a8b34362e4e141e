//! etcd does what every registry does, and in each format writes exactly that format's bytes.

use callsign::{Instance, Snapshot, State};
use callsign_testkit::etcd::{EtcdFixture, Format};
use callsign_testkit::fixture::{Fixture, Tuning};
use callsign_testkit::wait::until;
use std::time::Duration;

callsign_testkit::conformance! {
    fixture: EtcdFixture::start(callsign::open).await,
    registering: run,
    leasing: run,
    raw: run,
    outage: run,
}

const TUNING: Tuning =
    Tuning { ttl: None, grace: None, drain: Some(Duration::from_millis(500)), verify: None };

/// Go kit's format: the tutorial's key and value, byte for byte, and an entry put by hand is found.
#[tokio::test]
async fn gokit_bytes() {
    let fixture = EtcdFixture::with_format(callsign::open, Format::GoKit).await;
    let registry = fixture.open(&TUNING).unwrap();
    let book = "book".parse().unwrap();
    let registration = registry.register(Instance::new("book", "127.0.0.1:50052").unwrap()).await.unwrap();
    let entries = fixture.raw().list("/tests/services/").await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].key, "/tests/services/book/127.0.0.1:50052");
    assert_eq!(entries[0].value, b"127.0.0.1:50052");
    assert_ne!(entries[0].lease, 0);
    assert_eq!(fixture.raw().count("tests/").await.unwrap(), 0);
    fixture.raw().put("/tests/services/book/by-hand", b"http://127.0.0.1:50053", 0).await.unwrap();
    let mut watch = registry.watch(&book);
    let both = until(&mut watch, Duration::from_secs(2), "both are seen", |s| s.len() == 2).await;
    let mut ports: Vec<_> = both.iter().map(|listed| listed.address().port()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [50052, 50053]);

    // It holds no state: who drains is withdrawn, and serves on.
    registration.drain().await.unwrap();
    assert_eq!(fixture.raw().count("/tests/services/book/").await.unwrap(), 1);
    let up = Instance::clone(&registration.instance()).with_state(State::Up);
    registration.update(up).await.unwrap();
    assert_eq!(fixture.raw().count("/tests/services/book/").await.unwrap(), 2);
    registration.deregister().await.unwrap();
    assert_eq!(fixture.raw().list("/tests/services/").await.unwrap()[0].key, "/tests/services/book/by-hand");
}

/// gRPC-Go's naming: its key, without the leading slash, and its value.
#[tokio::test]
async fn grpc_bytes() {
    let fixture = EtcdFixture::start(callsign::open).await;
    let registry = fixture.open(&TUNING).unwrap();
    let instance = Instance::new("book", "127.0.0.1:50052").unwrap();
    let registration = registry.register(instance.clone()).await.unwrap();
    let entries = fixture.raw().list("tests/services/").await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].key, "tests/services/book/127.0.0.1:50052");
    assert_eq!(entries[0].value, br#"{"Op":0,"Addr":"127.0.0.1:50052","Metadata":null}"#);
    registration.update(instance.with_metadata("a", "b").unwrap()).await.unwrap();
    let entries = fixture.raw().list("tests/services/").await.unwrap();
    assert_eq!(entries[0].value, br#"{"Op":0,"Addr":"127.0.0.1:50052","Metadata":{"a":"b"}}"#);
    assert_eq!(entries[0].version, 2, "updated in place");
    registration.deregister().await.unwrap();
    assert_eq!(fixture.raw().leases().await.unwrap(), 0, "the lease is ended too");
}

/// Both prefixes are read, with and without the leading slash, whatever is written.
#[tokio::test]
async fn both_prefixes_are_read() {
    let fixture = EtcdFixture::start(callsign::open).await;
    fixture.raw().put("/tests/services/book/a", b"10.0.0.1:1", 0).await.unwrap();
    let grpc = br#"{"Op":0,"Addr":"10.0.0.1:2","Metadata":null}"#;
    fixture.raw().put("tests/services/book/b", grpc, 0).await.unwrap();
    let registry = fixture.open(&TUNING).unwrap();
    let mut watch = registry.watch(&"book".parse().unwrap());
    let ports = |s: &Snapshot| s.iter().map(|listed| listed.address().port()).collect::<Vec<_>>();
    until(&mut watch, Duration::from_secs(2), "both are listed", |s| ports(s) == [1, 2]).await;
    fixture.raw().put("/tests/services/book/c", b"10.0.0.1:3", 0).await.unwrap();
    until(&mut watch, Duration::from_secs(2), "and followed", |s| ports(s) == [1, 2, 3]).await;
    // A service whose name goes on is another one.
    fixture.raw().put("/tests/services/book2/d", b"10.0.0.1:4", 0).await.unwrap();
    fixture.raw().put("/tests/services/book/e", b"10.0.0.1:5", 0).await.unwrap();
    until(&mut watch, Duration::from_secs(2), "and no other", |s| ports(s) == [1, 2, 3, 5]).await;
}
