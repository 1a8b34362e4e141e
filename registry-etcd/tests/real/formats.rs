//! What lies in etcd, and what is made of it.

use callsign_core::{ErrorKind, InstanceId};
use callsign_testkit::wait::until;

use crate::{book, fresh, ids, instance, open, open_at, secs, start};

/// One id below both prefixes goes with its last key, and the other key's content is back at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_prefixes_are_one_service() {
    let (etcd, raw) = start(&[]).await;
    let (gokit, grpc) =
        (open_at(etcd.addr(), "/services?format=gokit"), open_at(etcd.addr(), "/services?format=grpc"));
    let _one = gokit.register(instance(1)).await.unwrap();
    let two = grpc.register(instance(2).with_weight(3)).await.unwrap();
    let mut watch = gokit.watch(&book());
    until(&mut watch, secs(5), "both", fresh(2)).await;
    raw.put("/services/book/127.0.0.1:2", b"127.0.0.1:2", 0).await.unwrap();
    let id = InstanceId::new("127.0.0.1:2").unwrap();
    let has_weight = |weight| {
        let id = id.clone();
        move |s: &callsign_core::Snapshot| s.get(&id).is_some_and(|i| i.weight() == weight && !i.is_held())
    };
    until(&mut watch, secs(5), "the younger key counts", has_weight(1)).await;
    raw.delete("/services/book/127.0.0.1:2").await.unwrap();
    until(&mut watch, secs(5), "the other key is back", has_weight(3)).await;
    assert_eq!(gokit.services().await.unwrap(), [book()]);
    drop(two);
    until(&mut watch, secs(5), "one is left", fresh(1)).await;
}

/// Entries that break are counted while they are broken, and no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_is_counted_and_what_mends_returns() {
    let (etcd, raw) = start(&[]).await;
    raw.put("/services/book/a", b"127.0.0.1:1", 0).await.unwrap();
    for (key, value) in [("port0", "h:0"), ("port70000", "h:70000"), ("json", "{\"Addr\":"), ("null", "null")]
    {
        raw.put(&format!("services/book/{key}"), value.as_bytes(), 0).await.unwrap();
    }
    let registry = open_at(etcd.addr(), "");
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(5), "four are broken", |s| fresh(1)(s) && s.skipped() == 4).await;
    raw.put("services/book/null", b"h:1", 0).await.unwrap();
    until(&mut watch, secs(5), "one is mended", |s| fresh(2)(s) && s.skipped() == 3).await;
    raw.delete("services/book/json").await.unwrap();
    until(&mut watch, secs(5), "one is gone", |s| fresh(2)(s) && s.skipped() == 2).await;
    raw.put("services/book/null", b"{}", 0).await.unwrap();
    until(&mut watch, secs(5), "one breaks", |s| ids(s) == ["a"] && s.skipped() == 3).await;
}

/// The names of services, the removal of an entry and the check, below a prefix of two segments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_remove_and_check() {
    let (etcd, raw) = start(&[]).await;
    let registry = open_at(etcd.addr(), "/deep/prefix?format=gokit");
    assert!(registry.services().await.unwrap().is_empty());
    let keys = [
        "/deep/prefix/a/1",
        "deep/prefix/b.c/1",
        "/deep/prefix/b.c/2",
        "/deep/prefix/b-/x%2Fy",
        "/deep/prefix/",
    ];
    for key in keys {
        raw.put(key, b"h:1", 0).await.unwrap();
    }
    let names: Vec<_> = registry.services().await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a", "b-", "b.c"]);
    let (service, id) = ("b-".parse().unwrap(), InstanceId::new("x/y").unwrap());
    registry.remove(&service, &id).await.unwrap();
    assert_eq!(registry.remove(&service, &id).await.unwrap_err().kind(), ErrorKind::NotFound);
    let (before, report) = (raw.list("").await.unwrap(), registry.check().await);
    assert!(report.is_ok(), "{report}");
    assert!(report.reach.to_string().contains(&raw.version().await.unwrap()), "{report}");
    assert_eq!(raw.list("").await.unwrap(), before);
    assert!(raw.leases().await.unwrap().is_empty());
    let down = open("etcd://127.0.0.1:1").check().await;
    assert!(down.reach.is_refused() && !down.read.is_refused(), "{down}");
    assert!(down.to_string().contains("127.0.0.1:1") && down.to_string().contains("refused"), "{down}");
}
