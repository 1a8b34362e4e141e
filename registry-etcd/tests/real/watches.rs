//! Watches that break: resumed, led elsewhere, overtaken by a compaction.

use std::net::SocketAddr;

use callsign_core::{InstanceWatch, Snapshot};
use callsign_testkit::etcd::Gateway;
use callsign_testkit::proxy::Proxy;
use callsign_testkit::record::Recorder;
use callsign_testkit::wait::until;
use tokio::time::{Instant, sleep};

use crate::{book, fresh, ids, measured, open_at, secs, start};

/// Writes that many instances, each in a revision of its own.
async fn grow(raw: &Gateway, service: &str, entries: u16) {
    for port in 1..=entries {
        let value = format!("127.0.0.1:{port}");
        raw.put(&format!("services/{service}/{value}"), value.as_bytes(), 0).await.unwrap();
    }
}

/// A watch through a link, which has been steady for long enough that a break is resumed at once.
async fn watch_through(etcd: SocketAddr, count: usize) -> (Proxy, InstanceWatch) {
    let link = Proxy::start(etcd).await.unwrap();
    let mut watch = open_at(link.addr(), "").watch(&book());
    until(&mut watch, secs(5), "listed", fresh(count)).await;
    sleep(secs(2)).await;
    (link, watch)
}

fn never_stale(recorder: &Recorder) {
    let stale = recorder.history().into_iter().find(|(_, snapshot)| snapshot.freshness().is_stale());
    assert!(stale.is_none(), "{stale:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wipe_shows_by_its_lower_revision_at_once() {
    let ((old, old_raw), (new, new_raw)) = (start(&[]).await, start(&[]).await);
    grow(&old_raw, "book", 20).await;
    grow(&new_raw, "book", 15).await;
    let (link, mut watch) = watch_through(old.addr(), 20).await;
    link.redirect(new.addr());
    let begun = Instant::now();
    until(&mut watch, secs(2), "the other set", fresh(15)).await;
    measured("a lower revision is noticed", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_wipe_is_found_by_the_list_that_verifies() {
    let ((old, old_raw), (new, new_raw)) = (start(&[]).await, start(&[]).await);
    grow(&old_raw, "book", 10).await;
    for (service, entries) in [("other", 20), ("book", 8), ("other", 20)] {
        grow(&new_raw, service, entries).await;
    }
    let (link, mut watch) = watch_through(old.addr(), 10).await;
    let recorder = Recorder::start(watch.clone());
    link.redirect(new.addr());
    let begun = Instant::now();
    until(&mut watch, secs(10), "the other set", fresh(8)).await;
    measured("a silent wipe is noticed", begun.elapsed());
    // The resumption itself worked: nobody was told of a fault.
    never_stale(&recorder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_cut_is_resumed_without_a_word() {
    let (etcd, raw) = start(&[]).await;
    grow(&raw, "book", 3).await;
    let (link, mut watch) = watch_through(etcd.addr(), 3).await;
    let recorder = Recorder::start(watch.clone());
    for round in 0..3 {
        link.blackhole();
        link.reset();
        raw.put(&format!("services/book/new{round}"), b"127.0.0.1:9", 0).await.unwrap();
        raw.delete(&format!("services/book/127.0.0.1:{}", round + 1)).await.unwrap();
        link.heal();
        let begun = Instant::now();
        until(&mut watch, secs(2), "caught up with", |s| ids(s).contains(&format!("new{round}"))).await;
        measured("what was missed is there", begun.elapsed());
        sleep(secs(2)).await;
    }
    until(&mut watch, secs(2), "all", |snapshot| ids(snapshot) == ["new0", "new1", "new2"]).await;
    // The list that verifies changes nothing.
    sleep(secs(9)).await;
    assert!(fresh(3)(&watch.snapshot()));
    never_stale(&recorder);
}

/// Row 13: once cut so shortly that the watch is resumed, into the compaction; once for so long that all is listed
/// anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_13_compacted_while_cut_off() {
    let (etcd, raw) = start(&[]).await;
    grow(&raw, "book", 6).await;
    let (link, mut watch) = watch_through(etcd.addr(), 6).await;
    for cut in [0, 5] {
        link.blackhole();
        link.reset();
        for port in [1, 2, 3] {
            let (key, value) = (format!("services/book/127.0.0.1:{port}"), format!("127.0.0.1:1{port}"));
            raw.put(&format!("services/book/cut{cut}-{port}"), value.as_bytes(), 0).await.unwrap();
            raw.put(&key, value.as_bytes(), 0).await.unwrap();
        }
        raw.delete(&format!("services/book/127.0.0.1:{}", 6 - cut / 5)).await.unwrap();
        raw.compact().await.unwrap();
        sleep(secs(cut)).await;
        link.heal();
        let all: Vec<_> = raw.list("services/book/").await.unwrap();
        let all: Vec<_> = all.iter().map(|entry| entry.key.trim_start_matches("services/book/")).collect();
        let exact = |snapshot: &Snapshot| snapshot.freshness().is_fresh() && ids(snapshot) == all;
        let begun = Instant::now();
        // The driver's own pause before it tries again adds up to 5 s to a long cut.
        until(&mut watch, secs(2 + cut), "exact", exact).await;
        measured("exact after compaction", begun.elapsed());
        sleep(secs(2)).await;
    }
}
