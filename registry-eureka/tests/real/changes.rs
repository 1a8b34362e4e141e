//! What it costs to follow what changes, where everything is asked for at once.

use std::time::Duration;

use callsign_testkit::eureka::{Api, Eureka};
use callsign_testkit::proxy::Proxy;
use callsign_testkit::wait::until;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{book, fresh, measured, open, secs};

const INSTANCES: usize = 1_000;
/// Apart enough for an answer to be told from the next.
const POLL: Duration = Duration::from_secs(1);

/// The longest answer of all that came in this time, as bytes: what came without a break of a fifth of a poll.
async fn longest_answer(link: &Proxy, time: Duration) -> u64 {
    let (begun, mut last, mut from) = (Instant::now(), link.bytes_down(), link.bytes_down());
    let (mut changed, mut longest) = (Instant::now(), 0);
    while begun.elapsed() < time {
        sleep(Duration::from_millis(5)).await;
        let now = link.bytes_down();
        if now > last {
            if changed.elapsed() > POLL / 5 {
                from = last;
            }
            (last, changed) = (now, Instant::now());
            longest = longest.max(now - from);
        }
    }
    longest
}

async fn register(raw: &Api, numbers: impl Iterator<Item = usize>) {
    for n in numbers {
        let host = format!("10.0.{}.{}", n / 250, n % 250);
        raw.register("book", &format!("i{n}"), &host, 50051, &json!({})).await.unwrap();
    }
}

/// One instance that comes among a thousand costs each answer that tells of it no more than its own document.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_costs_its_own_instance_alone() {
    // Changes are told of for so long; three minutes by default.
    let told = secs(3);
    let mut server = Eureka::server_with(&[
        &format!("eureka.server.retention-time-in-m-s-in-delta-queue={}", told.as_millis()),
        "eureka.server.delta-retention-timer-interval-in-ms=200",
    ])
    .unwrap();
    server.start().await.unwrap();
    let raw = Api::new(server.addr());
    register(&raw, 0..INSTANCES).await;
    let link = Proxy::start(server.addr()).await.unwrap();
    let registry = open(&format!("eureka://{}/eureka?poll={}ms&fetch=all", link.addr(), POLL.as_millis()));
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(10), "all", fresh(INSTANCES)).await;
    let list = link.bytes_down();
    // Until nobody is told of those that came before.
    sleep(told + secs(2)).await;
    let quiet = longest_answer(&link, secs(4)).await;
    register(&raw, INSTANCES..=INSTANCES).await;
    let (change, _) = tokio::join!(
        longest_answer(&link, told + secs(2)),
        until(&mut watch, secs(5), "one more", fresh(INSTANCES + 1))
    );
    let documents = raw.instances("book").await.unwrap();
    let own = documents.iter().find(|it| it["instanceId"] == format!("i{INSTANCES}").as_str()).unwrap();
    let own = u64::try_from(own.to_string().len()).unwrap();
    measured(
        "bytes of a list of 1,000, a quiet answer, one that tells of a change, the document",
        (list, quiet, change, own),
    );
    assert!(quiet > 0 && change > quiet, "{quiet}, then {change}");
    assert!(change - quiet <= own, "an answer grew from {quiet} to {change} bytes for a document of {own}");
    assert!(list > 10 * change, "a list is {list} bytes");
}
