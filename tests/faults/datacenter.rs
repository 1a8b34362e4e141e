//! Rows 11 and 12 on Consul: three servers, and an agent on each of two machines; servers are killed, and cut off from the
//! others.

use std::collections::BTreeSet;
use std::time::Duration;

use callsign::{Instance, Snapshot};
use callsign_testkit::consul::{Consul, PartitionedDatacenter};
use callsign_testkit::record::{Recorder, confirmed};
use callsign_testkit::server::Server;
use callsign_testkit::wait::{eventually, ok, until};
use tokio::time::{Instant, sleep};

use crate::cast::Cast;
use crate::scene::{BACK, TUNING, long};

/// The most time from a server's death until changes arrive again.
const GAP: Duration = Duration::from_secs(5);

/// The most time from another server's election, where that comes late: how long Consul elects is its own affair, 1 s to
/// 4 s, and now and then again as long, as its shortest timeouts are a second.
const FOLLOWS: Duration = Duration::from_secs(2);

/// The most time until clients of a server that is cut off have left it, or say that it is.
const SWITCH: Duration = Duration::from_secs(10);

/// For how long a server keeps a request back while it knows of no leader, and up to twice that: 7 s unless told. Then the
/// agent asks another.
const HOLD: &str = "performance { rpc_hold_timeout = \"2s\" }";

/// The most time from when clients are told that the server has no leader, which is 3 s after it was asked, until they have
/// left it, where [`HOLD`] is in force. Asked anew instead of waited for, it would keep them back as long again.
const LEAVES: Duration = Duration::from_secs(2);

/// How many clients there are of a service that nobody calls.
const MANY: usize = 20;

/// What the catalog has, by what an agent says.
async fn written(agent: &Server<Consul>) -> Option<BTreeSet<(String, String)>> {
    let entries = Consul::raw(agent).get("health/service/book").await.ok()?;
    let services = entries.as_array()?.iter().map(|entry| &entry["Service"]);
    Some(services.map(|service| (service["ID"].to_string(), service["CreateIndex"].to_string())).collect())
}

/// Servers are registered with one agent and found by another, so that all goes through the servers of Consul.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_11_servers_killed() {
    let mut datacenter = Consul::datacenter().await.unwrap();
    let url = |agent: usize| format!("consul://{}/?{}", datacenter.clients[agent].addr(), TUNING.query());
    let servers = ok(callsign::open(&url(0)), "open");
    let mut cast = Cast::enter(&url(0), &format!("{}&grace=0s", url(1))).await;
    // Each asks its agent at moments of its own, and some just while there is no leader.
    let many: Vec<_> =
        (0..MANY).map(|_| ok(callsign::open(&format!("{}&grace=0s", url(1))), "open")).collect();
    let uncalled = "uncalled".parse().unwrap();
    let mut many: Vec<_> = many.iter().map(|registry| registry.watch(&uncalled)).collect();
    let before = written(&datacenter.clients[1]).await.unwrap();
    assert_eq!(before.len(), 4);

    for round in 0..3 {
        // The leader first: there is none for a moment, and nothing can be written.
        let raw = Consul::raw(&datacenter.clients[1]);
        let killed = if round == 0 { datacenter.leader(&raw).await.unwrap().unwrap() } else { round % 3 };
        datacenter.servers[killed].kill();
        let begun = Instant::now();
        // At the new leader itself: other servers try again in their own time.
        let by = Consul::raw(&datacenter.servers[(killed + 1) % 3]);
        let mut leader = killed;
        eventually(Duration::from_secs(15), "another leads", async || {
            leader = datacenter.leader(&by).await.unwrap().unwrap_or(killed);
            leader != killed
        })
        .await;
        println!("measured: another leads {:?} after a server was killed", begun.elapsed());
        let led = Instant::now();
        let leader = Consul::raw(&datacenter.servers[leader]);
        leader.write("elsewhere", "uncalled", "10.0.0.1", 1).await.unwrap();
        let by = (begun + GAP).max(led + FOLLOWS);
        for watch in &mut many {
            let left = by.saturating_duration_since(Instant::now());
            until(watch, left, "the write is seen by all", |s| confirmed(s).len() == 1).await;
        }
        println!("measured: all see a write {:?} later, {:?} in all", led.elapsed(), begun.elapsed());
        leader.delete("elsewhere").await.unwrap();
        for watch in &mut many {
            until(watch, FOLLOWS, "its end is seen by all", |s| confirmed(s).is_empty()).await;
        }
        // An agent may have to try another server, and waits before it does.
        let extra = Instance::new("uncalled", format!("10.0.0.1:{}", round + 1)).unwrap();
        let extra = ok(servers.register(extra).await, "register");
        let left = Duration::from_secs(10).saturating_sub(led.elapsed());
        until(&mut many[0], left, "a registration is seen", |s| confirmed(s).len() == 1).await;
        println!("measured: a registration is seen {:?} later", led.elapsed());
        ok(extra.deregister().await, "deregister");
        until(&mut many[0], Duration::from_secs(10), "its end is seen", |s| confirmed(s).is_empty()).await;
        sleep(long(7, 30)).await;
        assert_eq!(
            written(&datacenter.clients[1]).await.unwrap(),
            before,
            "nothing had to be registered again"
        );
        datacenter.servers[killed].start().await.unwrap();
        // Or the next one takes the quorum along.
        let sound = async || datacenter.is_sound(&raw).await.unwrap_or(false);
        eventually(Duration::from_secs(60), "all servers are sound", sound).await;
        cast.is_exact(BACK).await;
    }
    // And what leaves at one agent is gone at the other.
    let mut leaver = cast.backends.pop().unwrap();
    leaver.process().terminate().unwrap();
    until(&mut cast.watch, Duration::from_secs(3), "gone", |s| s.get(&leaver.id).is_none()).await;
    assert!(leaver.process().ended(Duration::from_secs(10)).await.unwrap().success());
    cast.end_unharmed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_12_leader_in_the_minority() {
    in_the_minority(true, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_12_follower_in_the_minority() {
    in_the_minority(false, HOLD).await;
}

/// Row 12: the server that the clients' agent is connected to is cut off from the other two, and still reached by it.
async fn in_the_minority(leads: bool, more: &str) {
    let datacenter = PartitionedDatacenter::start(more).await.unwrap();
    datacenter.whole().await.unwrap();
    let (servers, clients) = (&datacenter.agents.servers, &datacenter.agents.clients);
    let url = |agent: usize| format!("consul://{}/?{}", clients[agent].addr(), TUNING.query());
    let mut cast = Cast::enter(&url(0), &format!("{}&grace=0s", url(1))).await;
    let mut uncalled = cast.clients.watch(&"uncalled".parse().unwrap());
    until(&mut uncalled, BACK, "fresh", |s| s.freshness().is_fresh()).await;
    // One that has nobody else to go to.
    let inside = |server: usize| {
        let url = format!("consul://{}/?{}", servers[server].addr(), TUNING.query());
        ok(callsign::open(&url), "open").watch(uncalled.snapshot().service())
    };
    // One for what it asks, one for what it follows: both to the server that it met first.
    let connections = datacenter.connections(1);
    let isolated = connections.iter().position(|count| *count == 2).unwrap();
    let mut inside = inside(isolated);
    until(&mut inside, BACK, "fresh inside", |s| s.freshness().is_fresh()).await;
    datacenter.lead(if leads { isolated } else { (isolated + 1) % 3 }).await.unwrap();
    cast.is_exact(BACK).await;
    let majority = &servers[(isolated + 1) % 3];
    let before = written(majority).await.unwrap();
    assert_eq!(before.len(), 4);

    assert_eq!(datacenter.connections(1), connections);
    datacenter.isolate(isolated);
    let begun = Instant::now();
    datacenter.in_minority(isolated).await.unwrap();
    println!("measured: the minority has no leader after {:?}", begun.elapsed());
    let raw = Consul::raw(majority);
    raw.write("elsewhere", "uncalled", "10.0.0.1", 1).await.unwrap();
    // Or it says that it may miss what was written.
    let left = || SWITCH.saturating_sub(begun.elapsed());
    let told = |s: &Snapshot| s.freshness().is_stale() || confirmed(s).len() == 1;
    let told = until(&mut uncalled, left(), "it is told", told).await;
    let was_told = begun.elapsed();
    println!("measured: told after {was_told:?}: {:?}", told.freshness());
    let seen = async {
        until(&mut uncalled, Duration::from_secs(30), "the write is seen", |s| confirmed(s).len() == 1).await;
        begun.elapsed()
    };
    let told_inside = until(&mut inside, left(), "it is told inside", |s| s.freshness().is_stale());
    let (seen, _) = tokio::join!(seen, told_inside);
    println!("measured: a write to the majority is seen after {seen:?}");
    if !more.is_empty() {
        assert!(seen < SWITCH, "{seen:?}");
        assert!(seen - was_told < LEAVES, "told after {was_told:?}, seen after {seen:?}");
    }
    let recorder = Recorder::start(uncalled.clone());
    // Longer than what nobody renews lives, and than a query waits: then the server that is behind answers.
    sleep(long(15, 60)).await;
    let history = recorder.history();
    assert!(history.iter().all(|(_, s)| confirmed(s).len() == 1), "seen, and then not: {history:?}");
    assert!(inside.snapshot().freshness().is_stale() && inside.snapshot().is_empty());
    let begun = Instant::now();
    raw.delete("elsewhere").await.unwrap();
    until(&mut uncalled, BACK, "its end is seen", |s| confirmed(s).is_empty()).await;
    println!("measured: the next one is seen after {:?}", begun.elapsed());
    assert_eq!(written(majority).await.unwrap(), before, "nothing had to be registered again");

    datacenter.heal();
    datacenter.whole().await.unwrap();
    cast.is_exact(BACK).await;
    until(&mut inside, BACK, "fresh inside", |s| s.freshness().is_fresh()).await;
    assert_eq!(written(&servers[isolated]).await.unwrap(), before, "nothing had to be registered again");
    cast.end_unharmed().await;
}
