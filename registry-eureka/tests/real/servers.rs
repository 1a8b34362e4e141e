//! Several servers: which is asked, and what happens when one is away or knows less than another.

use std::time::{SystemTime, UNIX_EPOCH};

use callsign_core::{Listed, Snapshot, Status};
use callsign_testkit::eureka::{Api, Eureka};
use callsign_testkit::proxy::Proxy;
use callsign_testkit::record::{Recorder, confirmed};
use callsign_testkit::wait::{eventually, ok, until, until_status};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::{book, fresh, instance, measured, open, secs, start, url};

/// In milliseconds, as servers count.
fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A server that hangs, or is killed: the other is asked, nothing is lost, and nobody need register again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_peer_is_asked() {
    let mut peers = Eureka::peers().await.unwrap();
    let raws = peers.each_ref().map(|peer| Api::new(peer.addr()));
    // Longer than two renewals are apart, of which the other peer may not have heard of the first, and half of the time
    // for a request.
    let ttl = secs(16);
    let url = url(&peers.each_ref()).replace("ttl=4s", &format!("ttl={}s&drain=300ms", ttl.as_secs()));
    let registry = open(&url);
    let first = ok(registry.register(instance(1)).await, "register");
    let mut watches = Vec::new();
    for fetch in ["each", "all"] {
        let mut watch = open(&format!("{url}&fetch={fetch}")).watch(&book());
        until(&mut watch, secs(3), "one", fresh(1)).await;
        watches.push((Recorder::start(watch.clone()), watch));
    }
    let entry = async |peer: usize| raws[peer].instances("book").await.unwrap_or_default().first().cloned();
    for (away, hangs) in [(0, true), (1, false)] {
        let other = 1 - away;
        // Until the first renewal an entry lives half as long.
        let renewed = async || {
            let renewed = entry(other).await.and_then(|it| it["leaseInfo"]["lastRenewalTimestamp"].as_u64());
            renewed.is_some_and(|at| at > now())
        };
        eventually(ttl, "the other peer knows, and of a renewal", renewed).await;
        let mark = async || entry(other).await.unwrap()["lastDirtyTimestamp"].clone();
        let before = mark().await;
        if hangs {
            peers[away].pause().unwrap();
        } else {
            peers[away].kill();
        }
        let begun = Instant::now();
        let second = ok(registry.register(instance(2)).await, "register at the other");
        for (_, watch) in &mut watches {
            until(watch, secs(5), "a change is seen", |s| confirmed(s).len() == 2).await;
        }
        measured(
            if hangs { "hangs: a change is seen after" } else { "killed: a change is seen after" },
            begun.elapsed(),
        );
        ok(second.deregister().await, "deregister");
        for (_, watch) in &mut watches {
            until(watch, secs(5), "and another", |s| confirmed(s).len() == 1).await;
        }
        sleep(ttl + secs(1)).await;
        assert!(first.status().is_registered(), "{:?}", first.status());
        assert_eq!(mark().await, before, "nobody had to register again");
        if hangs {
            peers[away].resume().unwrap();
        }
    }
    for (recorder, _) in &watches {
        recorder.check_never_missing(&[first.id()]);
        recorder.check_safety();
    }
}

/// The servers of the own zone are asked for as long as one of them answers, and again once it does, wherever the URL has
/// them; those of others meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_own_zone_is_asked_first() {
    let peers = Eureka::peers().await.unwrap();
    let far = Proxy::start(peers[0].addr()).await.unwrap();
    let near = Proxy::start(peers[1].addr()).await.unwrap();
    let url = format!(
        "eureka://{},{}/eureka?poll=100ms&ttl=30s&zones=eu-1,eu-2&zone=eu-2",
        far.addr(),
        near.addr()
    );
    let registry = open(&url);
    let random: Vec<_> =
        (0..8).map(|_| open(&format!("{url}&order=random")).watch(&"nobody".parse().unwrap())).collect();
    let registration = ok(registry.register(instance(1)).await, "register");
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(5), "one", fresh(1)).await;
    for mut watch in random {
        until(&mut watch, secs(5), "none", fresh(0)).await;
    }
    assert_eq!(far.accepted(), 0, "another zone is asked");
    near.cut();
    let begun = Instant::now();
    let second = ok(registry.register(instance(2)).await, "register in another zone");
    until(&mut watch, secs(5), "a change is seen", |s| confirmed(s).len() == 2).await;
    measured("the own zone is cut off: a change is seen after", begun.elapsed());
    assert!(far.accepted() > 0);
    near.heal();
    let before = near.accepted();
    let took = eventually(secs(40), "it is asked again", async || near.accepted() > before).await;
    measured("the own zone is back, and asked again after", took);
    drop((registration, second));
}

/// A server that hangs costs the question that it is asked, and not those after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_one_that_hangs_the_next_question_comes_in_time() {
    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (server, raw, _) = start(&[]).await;
    for fetch in ["each", "all"] {
        let hosts = format!("{},{}", hangs.local_addr().unwrap(), server.addr());
        let registry = open(&format!("eureka://{hosts}/eureka?poll=100ms&fetch={fetch}"));
        let mut watch = registry.watch(&book());
        until(&mut watch, secs(5), "none", fresh(0)).await;
        raw.register("book", "theirs", "127.0.0.1", 2, &json!({})).await.unwrap();
        // It may have come while the server made an answer, which is kept for a second.
        until(&mut watch, secs(3), "a change is seen", fresh(1)).await;
        raw.delete("book", "theirs").await.unwrap();
    }
}

/// A server is restarted so quickly that nobody sees it away, and one of three comes back late: it is not taken for gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_nobody_saw_is_noticed() {
    let (mut server, raw, url) = start(&[]).await;
    for fetch in ["each", "all"] {
        // Asked so seldom that the restart falls between two questions.
        let slow = url.replace("poll=100ms", "poll=12s");
        let clients = open(&format!("{slow}&fetch={fetch}"));
        let servers = open(&url);
        let mut held = Vec::new();
        for port in 1..=3 {
            held.push(ok(servers.register(instance(port)).await, "register"));
        }
        let mut watch = clients.watch(&book());
        until(&mut watch, secs(20), "all", fresh(3)).await;
        let recorder = Recorder::start(watch.clone());
        // The third cannot come back: it is no more than a memory by the next question.
        let third = held.pop().unwrap();
        let id = third.id();
        server.kill();
        ok(
            third.deregister_within(secs(1)).await.or_else(|_| Ok::<_, callsign_core::Error>(())),
            "deregister",
        );
        server.start().await.unwrap();
        eventually(secs(8), "two are back", async || raw.instances("book").await.unwrap().len() == 2).await;
        for registration in &mut held {
            until_status(registration, secs(8), "registered", Status::is_registered).await;
        }
        let noticed = |s: &Snapshot| s.freshness().is_stale() || s.get(&id).is_none_or(Listed::is_held);
        until(&mut watch, secs(20), "noticed", noticed).await;
        // The question may have come before the second was back, and the next one is a poll later.
        until(&mut watch, secs(20), "fresh", |s| s.freshness().is_fresh() && confirmed(s).len() == 2).await;
        assert!(watch.snapshot().get(&id).is_some_and(Listed::is_held), "{:?}", watch.snapshot());
        recorder.check_never_missing(&[instance(1).id().clone(), instance(2).id().clone(), id]);
    }
}

/// Without changes, and where a server forgets them at once, everything is still seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_tell_of_no_changes() {
    for more in [
        &["eureka.server.disable-delta=true"][..],
        &[
            "eureka.server.retention-time-in-m-s-in-delta-queue=1",
            "eureka.server.delta-retention-timer-interval-in-ms=20",
        ],
    ] {
        let (_server, _, url) = start(more).await;
        let (registry, servers) = (open(&format!("{url}&fetch=all")), open(&format!("{url}&drain=300ms")));
        let mut watch = registry.watch(&book());
        until(&mut watch, secs(3), "none", fresh(0)).await;
        for count in 1..=3 {
            let registration = ok(servers.register(instance(count)).await, "register");
            until(&mut watch, secs(3), "it came", |s| s.get(instance(count).id()).is_some()).await;
            ok(registration.deregister().await, "deregister");
            until(&mut watch, secs(3), "it went", Snapshot::is_empty).await;
        }
    }
}
