//! The program against a real Eureka of the testbed.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print figures"
)]

#[path = "../support/crash.rs"]
mod crash;
#[path = "../support/mod.rs"]
mod support;

use callsign_testkit::eureka::{Api, Eureka};
use callsign_testkit::server::Server;
use crash::fresh;
use rustix::process::Signal;
use serde_json::json;
use support::{Running, confirmed, run, text};

/// A Eureka that runs, raw access to it, and the URL of a registry in it.
async fn start(query: &str) -> (Server<Eureka>, Api, String) {
    let mut server = Eureka::server().unwrap();
    server.start().await.unwrap();
    let (raw, url) =
        (Api::new(server.addr()), format!("eureka://{}/eureka?poll=100ms{query}", server.addr()));
    (server, raw, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_registers_is_seen_until_it_leaves() {
    let (eureka, raw, url) = start("&drain=300ms").await;
    let check = run(&url, &["check"]).await;
    assert!(check.status.success(), "{check:?}");
    let stdout = text(&check.stdout);
    assert!(
        ["reach", "read", "write"].iter().all(|what| stdout.contains(&format!("{what:<9} ok"))),
        "{stdout}"
    );
    let mut json = Running::start(&url, &["watch", "web", "--json"]);
    json.json("the empty list", |line| fresh(line, 0)).await;

    let args = ["register", "web", "10.0.0.1:80", "--weight", "3", "--zone", "eu-1", "--meta", "team=a=b"];
    let mut web = Running::start(&url, &args);
    web.noted("registered web/10.0.0.1:80 in eureka://").await;
    let line = json.json("it is there", |line| confirmed(line) == ["10.0.0.1:80"]).await;
    let one = &line["instances"][0];
    assert_eq!(
        (&one["weight"], &one["zone"], &one["metadata"]["team"]),
        (&3.into(), &"eu-1".into(), &"a=b".into())
    );
    raw.register("web", "theirs", "10.0.0.2", 80, &json!({})).await.unwrap();
    json.json("somebody else's is there", |line| fresh(line, 2)).await;
    let list = run(&url, &["list", "web"]).await;
    assert_eq!(
        text(&list.stdout),
        "ADDRESS      ID      STATE  WEIGHT  ZONE  METADATA\n\
         10.0.0.1:80          up     3       eu-1  team=a=b\n\
         10.0.0.2:80  theirs  up     1\n"
    );
    assert_eq!(
        text(&run(&url, &["list"]).await.stdout).lines().last().unwrap().split_whitespace().next(),
        Some("web")
    );
    let removed = run(&url, &["deregister", "web", "theirs"]).await;
    assert!(removed.status.success(), "{removed:?}");
    json.json("that is gone", |line| confirmed(line) == ["10.0.0.1:80"]).await;

    web.signal(Signal::TERM);
    json.json("it has left", |line| fresh(line, 0)).await;
    assert_eq!(web.code().await, 0);
    assert!(raw.instances("web").await.unwrap().is_empty());
    let elsewhere = run("eureka://127.0.0.1:1/eureka", &["check"]).await;
    assert!(!elsewhere.status.success() && text(&elsewhere.stdout).contains("127.0.0.1:1"), "{elsewhere:?}");
    let beside = run(&format!("eureka://{}/v2", eureka.addr()), &["check"]).await;
    assert!(
        !beside.status.success() && text(&beside.stdout).contains("/eureka in most places"),
        "{beside:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_9_of_the_command_or_of_us_takes_it_away() {
    let (_eureka, raw, url) = start("").await;
    let line = crash::a_kill_9_of_the_command_or_of_us_takes_it_away(&url).await;
    // Eureka does not say who took an instance away, so the last of a service is held for a while.
    assert!(line["instances"].as_array().unwrap().iter().all(|one| one["held"] == true), "{line}");
    assert!(raw.instances("web").await.unwrap().is_empty());
}
