//! Rows 11 and 12 on ZooKeeper: three servers, of which one is killed, frozen, or cut off from the other two and still reached by
//! its clients.

use std::collections::BTreeSet;
use std::time::Duration;

use callsign::{Instance, InstanceId, Snapshot};
use callsign_testkit::fixture::Tuning;
use callsign_testkit::record::confirmed;
use callsign_testkit::server::Server;
use callsign_testkit::wait::{eventually, ok, until};
use callsign_testkit::zookeeper::{PartitionedEnsemble, Raw, Role, ZooKeeper};
use tokio::time::{Instant, sleep};

use crate::cast::Cast;
use crate::scene::{BACK, TTL, TUNING, long};

/// The most time until changes arrive again after a server was killed.
const GAP: Duration = Duration::from_secs(5);
/// The most time until clients of a server that is cut off have left it, or say that it is.
const SWITCH: Duration = Duration::from_secs(10);

const SERVICE: &str = "/services/book";
const EXTRA: &str = "10.0.0.1:1";
/// Draining, so that nobody calls it.
const DRAINING: &[u8] = br#"{"name":"book","id":"10.0.0.1:1","address":"10.0.0.1","port":1,"payload":null,"callsign":{"state":"draining"}}"#;

/// The nodes that there are, and the transactions that made them, by what a server knows.
async fn written(raw: &Raw) -> BTreeSet<(String, i64)> {
    let mut written = BTreeSet::new();
    for name in raw.children(SERVICE).await.unwrap() {
        if let Some(node) = raw.get(&format!("{SERVICE}/{name}")).await.unwrap() {
            written.insert((name, node.created));
        }
    }
    written
}

/// A change that is written to a server is seen within `within` of `begun`, and its end, too.
async fn follows(cast: &mut Cast, raw: &Raw, begun: Instant, within: Duration) {
    let (id, path) = (InstanceId::new(EXTRA).unwrap(), format!("{SERVICE}/{EXTRA}"));
    // Not while they elect a leader.
    eventually(within, "a quorum", async || raw.put(&path, DRAINING).await.is_ok()).await;
    println!("measured: a write is taken after {:?}", begun.elapsed());
    let left = within.saturating_sub(begun.elapsed());
    until(&mut cast.watch, left, "the write is seen", |s| s.get(&id).is_some()).await;
    println!("measured: it is seen after {:?}", begun.elapsed());
    raw.delete(&path).await.unwrap();
    // What goes soon after an outage is held for a while.
    until(&mut cast.watch, within, "its end is seen", |s| !confirmed(s).contains(&id)).await;
}

async fn leader(servers: &[Server<ZooKeeper>]) -> usize {
    let mut leader = None;
    eventually(GAP, "one leads", async || {
        for (n, server) in servers.iter().enumerate() {
            if ZooKeeper::raw(server).role().await.is_ok_and(|role| role == Some(Role::Leads)) {
                leader = Some(n);
            }
        }
        leader.is_some()
    })
    .await;
    leader.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_11_servers_killed() {
    let mut servers = ZooKeeper::ensemble::<3>().await.unwrap();
    let hosts: Vec<_> = servers.iter().map(|server| server.addr().to_string()).collect();
    let url = format!("zk://{}/services?{}", hosts.join(","), TUNING.query());
    let mut cast = Cast::enter(&url, &url).await;
    let before = written(&ZooKeeper::raw(&servers[0])).await;
    assert_eq!(before.len(), 4);
    // The leader first: there is none for a moment. Then whoever has not been killed yet, so that all were.
    let mut killed = leader(&servers).await;
    for _ in 0..3 {
        servers[killed].kill();
        let begun = Instant::now();
        let other = ZooKeeper::raw(&servers[(killed + 1) % 3]);
        follows(&mut cast, &other, begun, GAP).await;
        // Longer than a session lives that nobody takes up.
        sleep(TTL + long(2, 30)).await;
        assert_eq!(written(&other).await, before, "nothing had to be registered again");
        servers[killed].start().await.unwrap();
        cast.is_exact(BACK).await;
        killed = (killed + 1) % 3;
    }
    // And a registration is still one: what leaves in order is gone.
    let mut leaver = cast.backends.pop().unwrap();
    leaver.process().terminate().unwrap();
    until(&mut cast.watch, Duration::from_secs(3), "gone", |s| s.get(&leaver.id).is_none()).await;
    assert!(leaver.process().ended(Duration::from_secs(10)).await.unwrap().success());
    cast.end_unharmed().await;
}

/// Row 11, where nobody gets an error: sessions of 4 s outlive the server that they are connected to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_11_servers_frozen() {
    let servers = ZooKeeper::ensemble::<3>().await.unwrap();
    let hosts: Vec<_> = servers.iter().map(|server| server.addr().to_string()).collect();
    let tuning = Tuning { ttl: Some(Duration::from_secs(4)), ..TUNING };
    let url = format!("zk://{}/services?{}", hosts.join(","), tuning.query());
    let mut cast = Cast::enter(&url, &url).await;
    let before = written(&ZooKeeper::raw(&servers[0])).await;
    assert_eq!(before.len(), 4);
    let first = leader(&servers).await;
    for frozen in [first, (first + 1) % 3, (first + 2) % 3] {
        servers[frozen].pause().unwrap();
        let begun = Instant::now();
        let other = ZooKeeper::raw(&servers[(frozen + 1) % 3]);
        follows(&mut cast, &other, begun, SWITCH).await;
        sleep(TTL + long(2, 30)).await;
        assert_eq!(written(&other).await, before, "nothing had to be registered again");
        servers[frozen].resume().unwrap();
        cast.is_exact(BACK).await;
        // Or the next one takes the quorum along.
        let raw = ZooKeeper::raw(&servers[frozen]);
        eventually(BACK, "it has come back", async || raw.is_ready().await).await;
    }
    cast.end_unharmed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_12_leader_in_the_minority() {
    in_the_minority(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_12_follower_in_the_minority() {
    in_the_minority(false).await;
}

/// Row 12: everybody is connected to the server that is cut off.
async fn in_the_minority(leads: bool) {
    let ensemble = PartitionedEnsemble::start().await.unwrap();
    ensemble.whole().await.unwrap();
    let leader = ensemble.leader(0).await.unwrap().unwrap();
    let isolated = if leads { leader } else { (leader + 1) % 3 };
    let (majority, url) = (ensemble.raw((isolated + 1) % 3), ensemble.url(&TUNING.query()));
    ensemble.reach_only(isolated);
    let mut cast = Cast::enter(&url, &url).await;
    // One that has nobody else to go to.
    let inside = format!("zk://{}/services?{}&grace=0s", ensemble.links[isolated].addr(), TUNING.query());
    let inside = ok(callsign::open(&inside), "open");
    let mut inside = inside.watch(&cast.service);
    until(&mut inside, BACK, "fresh inside", |s| s.freshness().is_fresh() && s.len() == 4).await;
    let servers = ok(callsign::open(&url), "open");
    let own = ok(servers.register(Instance::new("other", "10.0.0.1:80").unwrap()).await, "register");
    ensemble.links.iter().for_each(callsign_testkit::proxy::Proxy::heal);
    let before = written(&majority).await;
    assert_eq!(before.len(), 4);
    let connected: Vec<_> = ensemble.links.iter().map(|link| link.open() > 0).collect();
    assert!((0..3).all(|server| connected[server] == (server == isolated)), "{connected:?}");

    ensemble.isolate(isolated);
    let begun = Instant::now();
    // Not before: what is handed to a leader that is no more may yet take effect once it is back.
    ensemble.in_minority(isolated).await.unwrap();
    println!("measured: the minority has no leader after {:?}", begun.elapsed());
    follows(&mut cast, &majority, begun, SWITCH).await;
    let stale = |s: &Snapshot| s.freshness().is_stale() && s.len() == 4;
    until(&mut inside, SWITCH.saturating_sub(begun.elapsed()), "it is told inside", stale).await;
    println!("measured: told inside by then, after {:?}", begun.elapsed());
    // Registrars have come over, too.
    let heavier = own.instance().as_ref().clone().with_weight(7);
    ok(own.update(heavier).await, "update");
    println!("measured: a registrar's own change is written after {:?}", begun.elapsed());
    assert!(begun.elapsed() < SWITCH, "{:?}", begun.elapsed());
    // Longer than a session lives that nobody takes up.
    sleep(TTL + long(2, 60)).await;
    assert_eq!(written(&majority).await, before, "nothing had to be registered again");
    assert!(stale(&inside.snapshot()), "{:?}", inside.snapshot());
    assert!(own.status().is_registered());

    ensemble.heal();
    ensemble.whole().await.unwrap();
    cast.is_exact(BACK).await;
    until(&mut inside, BACK, "fresh inside", |s| s.freshness().is_fresh() && s.len() == 4).await;
    sleep(TTL).await;
    assert_eq!(written(&ensemble.raw(isolated)).await, before, "nothing had to be registered again");
    cast.end_unharmed().await;
}
