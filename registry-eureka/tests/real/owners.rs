//! Whose an entry is, where one server knows less than another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use callsign_core::Status;
use callsign_testkit::eureka::Api;
use callsign_testkit::proxy::Proxy;
use callsign_testkit::wait::{eventually, ok, until_status};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::front::{Does, Front};
use crate::{instance, open, secs, start};

async fn entry(raw: &Api) -> Option<Value> {
    raw.instances("book").await.unwrap().first().cloned()
}

async fn mark(raw: &Api) -> String {
    let entry = entry(raw).await.unwrap_or_default();
    entry["metadata"]["callsign-incarnation"].as_str().unwrap_or_default().to_owned()
}

/// A process crashed and was started again; the server that was told of it goes away, and the next one still has the entry
/// of before: that is no newer owner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_predecessor_left_does_not_supersede() {
    let (mut first, at_first, _) = start(&[]).await;
    let (second, at_second, _) = start(&[]).await;
    let link = Proxy::start(second.addr()).await.unwrap();
    let before = open(&format!("eureka://{}/eureka?ttl=120s", link.addr()));
    let crashed = ok(before.register(instance(1)).await, "register");
    link.cut();
    let registry = open(&format!("eureka://{},{}/eureka?ttl=6s&drain=100ms", first.addr(), second.addr()));
    let mut registration = ok(registry.register(instance(1)).await, "register again");
    let (old, new) = (mark(&at_second).await, mark(&at_first).await);
    assert!(!old.is_empty() && old < new, "{old}, then {new}");
    first.kill();
    eventually(secs(10), "it is registered at the other", async || mark(&at_second).await == new).await;
    until_status(&mut registration, secs(3), "registered", Status::is_registered).await;
    sleep(secs(3)).await;
    assert!(registration.status().is_registered(), "{:?}", registration.status());
    ok(registration.deregister().await, "deregister");
    assert_eq!(entry(&at_second).await, None);
    drop((crashed, before));
}

/// The same, where the clock of the machine that it ran on was ahead. What bears no mark is somebody else's, as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_takes_an_id_over_is_younger_whatever_its_clock_says() {
    let (mut first, at_first, _) = start(&[]).await;
    let (second, at_second, _) = start(&[]).await;
    let ahead = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + secs(3600);
    let ahead = format!("{:014x}-ffffffff", ahead.as_micros());
    let left = json!({ "metadata": { "callsign-incarnation": ahead }, "lastDirtyTimestamp": 1 });
    for raw in [&at_first, &at_second] {
        raw.register("book", "127.0.0.1:1", "127.0.0.1", 1, &left).await.unwrap();
    }
    let registry = open(&format!("eureka://{},{}/eureka?ttl=6s&drain=100ms", first.addr(), second.addr()));
    let mut registration = ok(registry.register(instance(1)).await, "register");
    let ours = mark(&at_first).await;
    assert!(ours > ahead, "{ours} after {ahead}");
    first.kill();
    eventually(secs(10), "it is registered at the other", async || mark(&at_second).await == ours).await;
    let theirs = json!({ "lastDirtyTimestamp": u64::MAX >> 2 });
    at_second.register("book", "127.0.0.1:1", "127.0.0.1", 2, &theirs).await.unwrap();
    until_status(&mut registration, secs(8), "superseded", |s| matches!(s, Status::Superseded)).await;
}

/// Who leaves asks a server that does not yet know of the entry, or only of the one before: it is removed all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_waits_for_a_server_that_is_behind() {
    let (server, raw, _) = start(&[]).await;
    let (first, second) = (Front::start(server.addr()).await, Front::start(server.addr()).await);
    let registry = open(&format!("eureka://{},{}/eureka?ttl=30s&drain=100ms", first.addr(), second.addr()));
    let registration = ok(registry.register(instance(1)).await, "register");
    first.does(|_, _| Does::Refuse(503));
    let asked = Arc::<AtomicUsize>::default();
    second.does(move |method, _| match method {
        // Until it has heard of it. The first is who wants to say that it leaves.
        "GET" if asked.fetch_add(1, Ordering::Relaxed) < 5 => Does::Refuse(404),
        _ => Does::Pass,
    });
    ok(registration.deregister().await, "deregister");
    let seen = second.seen();
    assert!(seen.iter().any(|seen| (&*seen.method, seen.status) == ("DELETE", 200)), "{seen:?}");
    assert_eq!(entry(&raw).await, None);
}
