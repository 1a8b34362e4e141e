//! Row 11 on Consul: three servers, and an agent on each of two machines; one server after the other is killed.

use std::collections::BTreeSet;
use std::time::Duration;

use callsign::Instance;
use callsign_testkit::consul::{Consul, Datacenter};
use callsign_testkit::record::confirmed;
use callsign_testkit::wait::{eventually, ok, until};
use tokio::time::{Instant, sleep};

use crate::cast::Cast;
use crate::scene::{BACK, TUNING, long};

/// What the catalog has, by what an agent says.
async fn written(datacenter: &Datacenter) -> Option<BTreeSet<(String, String)>> {
    let entries = Consul::raw(&datacenter.clients[1]).get("health/service/book").await.ok()?;
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
    let mut uncalled = cast.clients.watch(&"uncalled".parse().unwrap());
    let before = written(&datacenter).await.unwrap();
    assert_eq!(before.len(), 4);

    for round in 0..3 {
        // The leader first: there is none for a moment, and nothing can be written.
        let raw = Consul::raw(&datacenter.clients[1]);
        let killed = if round == 0 { datacenter.leader(&raw).await.unwrap().unwrap() } else { round % 3 };
        datacenter.servers[killed].kill();
        let begun = Instant::now();
        // Of a service that nobody calls. Its agent may have to try another server, which takes it a while by itself.
        let extra = Instance::new("uncalled", format!("10.0.0.1:{}", round + 1)).unwrap();
        let extra = ok(servers.register(extra).await, "register");
        until(&mut uncalled, Duration::from_secs(10), "a change arrives", |s| s.len() == 1).await;
        println!("measured: a change arrives {:?} after a server was killed", begun.elapsed());
        ok(extra.deregister().await, "deregister");
        until(&mut uncalled, Duration::from_secs(10), "its end arrives", |s| confirmed(s).is_empty()).await;
        sleep(long(7, 30)).await;
        assert_eq!(written(&datacenter).await.unwrap(), before, "nothing had to be registered again");
        datacenter.servers[killed].start().await.unwrap();
        // Or the next one takes the quorum along.
        eventually(Duration::from_secs(60), "all servers are sound", async || {
            let health = raw.get("operator/autopilot/health").await.unwrap_or_default();
            health["Healthy"] == true && health["FailureTolerance"] == 1
        })
        .await;
        cast.is_exact(BACK).await;
    }
    // And what leaves at one agent is gone at the other.
    let mut leaver = cast.backends.pop().unwrap();
    leaver.process().terminate().unwrap();
    until(&mut cast.watch, Duration::from_secs(3), "gone", |s| s.get(&leaver.id).is_none()).await;
    assert!(leaver.process().ended(Duration::from_secs(10)).await.unwrap().success());
    cast.end_unharmed().await;
}
