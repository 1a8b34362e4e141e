//! Connections: how many it takes, and what is said where an agent allows no more.

use callsign_core::{Error, ErrorKind, Instance, InstanceWatch};
use callsign_testkit::consul::Consul;
use callsign_testkit::proxy::Proxy;
use callsign_testkit::wait::{eventually, until};

use crate::{book, fresh, instance, measured, open_at, secs, start};

fn service(n: usize) -> callsign_core::ServiceName {
    format!("service-{n}").parse().unwrap()
}

/// By default an agent allows 200 connections to a machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_services_and_their_registrations_fit_into_what_an_agent_allows() {
    let (consul, _raw) = start().await;
    let link = Proxy::start(consul.addr()).await.unwrap();
    let registry = open_at(link.addr(), "/?ttl=6s");
    let mut registrations = Vec::new();
    for n in 0..100 {
        let instance = Instance::new(service(n), "127.0.0.1:1").unwrap();
        registrations.push(registry.register(instance).await.unwrap());
    }
    let mut watches: Vec<_> = (0..100).map(|n| registry.watch(&service(n))).collect();
    for watch in &mut watches {
        until(watch, secs(10), "listed", fresh(1)).await;
    }
    // Renewals too.
    let mut most = 0;
    for _ in 0..80 {
        most = most.max(link.open());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    measured("connections for 100 services, watched and registered", most);
    assert!(most <= 150, "{most}");
    assert!(watches.iter().all(|watch| watch.snapshot().freshness().is_fresh()));
    assert!(registrations.iter().all(|registration| registration.status().is_registered()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_query_serves_all_who_watch_a_service() {
    let (consul, raw) = start().await;
    let link = Proxy::start(consul.addr()).await.unwrap();
    let registry = open_at(link.addr(), "");
    let mut watches: Vec<_> = (0..200).map(|_| registry.watch(&book())).collect();
    for watch in &mut watches {
        until(watch, secs(5), "listed", fresh(0)).await;
    }
    // And one connection for all that is answered at once.
    eventually(secs(2), "one waits", async || link.open() == 2).await;
    raw.register("book", "i", "10.0.0.1", 1).await.unwrap();
    for watch in &mut watches {
        until(watch, secs(5), "followed", fresh(1)).await;
    }
    assert_eq!((link.open(), link.accepted()), (2, 2));
}

/// An answer to the one question costs the other none of its connections, however slow the way is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_all_the_time_take_no_more_connections() {
    let (consul, raw) = start().await;
    let link = Proxy::start(consul.addr()).await.unwrap();
    link.latency(std::time::Duration::from_millis(100));
    let registry = open_at(link.addr(), "");
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(5), "listed", fresh(0)).await;
    // So long that the index is asked for some times.
    for n in 1..=100 {
        raw.register("book", &format!("i{n}"), "10.0.0.1", n).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    }
    until(&mut watch, secs(5), "followed", fresh(100)).await;
    measured("connections for a hundred changes", link.accepted());
    // One more where a list takes long: then it is asked beside it whether there is a leader.
    assert!(link.accepted() <= 3, "{}", link.accepted());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gets_no_connection_is_told_and_gets_one_later() {
    let mut consul = Consul::server_with(&["limits { http_max_conns_per_client = 20 }"]).unwrap();
    consul.start().await.unwrap();
    let registry = open_at(consul.addr(), "/?ttl=5s");
    let registration = registry.register(instance(1)).await.unwrap();
    let mut watches: Vec<_> = (0..30).map(|n| registry.watch(&service(n))).collect();
    let is_refused = |error: &Error| error.kind() == ErrorKind::Exhausted;
    let refused = |watch: &InstanceWatch| watch.snapshot().freshness().error().cloned().filter(is_refused);
    eventually(secs(10), "some are refused", async || watches.iter().any(|w| refused(w).is_some())).await;
    let errors: Vec<_> = watches.iter().filter_map(refused).collect();
    measured("watches without a connection, of 30 with 20", errors.len());
    let said = errors[0].chain();
    assert!(said.contains("http_max_conns_per_client"), "{said}");
    // Longer than what nobody renews lives: the registration has a connection of its own.
    tokio::time::sleep(secs(7)).await;
    assert!(registration.status().is_registered(), "{:?}", registration.status());
    watches.truncate(10);
    for watch in &mut watches {
        until(watch, secs(30), "a connection is free", fresh(0)).await;
    }
    assert!(registration.status().is_registered(), "{:?}", registration.status());
}
