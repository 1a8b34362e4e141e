//! The program against real Consul agents of the testbed.

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

mod access;

use callsign_testkit::consul::{Api, Consul};
use callsign_testkit::server::Server;
use crash::fresh;
use rustix::process::Signal;
use serde_json::Value;
use support::{Running, confirmed, run, text};

/// A Consul that runs, raw access to it, and the URL of a registry in it.
async fn start(query: &str) -> (Server<Consul>, Api, String) {
    let mut server = Consul::server().unwrap();
    server.start().await.unwrap();
    let (raw, url) = (Consul::raw(&server), format!("consul://{}/{query}", server.addr()));
    (server, raw, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_registers_is_seen_until_it_leaves() {
    let (_consul, raw, url) = start("?drain=100ms").await;
    let check = run(&url, &["check"]).await;
    assert!(check.status.success(), "{check:?}");
    let stdout = text(&check.stdout);
    assert!(
        ["reach", "read", "write"].iter().all(|what| stdout.contains(&format!("{what:<9} ok"))),
        "{stdout}"
    );
    let mut json = Running::start(&url, &["watch", "web", "--json"]);
    json.json("the empty list", |line| fresh(line, 0)).await;
    let mut lines = Running::start(&url, &["watch", "web"]);

    let args = ["register", "web", "10.0.0.1:80", "--weight", "3", "--zone", "eu-1", "--meta", "team=a=b"];
    let mut web = Running::start(&url, &args);
    web.noted("registered web/10.0.0.1:80 in consul://").await;
    let line = json.json("it is there", |line| confirmed(line) == ["10.0.0.1:80"]).await;
    let one = &line["instances"][0];
    assert_eq!(
        (&one["weight"], &one["zone"], &one["metadata"]["team"]),
        (&3.into(), &"eu-1".into(), &"a=b".into())
    );
    lines.said("+ 10.0.0.1:80").await;
    raw.register("web", "theirs", "10.0.0.2", 80).await.unwrap();
    json.json("somebody else's is there", |line| fresh(line, 2)).await;
    lines.said("+ theirs@n1 10.0.0.2:80").await;
    let list = run(&url, &["list", "web"]).await;
    assert_eq!(
        text(&list.stdout),
        "ADDRESS      ID         STATE  WEIGHT  ZONE  METADATA\n\
         10.0.0.1:80             up     3       eu-1  team=a=b\n\
         10.0.0.2:80  theirs@n1  up     1\n"
    );
    let list = run(&url, &["list"]).await;
    assert!(text(&list.stdout).contains("web      2          2\n"), "{list:?}");

    web.signal(Signal::TERM);
    let line = json.json("it has left", |line| fresh(line, 1)).await;
    assert_eq!(
        line["instances"].as_array().map(Vec::len),
        Some(1),
        "it was announced, so nobody holds on to it"
    );
    assert_eq!(web.code().await, 0);
    let entries = raw.get("health/service/web").await.unwrap();
    assert_eq!(entries.as_array().map(Vec::len), Some(1), "{entries}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_9_of_the_command_or_of_us_takes_it_away() {
    let (_consul, raw, url) = start("").await;
    let line = crash::a_kill_9_of_the_command_or_of_us_takes_it_away(&url).await;
    // Consul does not say who took an entry away, so the last of a service is held for a while.
    assert!(line["instances"].as_array().unwrap().iter().all(|one| one["held"] == true), "{line}");
    assert_eq!(raw.alive("web").await.unwrap(), [Value::Null; 0]);
}
