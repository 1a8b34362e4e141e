//! Entries of Kratos, Kitex, go-micro and go-zero: written at their places in their bytes, and read from there.

use callsign_core::{ErrorKind, InstanceId, State};
use callsign_testkit::wait::until;

use crate::{book, fresh, ids, instance, open_at, secs, start};

/// What each framework's own client would look for, and that it is gone once nobody may call us.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_is_written_as_its_framework_writes() {
    let (etcd, raw) = start(&[]).await;
    for (format, key, value) in [
        (
            "kratos",
            "/microservices/book/127.0.0.1:1",
            concat!(
                r#"{"id":"127.0.0.1:1","name":"book","version":"","metadata":null,"#,
                r#""endpoints":["grpc://127.0.0.1:1"]}"#
            ),
        ),
        (
            "kitex",
            "kitex/registry-etcd/book/127.0.0.1:1",
            r#"{"network":"tcp","address":"127.0.0.1:1","weight":10,"tags":null}"#,
        ),
        (
            "gomicro",
            "/micro/registry/book/127.0.0.1:1",
            concat!(
                r#"{"name":"book","version":"latest","metadata":null,"endpoints":null,"#,
                r#""nodes":[{"metadata":null,"id":"127.0.0.1:1","address":"127.0.0.1:1"}]}"#
            ),
        ),
        ("gozero", "book/127.0.0.1:1", "127.0.0.1:1"),
        // The prefix of the URL has the last word.
        ("gozero", "deep/book/127.0.0.1:1", "127.0.0.1:1"),
    ] {
        let prefix = if key.starts_with("deep") { "/deep" } else { "" };
        let registry = open_at(etcd.addr(), &format!("{prefix}?format={format}&drain=0s"));
        let registration = registry.register(instance(1)).await.unwrap();
        let found = raw.list("").await.unwrap();
        let [entry] = found.as_slice() else { panic!("{format}: {found:?}") };
        assert_eq!((entry.key.as_str(), String::from_utf8_lossy(&entry.value).as_ref()), (key, value));
        assert_eq!(registry.services().await.unwrap(), [book()], "{format}");
        let mut watch = registry.watch(&book());
        until(&mut watch, secs(5), format, fresh(1)).await;
        registration.update(instance(1).with_state(State::Down)).await.unwrap();
        until(&mut watch, secs(5), "withdrawn, as its readers know no state", fresh(0)).await;
        registration.update(instance(1)).await.unwrap();
        until(&mut watch, secs(5), "back", fresh(1)).await;
        registration.deregister().await.unwrap();
        assert!(raw.list("").await.unwrap().is_empty(), "{format}");
    }
}

/// `read=` finds them beside our own, follows them, and counts what is broken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_places_of_others_are_read_beside_our_own() {
    let (etcd, raw) = start(&[]).await;
    let kratos = |endpoints: &str| format!(r#"{{"id":"k","name":"book","endpoints":[{endpoints}]}}"#);
    let (grpc, both) = (r#""grpc://h:1""#, r#""grpc://h:1","http://h:2""#);
    raw.put("/microservices/book/k", kratos(grpc).as_bytes(), 0).await.unwrap();
    raw.put("kitex/registry-etcd/book/h:3", br#"{"network":"tcp","address":"h:3","weight":30}"#, 0)
        .await
        .unwrap();
    let ours = open_at(etcd.addr(), "/services?format=gokit");
    let _own = ours.register(instance(9)).await.unwrap();
    let mut alone = ours.watch(&book());
    until(&mut alone, secs(5), "ours alone", fresh(1)).await;
    assert_eq!(ids(&alone.snapshot()), ["127.0.0.1:9"]);

    let registry = open_at(etcd.addr(), "/services?read=kratos,kitex,gomicro,gozero&grace=0s");
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(5), "what is there", |s| fresh(3)(s) && ids(s) == ["127.0.0.1:9", "h:3", "k"])
        .await;
    let weight = |id: &str| watch.snapshot().get(&InstanceId::new(id).unwrap()).map(|i| i.weight());
    assert_eq!((weight("h:3"), weight("k")), (Some(3), Some(1)));
    raw.put("/micro/registry/book/m", br#"{"nodes":[{"id":"m","address":"h:4"}]}"#, 0).await.unwrap();
    raw.put("book/7587862094814830592", b"h:5", 0).await.unwrap();
    let all = ["127.0.0.1:9", "7587862094814830592", "h:3", "k", "m"];
    until(&mut watch, secs(5), "what comes", |s| ids(s) == all).await;
    let names: Vec<_> = registry.services().await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["book"], "go-zero's place is all of etcd, and no place to look for services");

    // An endpoint more makes two instances of one entry, which go together.
    raw.put("/microservices/book/k", kratos(both).as_bytes(), 0).await.unwrap();
    let two = ["127.0.0.1:9", "7587862094814830592", "h:3", "k@grpc", "k@http", "m"];
    until(&mut watch, secs(5), "an endpoint more", |s| ids(s) == two).await;
    let for_grpc = open_at(etcd.addr(), "/services?read=kratos&protocol=grpc");
    let mut calls = for_grpc.watch(&book());
    until(&mut calls, secs(5), "the endpoint that can be called", |s| ids(s) == ["127.0.0.1:9", "k"]).await;
    raw.put("kitex/registry-etcd/book/h:3", b"{}", 0).await.unwrap();
    until(&mut watch, secs(5), "one breaks", |s| s.skipped() == 1 && !ids(s).contains(&"h:3".to_owned()))
        .await;

    let remove = async |id: &str| registry.remove(&book(), &InstanceId::new(id).unwrap()).await;
    assert_eq!(remove("k@tcp").await.unwrap_err().kind(), ErrorKind::NotFound);
    remove("k@http").await.unwrap();
    assert_eq!(remove("k@grpc").await.unwrap_err().kind(), ErrorKind::NotFound);
    remove("m").await.unwrap();
    raw.delete("book/7587862094814830592").await.unwrap();
    until(&mut watch, secs(5), "ours alone is left", |s| ids(s) == ["127.0.0.1:9"]).await;
}
