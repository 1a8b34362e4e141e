//! Lists that take their time.

use callsign_core::ServiceName;
use callsign_testkit::record::Recorder;
use callsign_testkit::wait::until;
use serde_json::json;
use tokio::time::Instant;

use crate::front::{Does, Front};
use crate::{book, fresh, measured, open, secs, start};

/// A large registry takes its time, which is no failure: neither that an answer begins late nor that it ends late, and it
/// is not asked elsewhere in vain each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_lists_come_with_three_servers_as_with_one() {
    let (server, raw, _) = start(&[]).await;
    raw.register("book", "i1", "127.0.0.1", 1, &json!({})).await.unwrap();
    for does in [Does::Slow(secs(3)), Does::Late(secs(3))] {
        let mut fronts = Vec::new();
        for _ in 0..3 {
            let front = Front::start(server.addr()).await;
            front.does(move |_, path| if path == "apps/BOOK" { does } else { Does::Pass });
            fronts.push(front);
        }
        let hosts: Vec<_> = fronts.iter().map(|front| front.addr().to_string()).collect();
        let registry = open(&format!("eureka://{}/eureka?poll=100ms&fetch=each", hosts.join(",")));
        let (mut watch, begun) = (registry.watch(&book()), Instant::now());
        until(&mut watch, secs(12), "one", fresh(1)).await;
        measured(&format!("{does:?}: listed after"), begun.elapsed());
        let recorder = Recorder::start(watch.clone());
        let asked = || fronts.iter().map(|front| front.seen().len()).sum::<usize>();
        let first = asked();
        assert!(first <= 3, "{does:?}: {first} questions for the first list");
        raw.register("book", "i2", "127.0.0.1", 2, &json!({})).await.unwrap();
        until(&mut watch, secs(20), "another", fresh(2)).await;
        let next = asked();
        assert!(next <= 2, "{does:?}: {next} questions for the next one or two lists");
        recorder.check_safety();
        raw.delete("book", "i2").await.unwrap();
    }
}

/// Whoever waits for its turn does not take that for the server's failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_turn_is_no_failure_of_the_server() {
    let (server, _, _) = start(&[]).await;
    let mut fronts = Vec::new();
    for _ in 0..3 {
        let front = Front::start(server.addr()).await;
        front.does(|_, path| if path.starts_with("apps/S") { Does::Late(secs(1)) } else { Does::Pass });
        fronts.push(front);
    }
    let hosts: Vec<_> = fronts.iter().map(|front| front.addr().to_string()).collect();
    let registry = open(&format!("eureka://{}/eureka?poll=60s&fetch=each", hosts.join(",")));
    // Sixteen are asked for at once.
    let watches = (0..48).map(|n| registry.watch(&format!("s{n}").parse::<ServiceName>().unwrap()));
    for mut watch in watches.collect::<Vec<_>>() {
        until(&mut watch, secs(10), "listed", |s| s.freshness().is_fresh()).await;
    }
    let seen: Vec<_> = fronts.iter().map(|front| front.seen().len()).collect();
    assert!(seen[0] >= 48 && seen[1..] == [0, 0], "{seen:?} questions");
}
