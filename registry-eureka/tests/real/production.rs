//! A server with its settings of production, which shows what has changed when its cache does.

use std::time::Duration;

use callsign_testkit::conformance::full;
use callsign_testkit::eureka::Eureka;
use callsign_testkit::http::exchange;
use callsign_testkit::wait::{ok, until};
use tokio::time::Instant;

use crate::{book, fresh, instance, measured, open};

/// What registers is seen a cache and a poll later at the most: of half a minute each in the long form, as by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seen_a_cache_and_a_poll_later() {
    let (cache, poll) = if full() { (30_000, 30_000) } else { (2_000, 1_000) };
    let setting = format!("eureka.server.response-cache-update-interval-ms={cache}");
    let mut server = Eureka::as_in_production(&[&setting]).unwrap();
    server.start().await.unwrap();
    // A poll is spread by a fifth; and a second for a busy machine.
    let within = Duration::from_millis(cache + poll * 12 / 10) + Duration::from_secs(1);
    for fetch in ["each", "all"] {
        let registry =
            open(&format!("eureka://{}/eureka?poll={poll}ms&drain=100ms&fetch={fetch}", server.addr()));
        let mut watch = registry.watch(&book());
        let begun = Instant::now();
        until(&mut watch, within, "none", fresh(0)).await;
        measured(&format!("{fetch}: what was gone is gone after"), begun.elapsed());
        let begun = Instant::now();
        let registration = ok(registry.register(instance(1)).await, "register");
        let registered = begun.elapsed();
        until(&mut watch, within, "one", fresh(1)).await;
        measured(&format!("{fetch}: registered after {registered:?}, and seen after"), begun.elapsed());
        assert!(registration.status().is_registered());
        ok(registration.deregister().await, "deregister");
    }
}

/// Ours stand on the page that people look at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_show_on_the_dashboard() {
    let mut server = Eureka::server().unwrap();
    server.start().await.unwrap();
    let registry = open(&format!("eureka://{}/eureka", server.addr()));
    let registration = ok(registry.register(instance(1)).await, "register");
    let page = exchange(server.addr(), ("GET", "/"), "Accept: text/html\r\n", b"").await.unwrap();
    let page = String::from_utf8(page.body).unwrap();
    for shown in ["BOOK", "UP", "127.0.0.1:1"] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    drop(registration);
}
