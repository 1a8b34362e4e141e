//! A server with its settings of production, which shows what has changed when its cache does.

use std::time::Duration;

use callsign_testkit::eureka::Eureka;
use callsign_testkit::http::exchange;
use callsign_testkit::wait::{ok, until};
use tokio::time::Instant;

use crate::{book, fresh, instance, measured, open};

/// What registers, and what goes, is seen a cache and a poll later at the most, however it is asked for.
async fn seen_a_cache_and_a_poll_later(cache: u64, poll: u64) {
    let setting = format!("eureka.server.response-cache-update-interval-ms={cache}");
    let mut server = Eureka::as_in_production(&[&setting]).unwrap();
    server.start().await.unwrap();
    let url = format!("eureka://{}/eureka?poll={poll}ms&drain=100ms", server.addr());
    let [mut each, mut all] =
        ["each", "all"].map(|fetch| open(&format!("{url}&fetch={fetch}")).watch(&book()));
    // A poll is spread by a fifth; and a second for a busy machine.
    let within = Duration::from_millis(cache + poll * 12 / 10) + Duration::from_secs(1);
    let mut seen = async |count, begun: Instant| {
        let by_each = async {
            until(&mut each, within, "seen by what asks for each", fresh(count)).await;
            begun.elapsed()
        };
        let by_all = async {
            until(&mut all, within, "seen by what asks for all", fresh(count)).await;
            begun.elapsed()
        };
        let took = tokio::join!(by_each, by_all);
        measured(
            &format!("{cache} ms and {poll} ms, {count} seen by what asks for each and for all after"),
            took,
        );
    };
    seen(0, Instant::now()).await;
    let begun = Instant::now();
    let registration = ok(open(&url).register(instance(1)).await, "register");
    seen(1, begun).await;
    let begun = Instant::now();
    ok(registration.deregister().await, "deregister");
    seen(0, begun).await;
}

/// As both are by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seen_a_cache_and_a_poll_later_of_half_a_minute_each() {
    seen_a_cache_and_a_poll_later(30_000, 30_000).await;
}

/// As `docs/registries/eureka.md` has them tuned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seen_a_cache_and_a_poll_later_where_both_are_tuned() {
    seen_a_cache_and_a_poll_later(2_000, 1_000).await;
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
