//! Ten thousand instances: how long they take and what they weigh, asked for by themselves and with everything.

use callsign_testkit::conformance::full;
use callsign_testkit::conformance::resources::rss;
use callsign_testkit::eureka::Api;
use callsign_testkit::wait::eventually;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{book, fresh, measured, open, secs, start};

async fn register(raw: &Api, numbers: impl Iterator<Item = usize>, at: i64) {
    let mut writes = JoinSet::new();
    for n in numbers {
        if writes.len() >= 8 {
            writes.join_next().await.unwrap().unwrap();
        }
        let raw = raw.clone();
        writes.spawn(async move {
            let host = format!("10.0.{}.{}", n / 250, n % 250);
            let more = json!({
                "metadata": { "zone": "eu-1", "team": "library", "at": at.to_string() }, "lastDirtyTimestamp": at,
            });
            raw.register("book", &format!("{host}:book:50051"), &host, 50051, &more).await.unwrap();
        });
    }
    writes.join_all().await;
}

/// The most that this process has ever had in memory.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_instances() {
    let count = if full() { 10_000 } else { 2_000 };
    // By the time that one changes, the others have not changed for long.
    let forgets = [
        "eureka.server.retention-time-in-m-s-in-delta-queue=3000",
        "eureka.server.delta-retention-timer-interval-in-ms=200",
    ];
    let (_server, raw, url) = start(&forgets).await;
    register(&raw, 0..count, 1).await;
    let changed = async || {
        raw.ask("GET", "apps/delta", None).await.unwrap()["applications"]["application"] != json!([])
    };
    eventually(secs(20), "nothing changes any more", async || !changed().await).await;
    for fetch in ["all", "each"] {
        let before = rss();
        let registry = open(&format!("{url}&fetch={fetch}"));
        let begun = Instant::now();
        let watch = registry.watch(&book());
        eventually(secs(3), "all are listed", async || fresh(count)(&watch.snapshot())).await;
        measured(&format!("{fetch}: {count} are listed after"), begun.elapsed());
        println!(
            "measured: {fetch}: {} KiB more, the peak of all {} KiB",
            rss().saturating_sub(before) >> 10,
            peak() >> 10
        );
        for at in [2, 3, 4] {
            let begun = Instant::now();
            let at = at + if fetch == "all" { 0 } else { 3 };
            register(&raw, [7].into_iter(), at).await;
            let is_seen = |s: &callsign_core::Snapshot| {
                let mut all = s.iter();
                all.any(|it| it.metadata().get("at").is_some_and(|it| *it == at.to_string()))
            };
            // Not by `until`, which would print all of them.
            let seen = async || is_seen(&watch.snapshot());
            eventually(secs(10), "the change is seen", seen).await;
            measured(&format!("{fetch}: one change is seen after"), begun.elapsed());
        }
    }
}
