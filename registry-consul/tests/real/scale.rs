//! Ten thousand instances, and a hundred of them changing each second.

use std::time::Duration;

use callsign_testkit::conformance::resources::rss;
use callsign_testkit::wait::until;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{book, fresh, measured, open_at, secs, start};

const INSTANCES: usize = 10_000;

/// Written to the catalog directly, as if many agents had.
fn entry(n: usize, at: usize) -> serde_json::Value {
    json!({
        "Node": format!("node-{}", n % 50), "Address": "10.0.0.1", "SkipNodeUpdate": true,
        "Service": {
            "ID": format!("i{n}"), "Service": "book", "Address": format!("10.1.{}.{}", n / 250, n % 250),
            "Port": 50051, "Meta": { "at": at.to_string() },
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_19_ten_thousand() {
    let (consul, raw) = start().await;
    for n in 0..50 {
        raw.put("catalog/register", &json!({ "Node": format!("node-{n}"), "Address": "10.0.0.1" }))
            .await
            .unwrap();
    }
    for some in (0..INSTANCES).collect::<Vec<_>>().chunks(64) {
        let ops: Vec<_> = some
            .iter()
            .map(|&n| {
                let entry = entry(n, 0);
                json!({ "Service": { "Verb": "set", "Node": entry["Node"], "Service": entry["Service"] } })
            })
            .collect();
        raw.put("txn", &json!(ops)).await.unwrap();
    }
    let before = rss();
    let begun = Instant::now();
    let registry = open_at(consul.addr(), "");
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(30), "loaded", fresh(INSTANCES)).await;
    measured("10,000 loaded", begun.elapsed());
    measured("memory grew by, in kB", (rss() - before) / 1024);
    assert!(begun.elapsed() < secs(3), "{:?}", begun.elapsed());
    let (start, revision) = (Instant::now(), watch.snapshot().revision());
    let mut ticks = interval(Duration::from_millis(10));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut n = 0;
    while start.elapsed() < secs(6) {
        ticks.tick().await;
        n += 1;
        raw.put("catalog/register", &entry(n * 97 % INSTANCES, n)).await.unwrap();
    }
    let took = start.elapsed().as_secs_f64();
    let last = format!("i{}@node-{}", n * 97 % INSTANCES, n * 97 % INSTANCES % 50).parse().unwrap();
    let written = Instant::now();
    let is_last = |s: &callsign_core::Snapshot| {
        s.get(&last).is_some_and(|listed| listed.metadata().get("at").is_some_and(|at| *at == n.to_string()))
    };
    until(&mut watch, secs(5), "the last change", is_last).await;
    measured("changes a second", n as f64 / took);
    measured("the last change is seen", written.elapsed());
    let publishes = (watch.snapshot().revision() - revision) as f64 / took;
    measured("publishes a second", publishes);
    measured("memory grew by, in kB", (rss() - before) / 1024);
    assert!(publishes <= 10.5, "{publishes} publishes a second");
}
