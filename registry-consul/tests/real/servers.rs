//! Consul's servers without a leader, and those who are content with what is old.

use std::time::Duration;

use callsign_core::{ErrorKind, Registry, Snapshot, Status};
use callsign_testkit::consul::Consul;
use callsign_testkit::proxy::Proxy;
use callsign_testkit::record::{Recorder, confirmed};
use callsign_testkit::wait::{eventually, ok, until, until_status};
use tokio::time::{Instant, sleep};

use crate::{book, fresh, instance, measured, open_at, secs, start};

fn leaderless(snapshot: &Snapshot) -> bool {
    let says = |error: &callsign_core::Error| {
        error.kind() == ErrorKind::Unavailable && error.to_string().contains("leader")
    };
    snapshot.len() == 1 && snapshot.freshness().is_stale() && snapshot.freshness().error().is_some_and(says)
}

/// A restored Consul has lost one of four, whose owner may be about to return: it is held, however few are missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_restored_consul_lacks_is_held() {
    let (consul, raw) = start().await;
    for n in 1..=3 {
        raw.register("book", &format!("i{n}"), "10.0.0.1", n).await.unwrap();
    }
    let registry = open_at(consul.addr(), "");
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(5), "three", fresh(3)).await;
    let snapshot = raw.snapshot().await.unwrap();
    // What an agent has it would write again.
    raw.write("elsewhere", "book", "10.0.0.1", 4).await.unwrap();
    for n in 0..20 {
        raw.register("others", &format!("e{n}"), "10.0.0.1", 1).await.unwrap();
    }
    until(&mut watch, secs(5), "four", fresh(4)).await;
    let recorder = Recorder::start(watch.clone());
    raw.restore(&snapshot).await.unwrap();
    until(&mut watch, secs(15), "one is held", |s| s.len() == 4 && confirmed(s).len() == 3).await;
    recorder
        .check_never_missing(&["i1@n1", "i2@n1", "i3@n1", "book@elsewhere"].map(|id| id.parse().unwrap()));
}

/// The same where all but one are back before anybody could see that they were gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_restored_consul_still_lacks_is_held() {
    let (consul, raw) = start().await;
    let link = Proxy::start(consul.addr()).await.unwrap();
    let snapshot = raw.snapshot().await.unwrap();
    // On no node of an agent, which would write what it has again and remove what it has not.
    let write = async |n: u16| raw.write(&format!("far{n}"), "book", "10.0.0.1", n).await.unwrap();
    for n in 1..=4 {
        write(n).await;
    }
    let registry = open_at(link.addr(), "");
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(5), "four", fresh(4)).await;
    let recorder = Recorder::start(watch.clone());
    link.latency(Duration::from_millis(300));
    raw.restore(&snapshot).await.unwrap();
    for n in 1..=3 {
        write(n).await;
    }
    until(&mut watch, secs(15), "one is held", |s| s.len() == 4 && confirmed(s).len() == 3).await;
    recorder.check_never_missing(&[1, 2, 3, 4].map(|n| format!("book@far{n}").parse().unwrap()));
}

/// Consul is restored a second time just when an agent has told it what it lacks: the agent takes that for told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_told_just_before_a_restore_is_told_again() {
    let (consul, raw) = start().await;
    let link = Proxy::start(consul.addr()).await.unwrap();
    let snapshot = raw.snapshot().await.unwrap();
    let registry = open_at(link.addr(), "/?ttl=6s&verify=1s");
    let mut registration = ok(registry.register(instance(1)).await, "register");
    // So slow that it is restored before anybody has seen that it was told.
    link.latency(Duration::from_millis(50));
    raw.restore(&snapshot).await.unwrap();
    let alive = async || !raw.alive("book").await.unwrap().is_empty();
    while !alive().await {
        sleep(Duration::from_millis(2)).await;
    }
    raw.restore(&snapshot).await.unwrap();
    assert!(!alive().await);
    let begun = Instant::now();
    eventually(secs(6), "it is told again", alive).await;
    measured("told again after", begun.elapsed());
    until_status(&mut registration, secs(6), "registered", Status::is_registered).await;
}

/// Two of three servers are gone: who wants the truth is told at once that it cannot be had, who is content with what
/// is old a while later, and nobody loses anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_old_is_enough_for_a_while() {
    let mut datacenter = Consul::datacenter().await.unwrap();
    let server = datacenter.servers.remove(0);
    let raw = Consul::raw(&server);
    raw.register("book", "i", "10.0.0.1", 1).await.unwrap();
    let at = |rest: &str| -> Registry { open_at(server.addr(), rest) };
    let registries = ["", "/?consistency=consistent", "/?consistency=stale", "/?consistency=cached"].map(at);
    let mut watches = registries.map(|registry| registry.watch(&book()));
    for watch in &mut watches {
        until(watch, secs(10), "listed", fresh(1)).await;
    }
    datacenter.servers.iter_mut().for_each(callsign_testkit::server::Server::kill);
    let begun = Instant::now();
    let [default, consistent, stale, cached] = &mut watches;
    until(default, secs(20), "no leader", leaderless).await;
    measured("by default", begun.elapsed());
    until(consistent, secs(20), "no leader", |s| s.len() == 1 && s.freshness().is_stale()).await;
    measured("consistent", begun.elapsed());
    for (name, watch) in [("stale", stale), ("cached", cached)] {
        until(watch, secs(60), name, leaderless).await;
        measured(name, begun.elapsed());
    }
    for server in &mut datacenter.servers {
        server.launch().unwrap();
    }
    for server in &mut datacenter.servers {
        server.ready().await.unwrap();
    }
    for watch in &mut watches {
        until(watch, secs(15), "fresh again", fresh(1)).await;
    }
}
