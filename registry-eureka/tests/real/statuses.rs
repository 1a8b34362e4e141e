//! Statuses: who starts, who leaves, and what an operator says.

use callsign_core::{Snapshot, State};
use callsign_testkit::eureka::path;
use callsign_testkit::record::Recorder;
use callsign_testkit::wait::{eventually, ok, until};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{book, fresh, instance, measured, open, secs, start};

/// Who is down at first is starting, then up, then down again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_never_up_is_starting() {
    let (_server, raw, url) = start(&[]).await;
    let registry = open(&url);
    let status = async || raw.instances("book").await.unwrap()[0]["status"].as_str().unwrap().to_owned();
    let registration = ok(registry.register(instance(1).with_state(State::Down)).await, "register");
    assert_eq!(status().await, "STARTING");
    ok(registration.update(instance(1)).await, "update");
    assert_eq!(status().await, "UP");
    ok(registration.update(instance(1).with_state(State::Down)).await, "update");
    assert_eq!(status().await, "DOWN");
}

/// An operator takes an instance out of service, of ours and of somebody else's: at once, though they are all there are. No renewal,
/// update or look at the own entry undoes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_word_counts() {
    let (_server, raw, url) = start(&[]).await;
    for fetch in ["each", "all"] {
        let registry = open(&format!("{url}&verify=500ms&fetch={fetch}"));
        let registration = ok(registry.register(instance(1)).await, "register");
        raw.register("book", "theirs", "127.0.0.1", 2, &json!({})).await.unwrap();
        let mut watch = registry.watch(&book());
        until(&mut watch, secs(3), "both", fresh(2)).await;
        let begun = Instant::now();
        for id in ["127.0.0.1:1", "theirs"] {
            let path = format!("{}/status?value=OUT_OF_SERVICE", path("book", id));
            raw.ask("PUT", &path, None).await.unwrap();
        }
        until(&mut watch, secs(3), "none is to be called", Snapshot::is_empty).await;
        measured("out of service is seen after", begun.elapsed());
        ok(registration.update(instance(1).with_weight(5)).await, "update");
        // Several renewals and looks at the own entry.
        sleep(secs(4)).await;
        assert!(registration.status().is_registered(), "{:?}", registration.status());
        assert!(watch.snapshot().is_empty(), "{:?}", watch.snapshot());
        assert_eq!(ok(registry.services().await, "services"), []);
        let all = open(&format!("{url}&status=all&fetch={fetch}"));
        let down = |s: &Snapshot| s.len() == 2 && s.iter().all(|listed| listed.state() == State::Down);
        until(&mut all.watch(&book()), secs(3), "both are down", down).await;
        for id in ["127.0.0.1:1", "theirs"] {
            raw.ask("DELETE", &format!("{}/status", path("book", id)), None).await.unwrap();
        }
        // Without an override nobody knows the status until the owner says it again, which it does at its next renewal.
        let back = |s: &Snapshot| s.iter().any(|listed| listed.weight() == 5);
        until(&mut watch, secs(6), "ours is back", back).await;
        ok(registration.deregister_within(secs(1)).await, "deregister");
        raw.delete("book", "theirs").await.unwrap();
        eventually(secs(3), "nothing is left", async || raw.instances("book").await.unwrap().is_empty())
            .await;
    }
}

/// Spring says DOWN before it leaves: not held, though nobody else is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_says_that_it_leaves_is_gone_at_once() {
    let (_server, raw, url) = start(&[]).await;
    let registry = open(&url);
    raw.register("book", "theirs", "127.0.0.1", 2, &json!({ "lastDirtyTimestamp": 1 })).await.unwrap();
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(3), "one", fresh(1)).await;
    let recorder = Recorder::start(watch.clone());
    let down = json!({ "status": "DOWN", "lastDirtyTimestamp": 2 });
    raw.register("book", "theirs", "127.0.0.1", 2, &down).await.unwrap();
    until(&mut watch, secs(3), "gone", |s| s.is_empty() && s.freshness().is_fresh()).await;
    recorder.check_safety();
}

/// While nobody can ask, one goes down: the first list after that does not hold on to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_went_down_in_an_outage_is_not_held() {
    let (server, raw, _) = start(&[]).await;
    let link = callsign_testkit::proxy::Proxy::start(server.addr()).await.unwrap();
    let registry = open(&format!("eureka://{}/eureka?poll=100ms", link.addr()));
    for (id, port) in [("one", 1), ("two", 2)] {
        raw.register("book", id, "127.0.0.1", port, &json!({ "lastDirtyTimestamp": 1 })).await.unwrap();
    }
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(3), "both", fresh(2)).await;
    link.cut();
    until(&mut watch, secs(5), "stale", |s| s.freshness().is_stale()).await;
    let down = json!({ "status": "DOWN", "lastDirtyTimestamp": 2 });
    raw.register("book", "two", "127.0.0.1", 2, &down).await.unwrap();
    link.heal();
    let gone = |s: &Snapshot| s.freshness().is_fresh() && s.len() == 1 && s.iter().all(|one| !one.is_held());
    until(&mut watch, secs(8), "the other is gone", gone).await;
}
