//! Row 12: the member that everybody is connected to is cut off from the others, and still reached by its clients.

use std::collections::BTreeMap;

use callsign_core::{Registration, Status};
use callsign_testkit::etcd::PartitionedCluster;
use callsign_testkit::record::{Recorder, confirmed};
use callsign_testkit::wait::{until, until_status};
use tokio::time::{Instant, sleep};

use crate::{book, fresh, ids, instance, measured, open, secs};

const MEMBERS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_12_a_follower_in_the_minority() {
    row_12(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_12_the_leader_in_the_minority() {
    row_12(true).await;
}

async fn row_12(isolates_the_leader: bool) {
    let cluster = PartitionedCluster::start().await.unwrap();
    cluster.whole().await.unwrap();
    let leader = cluster.leader(0).await.unwrap().unwrap();
    let isolated = if isolates_the_leader { leader } else { (leader + 1) % MEMBERS };
    let others = [(isolated + 1) % MEMBERS, (isolated + 2) % MEMBERS];

    // What cannot be reached at first is not gone to without a reason later.
    others.iter().for_each(|&other| cluster.links[other].cut());
    let (servers, clients) = (open(&cluster.url("ttl=5s")), open(&cluster.url("ttl=5s")));
    let mut registrations = Vec::new();
    for port in 1..=3 {
        registrations.push(servers.register(instance(port)).await.unwrap());
    }
    let mut watch = clients.watch(&book());
    until(&mut watch, secs(5), "three", fresh(3)).await;
    others.iter().for_each(|&other| cluster.links[other].heal());
    sleep(secs(2)).await;
    let open_links: Vec<_> = cluster.links.iter().map(|link| link.open() > 0).collect();
    assert!((0..MEMBERS).all(|member| open_links[member] == (member == isolated)), "{open_links:?}");
    let recorder = Recorder::start(watch.clone());
    let all: Vec<_> = registrations.iter().map(Registration::id).collect();
    let majority = cluster.raw(others[0]);
    let keys = async || -> BTreeMap<String, (i64, i64)> {
        let entries = majority.list("services/book/").await.unwrap();
        entries.into_iter().map(|entry| (entry.key, (entry.lease, entry.create_revision))).collect()
    };
    let before = keys().await;
    assert_eq!(before.len(), 3);

    cluster.isolate(isolated);
    let begun = Instant::now();
    let written = async {
        let value = br#"{"Op":0,"Addr":"127.0.0.1:9","Metadata":null}"#;
        // Not before: what is handed to the leader that is no more may yet take effect once it is back.
        cluster.in_minority(isolated).await.unwrap();
        majority.put("services/book/127.0.0.1:9", value, 0).await.unwrap();
        let able = begun.elapsed();
        measured("the majority takes a write", able);
        until(&mut watch, secs(10), "the write is seen", |s| ids(s).len() == 4).await;
        measured("a write to the majority is seen", begun.elapsed());
        able
    };
    let updated = async {
        let heavier = registrations[0].instance().as_ref().clone().with_weight(7);
        registrations[0].update(heavier).await.unwrap();
        measured("a registrar's own change is written", begun.elapsed());
        begun.elapsed()
    };
    let (able, updated) = tokio::join!(written, updated);
    // How long the members need to agree, on a busy machine, is not ours.
    assert!(updated < able + secs(10), "{updated:?}, {able:?}");
    // Longer than what nobody renews lives.
    sleep(secs(7)).await;
    cluster.in_minority(isolated).await.unwrap();
    let mut now = keys().await;
    assert!(now.remove("services/book/127.0.0.1:9").is_some());
    assert_eq!(now, before, "registered again without need");
    for registration in &mut registrations {
        until_status(registration, secs(1), "registered", Status::is_registered).await;
    }
    assert!(cluster.raw(isolated).count("services/").await.is_err(), "the isolated member reads");

    cluster.heal();
    cluster.whole().await.unwrap();
    majority.delete("services/book/127.0.0.1:9").await.unwrap();
    until(&mut watch, secs(5), "exact", |s| fresh(3)(s) && confirmed(s).iter().eq(&all)).await;
    sleep(secs(7)).await;
    assert!(fresh(3)(&watch.snapshot()), "{:?}", watch.snapshot());
    assert_eq!(watch.snapshot().get(&all[0]).unwrap().weight(), 7);
    assert_eq!(keys().await, before, "registered again after the end of it");
    recorder.check_never_missing(&all);
    recorder.check_never_empty();
    recorder.check_safety();
}
