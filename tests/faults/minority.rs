//! Row 12: the member that everybody is connected to is cut off from the other two, and still reached by its clients.

use std::collections::BTreeSet;
use std::time::Duration;

use callsign::InstanceId;
use callsign_testkit::etcd::PartitionedCluster;
use callsign_testkit::record::confirmed;
use callsign_testkit::wait::until;
use tokio::time::{Instant, sleep};

use crate::cast::Cast;
use crate::scene::{BACK, TUNING, long};

const SWITCH: Duration = Duration::from_secs(10);
const EXTRA: &str = "10.0.0.1:1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_12_minority() {
    let cluster = PartitionedCluster::start().await.unwrap();
    cluster.whole().await.unwrap();
    let leader = cluster.leader(0).await.unwrap().unwrap();
    let url = cluster.url(&TUNING.query());
    // First the leader, then whoever is a follower by then; everybody comes to it while the others are out of reach.
    let reach_only = |member: usize| {
        for (n, link) in cluster.links.iter().enumerate() {
            if n == member { link.heal() } else { link.cut() }
        }
    };
    reach_only(leader);
    let mut cast = Cast::enter(&url, &url).await;
    let leases = async |member: usize| -> BTreeSet<(String, i64)> {
        let entries = cluster.raw(member).list("services/book/").await.unwrap();
        entries.into_iter().map(|entry| (entry.key, entry.lease)).collect()
    };
    let before = leases(leader).await;
    let extra = InstanceId::new(EXTRA).unwrap();
    // Draining, so that nobody calls it.
    let value = format!(r#"{{"Op":0,"Addr":"{EXTRA}","Metadata":null,"callsign":{{"state":"draining"}}}}"#);
    let mut isolated = leader;
    for _ in 0..2 {
        cluster.links.iter().for_each(callsign_testkit::proxy::Proxy::heal);
        sleep(Duration::from_secs(1)).await;
        assert!(cluster.links[isolated].open() > 0);
        let other = (isolated + 1) % 3;
        cluster.isolate(isolated);
        let begun = Instant::now();
        let key = format!("services/book/{EXTRA}");
        let raw = cluster.raw(other);
        // Not before: what is handed to the leader that is no more may yet take effect once it is back.
        cluster.in_minority(isolated).await.unwrap();
        println!("measured: the minority has no leader after {:?}", begun.elapsed());
        raw.put(&key, value.as_bytes(), 0).await.unwrap();
        until(&mut cast.watch, SWITCH, "the write is seen", |s| s.get(&extra).is_some()).await;
        assert!(begun.elapsed() < SWITCH, "{:?}", begun.elapsed());
        println!("measured: a write to the majority is seen after {:?}", begun.elapsed());
        // Longer than what nobody renews lives.
        sleep(long(7, 60)).await;
        raw.delete(&key).await.unwrap();
        // What goes soon after an outage is held for a while.
        until(&mut cast.watch, SWITCH, "its end is seen", |s| !confirmed(s).contains(&extra)).await;
        assert_eq!(leases(other).await, before, "nothing had to be registered again");
        cluster.heal();
        cluster.whole().await.unwrap();
        let now = cluster.leader(0).await.unwrap().unwrap();
        isolated = (now + 1) % 3;
        reach_only(isolated);
        // By then all have come over.
        sleep(Duration::from_secs(5)).await;
        assert_eq!(leases(isolated).await, before, "nothing had to be registered again");
    }
    cast.is_exact(BACK).await;
    cast.end_unharmed().await;
}
