//! What stands before a server, and does not find it.

use callsign_core::{Listed, Snapshot};
use callsign_testkit::record::Recorder;
use callsign_testkit::wait::until;
use serde_json::json;
use tokio::time::sleep;

use crate::front::{Does, Front};
use crate::{book, fresh, open, secs, start};

/// What is before a server has nothing of it for a while: that is no empty service.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_front_that_finds_nothing_empties_no_service() {
    let (server, raw, _) = start(&[]).await;
    for n in 1..=3 {
        raw.register("book", &format!("i{n}"), "127.0.0.1", n, &json!({})).await.unwrap();
    }
    let front = Front::start(server.addr()).await;
    for fetch in ["each", "all"] {
        let url = format!("eureka://{}/eureka?poll=100ms&grace=500ms&fetch={fetch}", front.addr());
        let mut watch = open(&url).watch(&book());
        until(&mut watch, secs(5), "all", fresh(3)).await;
        let recorder = Recorder::start(watch.clone());
        front.does(|_, _| Does::Refuse(404));
        let stale = |s: &Snapshot| s.freshness().is_stale();
        let seen = until(&mut watch, secs(3), "stale", stale).await;
        assert!(seen.freshness().error().unwrap().chain().contains("there is no Eureka"), "{seen:?}");
        sleep(secs(2)).await;
        assert_eq!((watch.snapshot().len(), watch.snapshot().iter().any(Listed::is_held)), (3, false));
        front.does(|_, _| Does::Pass);
        until(&mut watch, secs(10), "fresh again", fresh(3)).await;
        let ids: Vec<_> = watch.snapshot().iter().map(|listed| listed.id().clone()).collect();
        recorder.check_never_missing(&ids);
    }
    // A service that nobody is left of is one.
    let mut watch = open(&format!("eureka://{}/eureka?poll=100ms&grace=500ms", front.addr())).watch(&book());
    until(&mut watch, secs(5), "all", fresh(3)).await;
    for n in 1..=3 {
        raw.delete("book", &format!("i{n}")).await.unwrap();
    }
    until(&mut watch, secs(5), "none", |s| s.is_empty() && s.freshness().is_fresh()).await;
}
