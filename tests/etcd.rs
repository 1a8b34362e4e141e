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

const SOON: Duration = Duration::from_secs(2);
const TUNING: Tuning =
    Tuning { ttl: None, grace: None, drain: Some(Duration::from_millis(500)), verify: None };

/// Go kit's format: the tutorial's keys and values, byte for byte, and an entry put by hand is found.
#[tokio::test]
async fn gokit_bytes() {
    let fixture = EtcdFixture::with_format(callsign::open, Format::GoKit).await;
    let (registry, raw) = (fixture.open(&TUNING).unwrap(), fixture.raw());
    let all = async || -> Vec<(String, String)> {
        let entries = raw.list("").await.unwrap();
        entries.into_iter().map(|e| (e.key, String::from_utf8(e.value).unwrap())).collect()
    };
    let pair = |key: &str, value: &str| (format!("/tests/services/{key}"), value.to_owned());
    let registration = registry.register(Instance::new("book", "127.0.0.1:50051").unwrap()).await.unwrap();
    let second = registry.register(Instance::new("book", "127.0.0.1:50052").unwrap()).await.unwrap();
    let both =
        [pair("book/127.0.0.1:50051", "127.0.0.1:50051"), pair("book/127.0.0.1:50052", "127.0.0.1:50052")];
    assert_eq!(all().await, both);
    raw.put("/tests/services/book/by-hand", b"http://127.0.0.1:50053", 0).await.unwrap();
    // Nobody's: a service whose name goes on, and a key that is no instance of any.
    raw.put("/tests/services/book2/x", b"127.0.0.1:50054", 0).await.unwrap();
    raw.put("/tests/services/book", b"127.0.0.1:50055", 0).await.unwrap();
    let mut watch = registry.watch(&"book".parse().unwrap());
    let three = until(&mut watch, SOON, "all are seen", |s| s.len() == 3).await;
    let mut ports: Vec<_> = three.iter().map(|listed| listed.address().port()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [50051, 50052, 50053]);
    let by_hand = three.iter().find(|listed| listed.id().as_str() == "by-hand").unwrap();
    assert_eq!(by_hand.protocol(), Some("http"));

    // It holds no state: who drains is withdrawn, and returns once it is up again.
    registration.drain().await.unwrap();
    assert_eq!(raw.count("/tests/services/book/").await.unwrap(), 2);
    let up = Instance::clone(&registration.instance()).with_state(State::Up);
    registration.update(up).await.unwrap();
    assert_eq!(raw.count("/tests/services/book/").await.unwrap(), 3);
    registration.deregister().await.unwrap();
    second.deregister().await.unwrap();
    let rest: Vec<_> = all().await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(rest, ["book", "book/by-hand", "book2/x"].map(|key| format!("/tests/services/{key}")));
    assert!(raw.leases().await.unwrap().is_empty(), "the leases are ended too");
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
    assert!(fixture.raw().leases().await.unwrap().is_empty(), "the lease is ended too");
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
    until(&mut watch, SOON, "both are listed", |s| ports(s) == [1, 2]).await;
    fixture.raw().put("/tests/services/book/c", b"10.0.0.1:3", 0).await.unwrap();
    until(&mut watch, SOON, "and followed", |s| ports(s) == [1, 2, 3]).await;
    // A service whose name goes on is another one.
    fixture.raw().put("/tests/services/book2/d", b"10.0.0.1:4", 0).await.unwrap();
    fixture.raw().put("/tests/services/book/e", b"10.0.0.1:5", 0).await.unwrap();
    until(&mut watch, SOON, "and no other", |s| ports(s) == [1, 2, 3, 5]).await;
}
